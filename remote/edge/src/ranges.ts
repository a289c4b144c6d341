/**
 * HTTP's byte ranges (RFC 9110, sections 13 to 15), decided purely: what to ask, and what an answer means.
 *
 * The one module that knows HTTP's inclusive form; everywhere else a range is `[offset, stop)`. Theory of operation:
 *
 *     ask RANGE ──206, exactly as asked──> read it
 *         │ ├──200──> skip to the offset, read, stop        (the source ignores Range)
 *         │ └──416──> the object ends before: empty, or an error that names its size
 *         └──416 that names no size, or no version while one is pinned──> ask PROBE (bytes=0-0)
 *     ask PROBE ──206──> its size and version decide        (also the first ask for an empty range: HTTP has no such)
 *         └──416 again──> ask WHOLE (no Range): only its 200 with no bytes proves that the object is empty
 *
 * The rules are those of `packetfs_compute/sources/ranges.py`, and a test compares the two on random answers. An answer
 * is taken only when it proves which bytes follow; a pinned version must be proven by a strong ETag in the answer
 * itself, since a source may ignore `If-Match`. HEAD is never sent: a presigned S3 URL is signed for GET alone.
 *
 * What `fetch` hides: a field that stands twice comes joined by a comma, which no pattern here takes; how a body is
 * framed shows only where the runtime passes `Transfer-Encoding` on.
 */

import { JobError, sourceFailed, type Details } from "./errors";
import { MAX_ETAG_CHARS, MAX_INTEGER, VERSION } from "./names";
import { retryAfterS } from "./retry_after";
import { show, STRONG_ETAG } from "./validation";

/** The bytes `[offset, offset + length)` of an object; `length` `null` is to its end. `etag` pins the version. */
export interface RangeRequest {
  readonly url: string;
  readonly offset: number;
  readonly length: number | null;
  readonly etag: string | null;
}

/** Status and fields of one answer. */
export interface Head {
  readonly status: number;
  readonly fields: Headers;
}

/** What one request asks for. */
export type Ask = "range" | "probe" | "whole";

/** How the body ends (RFC 9112, section 6.3): after `length` bytes, by its last chunk, or with the connection. */
export type Framing = { readonly kind: "length"; readonly length: number } | { readonly kind: "chunked" | "close" };

/**
 * How to read the answer's body: throw `skip` bytes away, then take `take` (`null`: all the rest).
 *
 * `exact` says that the body must end there. `objectSize` and `etag` are what the answer proves of the object.
 */
export interface Plan {
  readonly skip: number;
  readonly take: number | null;
  readonly exact: boolean;
  readonly objectSize: number | null;
  readonly etag: string | null;
  readonly framing: Framing;
}

const CONTENT_RANGE = /^bytes +([0-9]{1,16})-([0-9]{1,16})\/([0-9]{1,16}|\*)$/i;
const UNSATISFIED = /^bytes +\*\/([0-9]{1,16})$/i;
const RETRYABLE: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);
const NEXT: Readonly<Record<Ask, Ask | null>> = { range: "probe", probe: "whole", whole: null };

/** One past the last byte wanted, or `null` for the object's end. */
export function stopOf(request: RangeRequest): number | null {
  return request.length === null ? null : request.offset + request.length;
}

/** The last byte wanted, as HTTP writes it; it may lie past 2**53, where numbers are no longer exact. */
function lastOf({ offset, length }: RangeRequest): string {
  return length === null ? "" : String(BigInt(offset) + BigInt(length) - 1n);
}

/** What to ask first: HTTP cannot ask for an empty range, so one is proven to lie within the object. */
export function firstAsk(request: RangeRequest): Ask {
  return request.length === 0 ? "probe" : "range";
}

/** The request's header fields. */
export function fieldsOf(ask: Ask, request: RangeRequest): [name: string, value: string][] {
  const fields: [string, string][] = [
    ["User-Agent", `packetfs-compute/${VERSION}`],
    ["Accept", "*/*"],
    // A coded body would be other bytes than the object's, and may be a bomb (RFC 9110, section 12.5.3).
    ["Accept-Encoding", "identity"],
  ];
  if (ask === "probe") fields.push(["Range", "bytes=0-0"]);
  if (ask === "range") fields.push(["Range", `bytes=${request.offset}-${lastOf(request)}`]);
  if (request.etag !== null) fields.push(["If-Match", request.etag]);
  return fields;
}

/**
 * How to read the answer `head` to `ask`, or what to ask next; throws the error that the answer amounts to.
 *
 * `nowMs` is Unix time, for a Retry-After that is a date.
 */
