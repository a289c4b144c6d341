/** The field for the API key, which shows where the gateway wants one. */

import { byId, mark, say } from "./dom";
import { key } from "./gateway";
import type { Problem } from "./types";

const panel = byId("key-panel", HTMLFormElement);
const field = byId("key", HTMLInputElement);
const problem = byId("key-problem", HTMLElement);
const forget = byId("forget-key", HTMLButtonElement);

/** Call `again` whenever there is another key. */
export function onKey(again: () => void): void {
  forget.hidden = key.get() === "";
  panel.addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(field.value.trim());
    field.value = "";
    forget.hidden = key.get() === "";
    again();
  });
  forget.addEventListener("click", () => {
    key.set("");
    forget.hidden = true;
    again();
  });
}

/** Ask for a key, and say why. */
export function askForKey(told: Problem): void {
  const first = panel.hidden;
  panel.hidden = false;
  // Without a key nobody has done anything wrong yet.
  const given = key.get() !== "";
  say(problem, given ? [told.detail, told.hint].filter(Boolean).join(": ") : "");
  mark(field, "aria-invalid", given ? "true" : null);
  if (first || given) field.focus();
}

export function keyIsGood(): void {
  if (panel.hidden) return;
  panel.hidden = true;
  mark(field, "aria-invalid", null);
  say(problem, "");
}
