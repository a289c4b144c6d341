/** What an operator reads first: whether all is well, what is not, and whether this page still knows. */

import { byId, keyed, make, mark, say } from "./dom";
import { clock, span } from "./format";
import type { Overview, Problem, Substrate, Unwell } from "./types";

const WORDS: Readonly<Record<string, string>> = { healthy: "Healthy", degraded: "Degraded", unhealthy: "Unhealthy" };
const SAID: Readonly<Record<string, string>> = {
  healthy: "All is well.",
  degraded: "Jobs run, but not all is well:",
  unhealthy: "No job could run now:",
};

const headline = byId("headline", HTMLElement);
const about = byId("about-state", HTMLElement);
const list = byId("unwell", HTMLElement);
const link = byId("link", HTMLElement);
const content = byId("live", HTMLElement);

let latest: { at: number; heard: number } | null = null;
let retryAt = 0;
let sayLink = () => "";

/** Return the gateway's time, by its last word and this page's clock. */
export function gatewayNow(): number {
  return latest === null ? Date.now() / 1000 : latest.at + (performance.now() - latest.heard) / 1000;
}

/** Show the state of a document that has just come. */
export function showState(document_: Overview): void {
  latest = { at: document_.at, heard: performance.now() };
  content.hidden = false;
  mark(content, "data-stale", null);
  mark(link, "data-state", "live");
  mark(link, "title", `as of ${clock(document_.at)}`);
  sayLink = () => "Live";
  mark(headline, "data-state", document_.status);
  say(headline, WORDS[document_.status] ?? document_.status);
  // This is what is read out: the word, and what it means.
  say(about, SAID[document_.status] ?? "");
  const unwell = document_.unwell.map((one) => ({ one, key: `${one.what} ${one.name ?? ""}` }));
  keyed(list, unwell, ({ key }) => key, () => make("li"), (item, { one }) => say(item, sentence(one, document_.substrates)));
  document.title = `${WORDS[document_.status] ?? document_.status} – PacketFS`;
  tick();
}

/** Say that nothing comes, and what was shown before is old. */
export function showLost(problem: Problem, waitMs: number): void {
  retryAt = performance.now() + waitMs;
  age("lost", () => {
    // The seconds are not counted down: it is read out whenever it is another.
    const again = retryAt - performance.now() > 5000 ? "Trying again in a few seconds" : "Trying again";
    return `Connection lost: ${problem.detail}.${asOf()} ${again} …`;
  });
  document.title = "Connection lost – PacketFS";
  if (latest === null) nothingKnown("No connection");
}

/** Say that the gateway itself does not know. */
export function showUnknown(problem: Problem): void {
  age("lost", () => `The gateway cannot say how things are: ${problem.detail}.${asOf()}`);
  document.title = "Unknown – PacketFS";
  if (latest === null) nothingKnown("Unknown");
}

/** Say that the page is idle since nobody sees it, or waits for a key. */
export function showPaused(word: string): void {
  age("paused", () => (latest === null ? "" : word));
  if (latest === null) nothingKnown(word);
}

/** Keep what is said of the connection true while time passes. */
export function tick(): void {
  say(link, sayLink());
}

function age(state: string, sentence_: () => string): void {
  mark(link, "data-state", state);
  mark(content, "data-stale", "");
  sayLink = sentence_;
  tick();
}

function nothingKnown(word: string): void {
  mark(headline, "data-state", "unknown");
  say(headline, word);
  say(about, "Nothing is known yet.");
}

function asOf(): string {
  return latest === null ? "" : ` Shown is how things were at ${clock(latest.at)}.`;
}

function sentence(one: Unwell, substrates: readonly Substrate[]): string {
  const found = substrates.find((substrate) => substrate.name === one.name);
  const named = one.name === undefined ? one.what : one.name;
  if (one.what !== "breaker" || found === undefined) return `${named}: ${one.message}`;
  const { breaker } = found;
  const left = breaker.until === null ? "" : `; it tries again in ${span(breaker.until - gatewayNow())}`;
  const cause = breaker.cause === null ? "" : ` because of ${breaker.cause.error}: ${breaker.cause.message}`;
  return `${named}: its breaker is open${cause}${left}`;
}
