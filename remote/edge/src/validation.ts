/** Small checks for untrusted JSON. Each error names the field, what is wrong with it, and what would be right. */

import { JobError } from "./errors";

/** A strong entity tag in its quotes (RFC 9110, section 8.8.3). */
export const STRONG_ETAG = /^"[\x21\x23-\x7e\x80-\xff]*"$/;

/** What `str.isprintable` of Python takes: no control, format, surrogate, unassigned or separator but the space. */
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$/u;
const MAX_SHOWN = 64;

/** The error for one field: what is wrong with it, and what would be right. */
export function bad(field: string, problem: string, hint: string): JobError {
  return new JobError("bad_program", `${field} ${problem}`, { field, hint });
}

/** Return `raw` if it is a JSON object with no other keys than `known`. */
export function requireObject(raw: unknown, field: string, known: readonly string[]): Record<string, unknown> {
  if (!isObject(raw)) throw bad(field, `is ${show(raw)}`, "give a JSON object");
  const unknown = Object.keys(raw).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    const name = characters(unknown) <= 32 && isPrintable(unknown) ? unknown : show(unknown);
    throw bad(`${field}.${name}`, "is not a known field", `known are ${known.toSorted().join(", ")}`);
  }
  return raw;
}

/** Return `raw` as an integer in `low..high`. `1.0` is 1: JSON has one number type, and JavaScript cannot tell. */
export function integer(raw: unknown, field: string, low: number, high: number): number {
  if (typeof raw !== "number" || !Number.isInteger(raw) || raw < low || raw > high) {
    throw bad(field, `is ${show(raw)}`, `give an integer from ${low} to ${high}`);
  }
  return raw + 0; // -0 is 0
}

export function isObject(raw: unknown): raw is Record<string, unknown> {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw);
}

/** How many characters a text has: code points, not UTF-16 units, of which 😀 would be two. */
export function characters(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at += text.codePointAt(at)! > 0xffff ? 2 : 1) count += 1;
  return count;
}

export function isPrintable(text: string): boolean {
  return PRINTABLE.test(text);
}

/** A short, safe rendering of an untrusted value for an error message. Text is rendered as Python's `repr` does. */
export function show(value: unknown): string {
  if (value === null || value === undefined) return "missing";
  if (Array.isArray(value)) return `a list of ${value.length} items`;
  if (typeof value === "object") return `an object of ${Object.keys(value).length} fields`;
  // Two UTF-16 units a character at most: no more of a long text is looked at.
  const text = typeof value === "string" ? quoted(Array.from(value.slice(0, 2 * MAX_SHOWN + 2))) : String(value);
  const shown = Array.from(text);
  return shown.length <= MAX_SHOWN ? text : `${shown.slice(0, MAX_SHOWN - 1).join("")}…`;
}

const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function quoted(whole: readonly string[]): string {
  const text = whole.slice(0, MAX_SHOWN + 1);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.map((char) => {
    if (char === quote) return `\\${char}`;
    return ESCAPES[char] ?? (isPrintable(char) ? char : escaped(char.codePointAt(0)!));
  });
  return quote + body.join("") + quote;
}

function escaped(code: number): string {
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code <= 0xffff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}
