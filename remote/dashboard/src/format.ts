/** Numbers as people read them: three digits that matter, a thin space between groups and before the unit. */

const THIN = "\u202f";
const NONE = "–";
const SIZES = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

/** Return a count in full. */
export function whole(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  return grouped(String(Math.round(value)));
}

/** Return a number with about three digits that matter. */
export function short(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1000) return grouped(value.toFixed(0));
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.1) return value.toFixed(2);
  return size < 0.001 ? power(value) : String(Number(value.toPrecision(2)));
}

export function perSecond(value: number | null | undefined): string {
  return isNumber(value) ? `${short(value)}${THIN}/s` : NONE;
}

/** Return how long something took, in seconds, milliseconds or microseconds. */
export function seconds(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return `0${THIN}s`;
  if (size < 0.001) return `${short(value * 1e6)}${THIN}µs`;
  if (size < 1) return `${short(value * 1e3)}${THIN}ms`;
  return size < 100 ? `${short(value)}${THIN}s` : span(value);
}

/** Return a span in the largest two units that it has. */
export function span(value: number): string {
  const all = Math.max(0, Math.round(value));
  if (all < 60) return `${all}${THIN}s`;
  if (all < 3600) return joined(Math.floor(all / 60), "min", all % 60, "s");
  if (all < 86_400) return joined(Math.floor(all / 3600), "h", Math.floor((all % 3600) / 60), "min");
  return joined(Math.floor(all / 86_400), "d", Math.floor((all % 86_400) / 3600), "h");
}

export function bytes(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  const unit = Math.min(SIZES.length - 1, Math.floor(Math.log10(Math.max(1, Math.abs(value))) / 3));
  const number = unit === 0 ? whole(value) : short(value / 1000 ** unit);
  return `${number}${THIN}${SIZES[unit]}`;
}

export function usd(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  return `${Math.abs(value) >= 1 ? grouped(value.toFixed(2)) : short(value)}\u2009USD`;
}

export function percent(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  const hundredths = value * 100;
  return `${Number(hundredths < 1 ? hundredths.toPrecision(1) : hundredths.toFixed(1))}${THIN}%`;
}

/** Return a moment as it is said of now. */
export function ago(at: number, now: number): string {
  const passed = now - at;
  if (passed < -0.5) return `in ${span(-passed)}`;
  return passed < 1 ? "now" : `${span(passed)} ago`;
}

/** Return the moment itself, with the date, in this place's time. */
export function moment(at: number): string {
  const date = new Date(at * 1000);
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${clock(at)}`;
}

export function clock(at: number): string {
  const date = new Date(at * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}

/** Return a number of things: `plural(2, "job")` is "2 jobs". */
export function plural(count: number, one: string, more = `${one}s`): string {
  return `${whole(count)}${THIN}${count === 1 ? one : more}`;
}

function isNumber(value: number | null | undefined): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function joined(first: number, unit: string, second: number, lesser: string): string {
  const least = second === 0 ? "" : ` ${second}${THIN}${lesser}`;
  return `${first}${THIN}${unit}${least}`;
}

function grouped(digits: string): string {
  const [before = "", after] = digits.split(".");
  const apart = before.replace(/\B(?=(\d{3})+$)/g, THIN);
  return after === undefined ? apart : `${apart}.${after}`;
}

/** Return a small number as 2.1×10⁻⁷: nobody counts zeros. */
function power(value: number): string {
  const [digits = "0", exponent = "0"] = value.toExponential(1).split("e");
  const raised = [...exponent.replace("+", "")].map((one) => (one === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(one)])).join("");
  return `${digits.replace(/\.0$/, "")}×10${raised}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}
