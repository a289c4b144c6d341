/** The jobs that ended last. A row opens to its attempts and its routing table; while someone reads, the list stands still. */

import { attemptsList, routingTable, state } from "./decision";
import { byId, keyed, make, mark, say } from "./dom";
import { ago, bytes, moment, plural, seconds, usd, whole } from "./format";
import { gatewayNow } from "./headline";
import type { Recent, Scanned } from "./types";

const body = byId("recent", HTMLElement);
const none = byId("no-recent", HTMLElement);
const held = byId("held", HTMLElement);
const release = byId("release", HTMLButtonElement);
const onlyFailed = byId("only-failed", HTMLInputElement);

const all = byId("all", HTMLButtonElement);
/** So many are shown at first. */
const FEW = 12;

const heads = body.closest("table")?.tHead?.rows[0]?.cells ?? [];

let newest: readonly Recent[] = [];
let shown: readonly Recent[] = [];
let count = 0;
let isWhole = false;

onlyFailed.addEventListener("change", () => show(true));
all.addEventListener("click", () => {
  isWhole = !isWhole;
  show(false);
});
addEventListener("resize", () => show(false));
release.addEventListener("click", () => {
  for (const open of body.querySelectorAll<HTMLElement>("[aria-expanded=true]")) toggle(open);
  show(true);
  // It is about to be hidden, and the focus has to be somewhere.
  body.querySelector("button")?.focus();
});

/** Show the jobs, the newest first; or keep them for later, where someone reads. */
export function showRecent(jobs: readonly Recent[]): void {
  newest = jobs;
  show(false);
}

function show(asked: boolean): void {
  const wanted = newest.filter((one) => !onlyFailed.checked || one.status === "failed");
  if (asked || !isRead()) shown = wanted;
  const known = new Set(shown.map((one) => one.job_id));
  const waiting = wanted.filter((one) => !known.has(one.job_id)).length;
  say(held, waiting === 0 ? "" : `The list stands still while you read. ${plural(waiting, "newer job")}.`);
  release.hidden = waiting === 0;
  none.hidden = shown.length > 0;
  say(none, onlyFailed.checked ? "None of the last jobs failed." : "No job has ended yet.");
  all.hidden = shown.length <= FEW;
  say(all, isWhole ? `Show only ${FEW}` : `Show all ${shown.length}`);
  const columns = String([...heads].filter((head) => getComputedStyle(head).display !== "none").length);
  const rows = (isWhole ? shown : shown.slice(0, FEW)).flatMap((job) => [{ job, more: false }, { job, more: true }]);
  keyed(body, rows, ({ job, more }) => `${job.job_id}${more ? " more" : ""}`, ({ job, more }) => (more ? details() : line(job)), (row, { job, more }) => {
    if (!more) fillTimes(row, job);
    // A cell that spans columns which are hidden brings them back.
    else mark(row.cells[0] as Element, "colspan", columns);
  });
}

/** Whether a row is open, has the focus, or is under the pointer. A finger leaves :hover behind, so it does not count. */
function isRead(): boolean {
  if (body.querySelector("[aria-expanded=true]") !== null || body.contains(document.activeElement)) return true;
  return matchMedia("(hover: hover)").matches && body.matches(":hover");
}

function line(job: Recent): HTMLTableRowElement {
  count += 1;
  const button = make("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": `job-${count}` }, short(job.job_id));
  mark(button, "aria-label", `Job ${job.job_id}`);
  mark(button, "title", job.job_id);
  button.addEventListener("click", () => toggle(button));
  const outcome = job.status === "done" ? state("good", "done") : state(job.status === "failed" ? "bad" : "off", job.error?.type ?? job.status);
  if (job.error !== null) mark(outcome, "title", job.error.message);
  if (job.cached) outcome.append(make("small", {}, "from the cache"));
  const tries = job.scan === null && job.attempts.length > 1 ? make("small", {}, plural(job.attempts.length, "attempt")) : null;
  return make(
    "tr",
    { class: "job" },
    make("th", { scope: "row" }, button, kind(job)),
    make("td", { class: "n when" }, make("time")),
    make("td", {}, outcome),
    make("td", {}, job.substrate ?? "–", tries),
    make("td", { class: "n" }, seconds(job.total_s)),
    make("td", { class: "n wide" }, usd(job.cost_usd)),
    make("td", { class: "wide" }, job.op),
    make("td", { class: "n wide" }, size(job)),
    make("td", { class: "wide url", title: job.data_url }, job.data_url),
  );
}

