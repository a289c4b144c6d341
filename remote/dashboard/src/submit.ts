/** A job from this page: explained without running, or submitted and followed to its end. */

import { attemptsList, routingTable, state } from "./decision";
import { byId, make, say, table } from "./dom";
import { clearProblems, readForm, showProblem } from "./form";
import { bytes, seconds, usd } from "./format";
import { ask, events, json, problemFrom, Refused } from "./gateway";
import type { Explained, JobResult, JobStatus } from "./types";

const ENDED: ReadonlySet<string> = new Set(["done", "failed", "cancelled"]);
const WORDS: Readonly<Record<string, string>> = {
  queued: "Queued", running: "Running", done: "Done", failed: "Failed", cancelled: "Cancelled",
};
const TRIES = 8;

const form = byId("job", HTMLFormElement);
const explain = byId("explain", HTMLButtonElement);
const submit = byId("submit", HTMLButtonElement);
const cancel = byId("cancel", HTMLButtonElement);
const progress = byId("progress", HTMLElement);
const answer = byId("answer", HTMLElement);

/** Buttons are not disabled meanwhile: that would take the focus from who uses the keyboard. */
let busy = false;
let following: { readonly id: string; readonly stop: AbortController } | null = null;

/** Have the form's buttons do what they say. */
export function prepareForm(): void {
  for (const box of form.querySelectorAll<HTMLInputElement>("input[name=op]")) box.addEventListener("change", immFields);
  immFields();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void attempt(event.submitter === explain ? explainJob : submitJob);
  });
  cancel.addEventListener("click", () => void cancelJob());
}

/** A number is wanted of the operations that are checked, and of no others. */
function immFields(): void {
  for (const box of form.querySelectorAll<HTMLInputElement>("input[name=op]")) {
    const imm = form.querySelector<HTMLInputElement>(`input[name="imm-${box.value}"]`);
    if (imm !== null) imm.disabled = !box.checked;
  }
}

async function attempt(action: () => Promise<void>): Promise<void> {
  if (busy) return;
  busy = true;
  clearProblems();
  try {
    await action();
  } catch (error) {
    say(progress, "");
    showProblem(problemFrom(error));
  }
  busy = false;
}

async function explainJob(): Promise<void> {
  leave();
  const told = await json<Explained>("POST", "/v1/explain", readForm());
  const size = told.byte_count === null ? "bytes of unknown number" : bytes(told.byte_count);
  const by = told.measured ? "by what was measured" : "by what the places declare";
  const where = told.substrate === null ? "It would run nowhere" : `It would run on ${told.substrate}`;
  say(progress, `${where}: ${size}, ${by}. Nothing was run.`);
  answer.replaceChildren(routingTable(told));
}

async function submitJob(): Promise<void> {
  leave();
  const accepted = await json<JobStatus>("POST", "/v1/jobs", readForm());
  const mine = { id: accepted.job_id, stop: new AbortController() };
  following = mine;
  answer.replaceChildren();
  show(accepted);
  // The buttons are free again meanwhile.
  void follow(mine.id, mine.stop.signal);
}

/** Watch no more; the job goes on. */
function leave(): void {
  following?.stop.abort();
  following = null;
  cancel.hidden = true;
  answer.replaceChildren();
}

async function cancelJob(): Promise<void> {
  if (following === null || busy) return;
  const { id, stop } = following;
  busy = true;
  try {
    const now = await json<JobStatus>("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
    if (!stop.signal.aborted) show(now);
  } catch (error) {
    showProblem(problemFrom(error));
  }
  busy = false;
}

/** Follow a job's events to its end. A stream has a bounded life, and may be cut: then it is asked for again. */
async function follow(id: string, signal: AbortSignal): Promise<void> {
  for (let failures = 0; failures < TRIES && !signal.aborted; failures += 1) {
    try {
      const response = await ask("GET", `/v1/jobs/${encodeURIComponent(id)}/events`, undefined, signal);
      for await (const [name, data] of events(response)) {
        if (signal.aborted) return;
        if (name !== "status") continue;
        failures = 0;
        const status = JSON.parse(data) as JobStatus;
        show(status);
        if (ENDED.has(status.status)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.problem.status < 500 && error.problem.status !== 429) {
        showProblem(error.problem);
        return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** failures * (0.5 + Math.random() / 2)));
  }
  if (!signal.aborted) say(progress, `Job ${id}: its progress cannot be followed; the job is not lost.`);
}

function show(status: JobStatus): void {
  const ended = ENDED.has(status.status);
  const hadFocus = document.activeElement === cancel;
  cancel.hidden = ended;
  if (ended && hadFocus) submit.focus();
  say(progress, `${WORDS[status.status] ?? status.status}: job ${status.job_id}`);
  if (!ended) return;
  if (status.result !== null) answer.replaceChildren(...resultOf(status.result));
  else answer.replaceChildren(...failureOf(status));
}

function resultOf(result: JobResult): HTMLElement[] {
  const rows = result.results.map(({ op, imm, value }) => [imm === undefined ? op : `${op} ${imm}`, String(value), hex(op, value)]);
  const facts: readonly (readonly [string, string])[] = [
    ["Cost", usd(result.cost_usd)],
    [result.cached ? "Known" : "Read", bytes(result.bytes_processed)],
    ["Where", `${result.substrate}, ${result.region}`],
    ["Queued", seconds(result.timing.queued_s)],
    ["Fetched", seconds(result.timing.fetch_s)],
    ["Computed", seconds(result.timing.compute_s)],
    ["In all", seconds(result.timing.total_s)],
  ];
  const list = make("dl", { class: "facts" });
  for (const [name, value] of facts) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  const values = table("The values", [["Operation", "t"], ["Value", "n"], ["Hexadecimal", "n"]], rows);
  values.classList.add("results");
  return [values, list, make("h3", {}, "Attempts"), attemptsList(result.attempts, result.cached)];
}

function failureOf({ status, error }: JobStatus): HTMLElement[] {
  if (error === null) return [make("p", {}, state("off", WORDS[status] ?? status))];
  const told = make("p", { class: "problem" }, `${error.type}: ${error.message}`);
  return [told, make("h3", {}, "Attempts"), attemptsList(error.attempts ?? [])];
}

function hex(op: string, value: number | string): string {
  // A hash is hexadecimal as it is.
  if (typeof value === "string") return "";
  return op === "crc32c" ? `0x${value.toString(16).padStart(8, "0")}` : `0x${value.toString(16)}`;
}
