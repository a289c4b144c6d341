/** The form of a job: what is asked, as the API takes it, and its problems beside the fields that they name. */

import { byId, keyed, make, mark, say } from "./dom";
import type { Problem } from "./types";

interface Asked {
  readonly program: Readonly<Record<string, unknown>>;
  readonly policy: Readonly<Record<string, unknown>> | null;
}

const form = byId("job", HTMLFormElement);
const general = byId("job-problem", HTMLElement);
const places = byId("places", HTMLElement);
const policyBox = byId("policy", HTMLDetailsElement);

/** Return what the form says; empty fields are left out. */
export function readForm(): Asked {
  const ops = checkedOps().map((box) => {
    const imm = byOp(box.value);
    return { op: box.value, ...(imm === null || imm.value === "" ? {} : { imm: imm.valueAsNumber }) };
  });
  const substrates = [...places.querySelectorAll<HTMLInputElement>("input:checked")].map((box) => box.value);
  const policy = defined({
    goal: byId("goal", HTMLSelectElement).value || undefined,
    trust: byId("trust", HTMLSelectElement).value || undefined,
    max_cost_usd: number("max-cost"),
    deadline_s: number("deadline"),
    substrates: substrates.length > 0 ? substrates : undefined,
  });
  const program = defined({
    data_url: byId("data-url", HTMLInputElement).value.trim(),
    offset: number("offset"),
    length: number("length"),
    ops,
  });
  return { program, policy: Object.keys(policy).length > 0 ? policy : null };
}

/** Offer the substrates of the fleet; what is checked stays so. */
export function offerPlaces(names: readonly string[]): void {
  byId("places-field", HTMLElement).hidden = names.length === 0;
  const create = (name: string) =>
    make("label", { class: "check" }, make("input", { type: "checkbox", value: name }), make("span", {}, name));
  keyed(places, names, (name) => name, create, () => undefined);
}

export function clearProblems(): void {
  say(general, "");
  for (const told of form.querySelectorAll(".problem[data-of]")) told.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    mark(field, "aria-describedby", field.getAttribute("data-hint"));
  }
}

/** Show a problem beside the field that it names, or over the buttons where it names none of these. */
export function showProblem(problem: Problem): void {
  clearProblems();
  const text = [problem.detail, problem.hint].filter(Boolean).join(": ");
  const field = fieldOf(problem.field ?? "");
  if (field === null) {
    say(general, problem.field === undefined ? text : `${text} (${problem.field})`);
    return;
  }
  const told = make("p", { class: "problem", id: `${field.id}-problem`, "data-of": field.id }, text);
  (field.closest(".field, fieldset") ?? field).append(told);
  mark(field, "aria-invalid", "true");
  mark(field, "aria-describedby", [field.getAttribute("data-hint"), told.id].filter(Boolean).join(" "));
  if (policyBox.contains(field)) policyBox.open = true;
  field.focus();
}

/** `program.ops[1].imm` is the second one checked. */
function fieldOf(name: string): HTMLElement | null {
  const [, index, part] = /^(?:program\.)?ops\[(\d+)\](?:\.(\w+))?$/.exec(name) ?? [];
  if (index !== undefined) {
    const box = checkedOps()[Number(index)];
    return box === undefined ? null : part === "imm" ? byOp(box.value) : box;
  }
  return form.querySelector<HTMLElement>(`[data-field="${CSS.escape(name)}"]`);
}

function checkedOps(): HTMLInputElement[] {
  return [...form.querySelectorAll<HTMLInputElement>("input[name=op]:checked")];
}

function byOp(op: string): HTMLInputElement | null {
  return form.querySelector<HTMLInputElement>(`input[name="imm-${CSS.escape(op)}"]`);
}

function number(id: string): number | undefined {
  const value = byId(id, HTMLInputElement).valueAsNumber;
  return Number.isNaN(value) ? undefined : value;
}

function defined(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