/** Say of a scan that it is one, and of a window whose it is. */
function kind(job: Recent): HTMLElement | null {
  if (job.window_of !== null) return make("small", { title: job.window_of }, "in a scan");
  return job.scan === null ? null : make("small", {}, "scan");
}

function size(job: Recent): string {
  const count = job.scan?.bytes_processed ?? job.length;
  return count === null ? "to its end" : bytes(count);
}

function fillTimes(row: HTMLElement, job: Recent): void {
  const time = row.querySelector("time");
  if (time === null) return;
  say(time, ago(job.at, gatewayNow()));
  mark(time, "title", moment(job.at));
  mark(time, "datetime", new Date(job.at * 1000).toISOString());
}

function details(): HTMLTableRowElement {
  return make("tr", { class: "more", hidden: "" }, make("td"));
}

/** Open or close the row of a button. What is in it is made when it is first seen. */
function toggle(button: HTMLElement): void {
  const row = button.closest("tr");
  const more = row?.nextElementSibling;
  const cell = more?.firstElementChild;
  const job = shown.find((one) => one.job_id === row?.dataset["key"]);
  if (!(more instanceof HTMLElement) || cell === null || cell === undefined || job === undefined) return;
  const opens = more.hidden;
  more.hidden = !opens;
  more.id = button.getAttribute("aria-controls") ?? "";
  mark(button, "aria-expanded", String(opens));
  if (opens) cell.replaceChildren(...inside(job));
}

function inside(job: Recent): HTMLElement[] {
  const facts: readonly (readonly [string, string])[] = [
    ["Job", job.job_id],
    ["Ended", moment(job.at)],
    ["Source", job.data_url],
    ["Length", size(job)],
    ["Operation", job.op],
    ["Cost", usd(job.cost_usd)],
    ...(job.window_of === null ? [] : [["A window of the scan", job.window_of] as const]),
    ...(job.scan === null ? [] : aboutScan(job.scan)),
  ];
  const list = make("dl", { class: "facts" });
  for (const [name, value] of facts) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const parts: HTMLElement[] = [list];
  if (job.error !== null) parts.push(make("p", { class: "problem" }, `${job.error.type}: ${job.error.message}`));
  const what = job.scan === null ? "Attempts" : "Attempts that failed, and what each place did";
  parts.push(make("h3", {}, what), attemptsList(job.attempts, job.cached));
  // Each of a scan's windows was decided alone, and where there was no attempt there was nothing to decide.
  if (job.scan !== null || job.cached) return parts;
  parts.push(make("h3", {}, "Why there"));
  const unknown = "The decision behind it is not kept.";
  parts.push(job.decision === null ? make("p", { class: "none" }, unknown) : routingTable(job.decision));
  return parts;
}

function aboutScan(scan: Scanned): (readonly [string, string])[] {
  if (scan.windows === null) return [];
  return [
    ["Windows", `${whole(scan.windows)} of ${bytes(scan.window)}`],
    ...(scan.hedges ? [["Hedges", whole(scan.hedges)] as const] : []),
    ...(scan.cached_bytes ? [["From the cache", bytes(scan.cached_bytes)] as const] : []),
    ...(scan.appended_to === null ? [] : [["Appended to", scan.appended_to] as const]),
  ];
}

function short(id: string): string {
  return id.length > 14 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id;
}
