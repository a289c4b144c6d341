/** One line for each substrate: its breaker, its queue, what it does a second, how long that takes and what it costs. */

import { swatch } from "./charts";
import { state } from "./decision";
import { byId, keyed, make, mark, say } from "./dom";
import { bytes, moment, percent, perSecond, plural, seconds, span, usd, whole } from "./format";
import { gatewayNow } from "./headline";
import { lookOf } from "./palette";
import type { Breaker, Substrate } from "./types";

const COLUMNS = [
  ["breaker", "Breaker"], ["queued", "Queued"], ["running", "Running"], ["done", "Done"], ["failed", "Failed"],
  ["p50", "p50"], ["p95", "p95"], ["p99", "p99"], ["read", "Read"], ["rate", "Cost per hour"], ["cost", "Cost"],
] as const;
const BREAKERS: Readonly<Record<string, readonly ["good" | "bad" | "wait", string]>> = {
  closed: ["good", "closed"],
  open: ["bad", "open"],
  half_open: ["wait", "half open"],
};

/** How long a breaker that is closed again tells why it was not. */
const AFTERWARDS_S = 900;

type Name = (typeof COLUMNS)[number][0];

const body = byId("substrates", HTMLElement);
const none = byId("no-substrates", HTMLElement);

/** Show the fleet. */
export function showSubstrates(substrates: readonly Substrate[]): void {
  none.hidden = substrates.length > 0;
  keyed(body, substrates, (one) => one.name, line, fill);
}

function line(one: Substrate): HTMLTableRowElement {
  const key = make("span", { class: "key" });
  swatch(key, lookOf(one.name));
  const head = make("th", { scope: "row", role: "rowheader" }, key, make("b", {}, one.name), make("small"));
  const cells = COLUMNS.map(([name, title]) =>
    make("td", { role: "cell", class: name === "breaker" ? "breaker" : "n", "data-label": title }, make("span"), make("small")),
  );
  return make("tr", { role: "row" }, head, ...cells);
}

function fill(row: HTMLElement, one: Substrate): void {
  const place = [one.provider ?? one.kind, one.region, `trust ${one.trust}`].filter((part) => part !== null && part !== one.name);
  say(row.querySelector("th small") as Element, place.join(" · "));
  COLUMNS.forEach(([name], index) => {
    const cell = row.children[index + 1];
    const [main, more] = cell?.children ?? [];
    if (cell === undefined || main === undefined || more === undefined) return;
    if (name === "breaker") fillBreaker(main, more, one.breaker);
    else {
      const [text, small, title] = FIGURES[name](one);
      say(main, text);
      say(more, small ?? "");
      mark(cell, "title", title ?? null);
    }
  });
}

const FIGURES: Readonly<Record<Exclude<Name, "breaker">, (one: Substrate) => readonly [string, string?, string?]>> = {
  queued: (one) => [whole(one.depth), one.consumers === 0 ? "nobody consumes" : plural(one.consumers, "worker")],
  running: (one) => [whole(one.in_flight), one.slots === null ? "" : `of ${whole(one.slots)}`],
  done: (one) => [perSecond(one.jobs.done_per_s), `${whole(one.jobs.done)} in all`, `${whole(one.attempts.ok)} good attempts`],
  failed: (one) => {
    const all = total(one.jobs.failed);
    const why = listed(one.jobs.failed);
    const attempts = listed(one.attempts.failed);
    return [perSecond(one.jobs.failed_per_s), failures(all, one.jobs.done), [why && `jobs: ${why}`, attempts && `attempts: ${attempts}`].filter(Boolean).join("; ")];
  },
  p50: (one) => [seconds(one.latency_s?.p50)],
  p95: (one) => [seconds(one.latency_s?.p95)],
  p99: (one) => [seconds(one.latency_s?.p99), "", one.latency_s === null ? "" : `of ${plural(one.latency_s.count, "attempt")}`],
  read: (one) => [`${bytes(one.bytes_per_s)}/s`, `${bytes(one.bytes)} in all`],
  rate: (one) => [usd(one.usd_per_hour), "per hour"],
  cost: (one) => [usd(one.usd), "in all"],
};

function fillBreaker(main: Element, more: Element, breaker: Breaker): void {
  const [kind, word] = BREAKERS[breaker.state] ?? ["wait", breaker.state];
  const shown = state(kind, word);
  mark(main, "class", shown.className);
  say(main, word);
  const now = gatewayNow();
  const told = [];
  // One that was never open has nothing to tell; one that is closed again tells why it was not, for a while.
  const recently = breaker.since !== null && breaker.times > 0 && now - breaker.since < AFTERWARDS_S;
  if (breaker.state === "open" && breaker.until !== null) told.push(`tries again in ${span(breaker.until - now)}`);
  if (breaker.state !== "closed" || recently) {
    if (breaker.since !== null) told.push(`since ${span(now - breaker.since)}`);
    if (breaker.times > 1) told.push(`${whole(breaker.times)} times in a row`);
    if (breaker.cause !== null) told.push(`${breaker.cause.error}: ${breaker.cause.message}`);
    else if (breaker.state === "open") told.push("the cause is not known");
  }
  say(more, told.join(" · "));
  const times = ([["since", breaker.since], ["until", breaker.until], ["cause at", breaker.cause?.at ?? null]] as const)
    .flatMap(([word, at]) => (at === null ? [] : [`${word} ${moment(at)}`]));
  mark(more, "title", times.join(", ") || null);
}

function failures(failed: number, done: number): string {
  if (failed === 0) return "none in all";
  return `${whole(failed)} in all, ${percent(failed / (failed + done))}`;
}

export function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function listed(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts).map(([error, count]) => `${error} ${whole(count)}`).join(", ");
}
