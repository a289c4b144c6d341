/** The page that anyone may open to lend a browser: its form, its figures, its buttons. */

import type { Client, Limits, PauseReason } from "../src";
// The built file beside this one, so that the page and others share it.
import * as PacketFS from "./packetfs.mjs";

type Shown = Client["state"] | "paused";

const STATES: Readonly<Record<Shown, string>> = {
  idle: "Not lent",
  connecting: "Connecting …",
  lending: "Lending",
  waiting: "Connection lost; trying again …",
  paused: "Paused",
  left: "Not lent",
};
const REASONS: Readonly<Record<PauseReason, string>> = {
  asked: "You paused it.",
  hidden: "This page is not in view.",
  battery: "This computer runs on its battery.",
};
const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;
const MB = 1e6;

const form = byId("form", HTMLFormElement);
const settings = byId("settings", HTMLFieldSetElement);
const start = byId("start", HTMLButtonElement);
const pause = byId("pause", HTMLButtonElement);
const leave = byId("leave", HTMLButtonElement);
const ticket = byId("ticket", HTMLInputElement);
const tickets = meta("tickets");

let client: Client | null = null;
let starting = false;
let left = false;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void begin();
});
pause.addEventListener("click", () => {
  if (client?.pauses.includes("asked")) client.resume();
  else client?.pause();
});
leave.addEventListener("click", () => {
  left = true;
  client?.close();
  show();
  start.focus();
});

prepare();
show();

/** Offer as many slots as there are processors; take a ticket from the address, where no server sees it. */
function prepare(): void {
  const most = Math.min(8, Math.max(1, navigator.hardwareConcurrency || 1));
  const slots = byId("slots", HTMLSelectElement);
  for (let count = 1; count <= most; count += 1) slots.add(new Option(String(count)));
  slots.value = String(Math.max(1, most - 1));
  ticket.value = new URLSearchParams(location.hash.slice(1)).get("ticket") ?? "";
  ticket.required = tickets === "";
  for (const id of ["ticket-field", "ticket-hint"]) byId(id, HTMLElement).hidden = tickets !== "";
}

async function begin(): Promise<void> {
  const problem = byId("problem", HTMLElement);
  problem.textContent = "";
  left = false;
  starting = true;
  show();
  try {
    const made = await PacketFS.connect({
      gateway: meta("gateway") || "/",
      limits: chosenLimits(),
      variables: { PACKETFS_ALLOW_PRIVATE_SOURCES: meta("allow-private-sources") },
      consent: () => byId("consent", HTMLInputElement).checked,
    });
    client = made;
    made.addEventListener("change", show);
    await made.lend({ ticket: tickets === "" ? ticket.value : fetchTicket });
  } catch (error) {
    // Leaving while it connects is no problem to tell of.
    if (!left) problem.textContent = error instanceof Error ? error.message : String(error);
    client?.close();
  }
  starting = false;
  show();
}

function chosenLimits(): Limits {
  const size = byId("size", HTMLInputElement).valueAsNumber;
  const rate = byId("rate", HTMLInputElement).valueAsNumber;
  return {
    maxJobs: Number(byId("slots", HTMLSelectElement).value),
    onlyWhenVisible: byId("visible", HTMLInputElement).checked,
    onlyOnPower: byId("power", HTMLInputElement).checked,
    ...(Number.isNaN(size) ? {} : { maxBytesPerJob: size * MB }),
    ...(Number.isNaN(rate) ? {} : { maxMBPerSecond: rate }),
  };
}

async function fetchTicket(): Promise<string> {
  const response = await fetch(new URL(tickets, document.baseURI), { method: "POST" });
  const found = response.ok ? ((await response.json()) as { ticket?: unknown }).ticket : undefined;
  if (typeof found !== "string") throw new Error("the hub gives no ticket now");
  return found;
}

function show(): void {
  const state = client?.state ?? "idle";
  const pauses = client?.pauses ?? [];
  const isLent = state === "connecting" || state === "lending" || state === "waiting";
  const shown: Shown = state === "lending" && pauses.length > 0 ? "paused" : state;
  const told = byId("state", HTMLElement);
  // A status that is written again is read out again.
  if (told.textContent !== STATES[shown]) told.textContent = STATES[shown];
  told.dataset["state"] = shown;
  byId("why", HTMLElement).textContent = isLent ? pauses.map((reason) => REASONS[reason]).join(" ") : "";
  const began = isLent && leave.disabled;
  start.disabled = settings.disabled = isLent || starting;
  pause.disabled = leave.disabled = !isLent;
  // The button that had the focus cannot keep it.
  if (began) leave.focus();
  pause.textContent = pauses.includes("asked") ? "Resume" : "Pause";
  if (client === null) return;
  const { jobs, bytes, seconds, failures, running } = client.metrics;
  const figures = { jobs, bytes: sized(bytes), seconds: timed(seconds), failures, running };
  for (const [id, figure] of Object.entries(figures)) byId(id, HTMLElement).textContent = String(figure);
}

function sized(bytes: number): string {
  const unit = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** unit;
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

function timed(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function meta(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="packetfs:${name}"]`)?.content ?? "";
}

function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}
