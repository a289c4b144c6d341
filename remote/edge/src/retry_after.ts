/** What a source's Retry-After asks for. */

/** Longer than this nobody is left alone for. */
const MAX_RETRY_AFTER_S = 300;
/** The one form of a date that may be sent (RFC 9110, section 5.6.7). */
const IMF_FIXDATE = /^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/;

/** The seconds of a Retry-After (RFC 9110, section 10.2.3), at most 300; `null` when it says nothing. */
export function retryAfterS(value: string | null, nowMs: number): number | null {
  if (value === null) return null;
  const text = value.trim();
  if (/^[0-9]{1,10}$/.test(text)) return Math.min(Number(text), MAX_RETRY_AFTER_S);
  const atMs = IMF_FIXDATE.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(atMs) ? null : Math.min(Math.max((atMs - nowMs) / 1000, 0), MAX_RETRY_AFTER_S);
}