export function decide(head: Head, ask: Ask, request: RangeRequest, maxSkip: number, nowMs: number): Plan | Ask {
  if (head.status === 206) return partial(checked(head, request), ask);
  if (head.status === 200) return whole(checked(head, request), maxSkip);
  if (head.status === 416) return unsatisfied(head, ask, request);
  throw refusal(head, request, nowMs);
}

/** The error for a range that reaches past the end of an object of `size` bytes. */
export function beyond(request: RangeRequest, size: number): JobError {
  return new JobError(
    "range_not_satisfiable",
    `the range [${request.offset}, ${stopOf(request) ?? ""}) reaches past the object's end (${size} bytes)`,
    { object_size: size, field: request.offset <= size ? "program.length" : "program.offset" },
  );
}

/** A 200 or 206 whose version and coding are checked. */
interface Checked {
  readonly head: Head;
  readonly request: RangeRequest;
  readonly etag: string | null;
  readonly framing: Framing;
}

function checked(head: Head, request: RangeRequest): Checked {
  checkVersion(head, request);
  const coding = tokens(head, "content-encoding");
  if (coding.length > 1 || (coding.length === 1 && coding[0] !== "identity")) {
    const sent = show(coding.join(", "));
    throw sourceFailed(`the source sent Content-Encoding ${sent}, though identity was asked for`, false);
  }
  return { head, request, etag: strongEtag(head), framing: framingOf(head) };
}

/** A 206 (RFC 9110, section 15.3.7): exactly the one range that was asked for. */
function partial(answer: Checked, ask: Ask): Plan {
  const { first, last, size } = contentRange(answer.head);
  const { request, framing, etag } = answer;
  if (ask === "whole") throw sourceFailed("the source sent a part (206) where the whole object was asked for", false);
  const [start, stop] = ask === "probe" ? [0, 1] : [request.offset, stopOf(request)];
  const sent = last + 1 - first;
  if (framing.kind === "length" && framing.length !== sent) {
    throw sourceFailed(`the source sent Content-Length ${framing.length} for a range of ${sent} bytes`, true);
  }
  const atTheEnd = size !== null && last + 1 === size;
  if (first === start && atTheEnd && stop !== null && size < stop) throw beyond(request, size);
  if (first !== start || last + 1 !== (stop ?? size)) {
    const value = answer.head.fields.get("content-range");
    throw sourceFailed(`the source sent the range ${show(value)}, which was not asked for`, false);
  }
  if (ask === "probe") return probed(answer, size);
  return { skip: 0, take: sent, exact: true, objectSize: size, etag, framing };
}

/** What `bytes=0-0` tells of the range that is really wanted: an empty one, or one that was refused (416). */
function probed(answer: Checked, size: number | null): Plan {
  const { request, framing, etag } = answer;
  const nothing: Plan = { skip: 0, take: 0, exact: false, objectSize: size, etag, framing };
  if (request.length === 0) {
    if (size === null && request.offset > 1) throw sourceFailed("the source does not tell the object's size", false);
    if (size !== null && request.offset > size) throw beyond(request, size);
    return nothing;
  }
  if (size === null) {
    throw sourceFailed("the source refuses the range (416) and does not tell the object's size", false);
  }
  if (request.offset < size && (stopOf(request) ?? 0) <= size) {
    throw sourceFailed(`the source refuses (416) a range that lies within the object (${size} bytes)`, true);
  }
  if (request.length === null && request.offset === size) return nothing;
  throw beyond(request, size);
}

/** A 200: the whole object, because the source ignores Range (RFC 9110, section 14.2) or was asked without one. */
function whole(answer: Checked, maxSkip: number): Plan {
  const { request, framing, etag } = answer;
  const size = framing.kind === "length" ? framing.length : null;
  if (size !== null && (request.offset > size || (stopOf(request) ?? 0) > size)) throw beyond(request, size);
  if (request.length === null && framing.kind === "close") {
    // The end of the connection is also what a cut looks like.
    throw sourceFailed("the source ignores Range and does not tell where the object ends", false);
  }
  if (request.length === 0 && size !== null) return { skip: 0, take: 0, exact: false, objectSize: size, etag, framing };
  if (request.offset > maxSkip) {
    throw new JobError(
      "source_failed",
      `the source ignores Range, and ${request.offset} bytes would have to be skipped`,
      { retryable: false, hint: `PACKETFS_MAX_SKIP_BYTES is ${maxSkip}` },
    );
  }
  const take = size === null || request.length !== null ? request.length : size - request.offset;
  return { skip: request.offset, take, exact: request.length === null, objectSize: size, etag, framing };
}

