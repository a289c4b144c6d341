/** Why a job ran where it did: its attempts, and the table behind the decision. */

import { make, scroller, table, type Column } from "./dom";
import { percent, seconds, usd } from "./format";
import type { Attempt, Candidate, Decision } from "./types";

const COLUMNS: readonly Column[] = [
  ["Substrate", "t"], ["Choice", "t"], ["Wait", "n"], ["Run", "n"], ["Total", "n"], ["Price", "n"],
  ["of which egress", "n"], ["Success", "n"], ["Score", "n"],
];

const FROM_CACHE = "From the cache, no attempt: its values were known, and nothing was read.";

/** Return the attempts, the first one first. */
export function attemptsList(attempts: readonly Attempt[], cached = false): HTMLElement {
  if (attempts.length === 0) return make("p", { class: "none" }, cached ? FROM_CACHE : "No attempt is known.");
  const list = make("ol", { class: "attempts" });
  for (const one of attempts) {
    const how = one.ok ? state("good", "done") : state("bad", one.error?.type ?? "failed");
    const why = one.error === null ? null : make("span", { class: "why" }, one.error.message);
    list.append(make("li", {}, make("b", {}, one.substrate), " ", how, ` after ${seconds(one.seconds)} `, why));
  }
  return list;
}

/** Return the routing table. The score is in dollars, however the goal weighs them; the lowest that has no veto wins. */
export function routingTable(decision: Decision): HTMLElement {
  const rows = [...decision.candidates].sort(byRank(decision.substrate)).map((one) => [
    one.substrate,
    verdict(one, decision.substrate),
    seconds(one.wait_s),
    seconds(one.run_s),
    seconds(one.seconds ?? one.wait_s + one.run_s),
    usd(one.usd),
    usd(one.egress_usd),
    percent(one.success),
    usd(one.score),
  ]);
  const shown = make("div", { class: "routing" });
  if (decision.panic) {
    shown.append(make("p", {}, state("bad", "panic"), " Every place was unwell; the least bad was used."));
  }
  if (decision.substrate === null) shown.append(make("p", {}, state("bad", "nowhere"), " Every place is vetoed."));
  shown.append(scroller("The routing table", table("The routing table", COLUMNS, rows)));
  return shown;
}

/** Return a word with a shape, so that colour is not all there is. */
export function state(kind: "good" | "bad" | "wait" | "off", word: string): HTMLElement {
  return make("span", { class: `state ${kind}` }, word);
}

function verdict(one: Candidate, chosen: string | null): Node {
  if (one.substrate === chosen) return state("good", "chosen");
  return one.veto === null ? state("off", "dearer") : make("span", { class: "veto" }, state("bad", "veto"), ` ${one.veto}`);
}

function byRank(chosen: string | null): (a: Candidate, b: Candidate) => number {
  const rank = (one: Candidate) => (one.substrate === chosen ? 0 : one.veto === null ? 1 : 2);
  return (a, b) => rank(a) - rank(b) || a.score - b.score;
}