/** A 416 (RFC 9110, section 15.5.17): past the end, or just at it, which for us is an empty range. */
function unsatisfied(head: Head, ask: Ask, request: RangeRequest): Plan | Ask {
  const named = head.fields.has("etag");
  if (named) checkVersion(head, request);
  const match = UNSATISFIED.exec(head.fields.get("content-range") ?? "");
  const unproven = request.etag !== null && !named;
  if (match === null || unproven || (ask === "probe" && match[1] !== "0")) {
    const next = NEXT[ask];
    if (next === null) throw sourceFailed("the source refuses (416) even the whole object", false);
    return next;
  }
  const size = Number(match[1]);
  if (request.offset > size || (stopOf(request) ?? 0) > size) throw beyond(request, size);
  if (request.offset < size) {
    throw sourceFailed(`the source refuses (416) a range that lies within the object (${size} bytes)`, true);
  }
  return { skip: 0, take: 0, exact: false, objectSize: size, etag: strongEtag(head), framing: framingOf(head) };
}

/** Return first, last and size of a 206, inclusive as HTTP has them, after checking that they make sense. */
function contentRange(head: Head): { first: number; last: number; size: number | null } {
  if (head.fields.get("content-type")?.toLowerCase().startsWith("multipart/byteranges")) {
    throw sourceFailed("the source sent several parts (multipart/byteranges) for one range", false);
  }
  const value = head.fields.get("content-range");
  const match = CONTENT_RANGE.exec(value ?? "");
  if (match === null) throw sourceFailed(`the source sent a part (206) with Content-Range ${show(value)}`, false);
  const [first, last] = [Number(match[1]), Number(match[2])];
  const size = match[3] === "*" ? null : Number(match[3]);
  if (last < first || last >= MAX_INTEGER || (size !== null && last >= size)) {
    throw sourceFailed(`the source sent the impossible Content-Range ${show(value)}`, false);
  }
  return { first, last, size };
}

function checkVersion(head: Head, request: RangeRequest): void {
  if (request.etag === null) return;
  const etag = strongEtag(head);
  if (etag === null) {
    throw new JobError("source_changed", "the source does not prove the pinned version: its answer has no strong ETag");
  }
  if (etag !== request.etag) {
    throw new JobError("source_changed", `the object is now ${show(etag)}, not the pinned ${show(request.etag)}`);
  }
}

/** The answer's ETag; `null` for a weak one, which promises no equal bytes (RFC 9110, section 8.8.1). */
function strongEtag(head: Head): string | null {
  const etag = head.fields.get("etag");
  return etag !== null && etag.length <= MAX_ETAG_CHARS && STRONG_ETAG.test(etag) ? etag : null;
}

/** How the body ends; refused when that is not beyond doubt (RFC 9112, sections 6.1 to 6.3 and 11.2). */
function framingOf(head: Head): Framing {
  const codings = tokens(head, "transfer-encoding");
  const length = head.fields.get("content-length");
  if (codings.length > 0 && length !== null) {
    throw new JobError("source_failed", "the source sent both Content-Length and Transfer-Encoding");
  }
  if (codings.length > 0) {
    if (codings.length === 1 && codings[0] === "chunked") return { kind: "chunked" };
    throw new JobError("source_failed", `the source sent Transfer-Encoding ${show(codings.join(", "))}`);
  }
  if (length === null) return { kind: "close" };
  if (!/^[0-9]{1,16}$/.test(length) || Number(length) > MAX_INTEGER) {
    throw new JobError("source_failed", `the source sent Content-Length ${show(length)}`);
  }
  return { kind: "length", length: Number(length) };
}

/** The error for every other status. */
function refusal(head: Head, request: RangeRequest, nowMs: number): JobError {
  const { status } = head;
  const details: Details = { retryable: RETRYABLE.has(status) };
  if (status === 404 || status === 410) {
    return new JobError("source_not_found", `the source has no such object (${status})`, details);
  }
  if (status === 412 && request.etag !== null) {
    return new JobError("source_changed", `the object is no longer ${show(request.etag)} (412)`, details);
  }
  if (status === 401 || status === 403) {
    const hint =
      "check the URL's signature and that it has not expired; use s3:// or a presigned URL for a private object";
    return new JobError("source_failed", `the source refuses access (${status})`, { ...details, hint });
  }
  const after = RETRYABLE.has(status) ? retryAfterS(head.fields.get("retry-after"), nowMs) : null;
  const message = `the source answered with status ${status}`;
  return new JobError("source_failed", message, after === null ? details : { ...details, retry_after_s: after });
}

/** The items of a comma-separated field in lower case. */
function tokens(head: Head, name: string): string[] {
  const value = head.fields.get(name) ?? "";
  return value.toLowerCase().split(",").map((item) => item.trim()).filter((item) => item !== "");
}
