/**
 * Reading a byte range over HTTP through `fetch`, from a server that nobody vouches for.
 *
 * The guard says where a request may go, `ranges.ts` what to ask and what an answer means. What is left for this module
 * is their order: vet, ask, follow a redirect by hand (each hop is vetted again, and none leads from https to http),
 * ask once more where the first answer does not tell the size, then hand out exactly the bytes.
 */

import type { Deadline } from "./deadline";
import { JobError, sourceFailed } from "./errors";
import { checkUrl, type Target } from "./guard";
import type { Platform } from "./platform";
import { beyond, decide, fieldsOf, firstAsk, type Ask, type Plan, type RangeRequest } from "./ranges";
import { bad, show } from "./validation";
import type { CacheStatus } from "./wire";

/** What is to be read, by when, and what with. */
export interface Reading {
  readonly request: RangeRequest;
  readonly deadline: Deadline;
  readonly platform: Platform;
}

/** An opened range. */
export interface ByteStream {
  /** Size of the whole object; `null` when the source does not tell it, or not before the last chunk. */
  readonly objectSize: number | null;
  /** The version that is being read: its strong ETag, `null` when the source gives none. */
  readonly etag: string | null;
  /** After the last chunk: where the bytes came from. */
  readonly cache: CacheStatus;
  /** Resolves to the next bytes, which are good until the next call, or to `null` after the last. */
  read(): Promise<Uint8Array | null>;
  /** Give up what is not yet read; closing twice is harmless. */
  close(): void;
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 5;
const MAX_SENDS = 4;
const RESEND_MS = 5;
const BUFFER_BYTES = 1 << 18;
const ALIEN = /[^\x21-\x5b\x5d-\x7e]/;
const ABSOLUTE = /^[A-Za-z][A-Za-z0-9+.-]*:/;
/** A path segment that `fetch` resolves away, in every spelling (WHATWG URL, "double-dot URL path segment"). */
const DOT_SEGMENT = /^[^/]*\/\/[^?]*\/(?:\.|%2e){1,2}(?:[/?]|$)/i;

/** Open a range; the version, and that the range lies within the object, are checked before the first chunk. */
export async function openSource(reading: Reading): Promise<ByteStream> {
  const { request, platform } = reading;
  if (request.url.startsWith("/")) {
    const details = { field: "program.data_url", hint: "use https:// or http://" };
    throw new JobError("forbidden_source", "there are no files here", details);
  }
  let target = checkUrl(request.url, platform.settings);
  let ask = firstAsk(request);
  for (;;) {
    const found = await follow(target, ask, reading);
    const { response } = found;
    try {
      const head = { status: response.status, fields: response.headers };
      const decision = decide(head, ask, request, platform.settings.maxSkipBytes, platform.now());
      if (typeof decision !== "string") return new HttpStream(response, decision, reading);
      ask = decision;
    } catch (error) {
      discard(response);
      throw error;
    }
    discard(response);
    target = found.target;
  }
}

/** Ask, and go where redirects lead; resolve to the target that gave the first other answer, and that answer. */
async function follow(first: Target, ask: Ask, reading: Reading): Promise<{ target: Target; response: Response }> {
  const seen = new Set<string>();
  let target = first;
  for (;;) {
    seen.add(target.url);
    const response = await exchange(target, ask, reading);
    if (!REDIRECTS.has(response.status)) return { target, response };
    discard(response);
    target = redirected(target, response, reading.platform);
    if (seen.has(target.url)) throw sourceFailed("the source redirects in a circle", false);
    if (seen.size > MAX_REDIRECTS) throw sourceFailed(`the source redirects more than ${MAX_REDIRECTS} times`, false);
  }
}

/**
 * Send one request and resolve to the head of its answer.
 *
 * A request that fails without an answer is sent again: the runtime may have sent it on a kept connection that the
 * server was just closing (RFC 9112, section 9.3.1), and does not say so. A GET is safe to send twice, and the pause
 * lets the runtime notice which other connections were closed.
 */
async function exchange(target: Target, ask: Ask, reading: Reading): Promise<Response> {
  const { request, deadline, platform } = reading;
  const { signal } = deadline;
  const url = fetchable(target);
  const init: RequestInit = { method: "GET", headers: fieldsOf(ask, request), redirect: "manual", signal };
  for (let sends = 1; ; sends += 1) {
    deadline.check();
    try {
      return readable(await waited(deadline, () => platform.fetch(url, init), "did not answer"));
    } catch (error) {
      if (sends === MAX_SENDS || signal.aborted || !(error instanceof Unanswered)) throw error;
    }
    await deadline.wait(new Promise((resolve) => setTimeout(resolve, RESEND_MS * 2 ** sends)));
  }
}

/** A browser follows redirects itself, or hides where they lead. */
function readable(response: Response): Response {
  const type: string = response.type; // Workers' own types know no such response
  if (type === "opaqueredirect") {
    throw sourceFailed("the source redirects, and this runtime does not say where to", false);
  }
  return response;
}

/** The URL as `fetch` takes it: without its fragment, and only if `fetch` will ask for that very path. */
function fetchable(target: Target): string {
  const url = target.url.replace(/#.*$/s, "");
  if (!parses(url)) throw bad("program.data_url", `is ${show(url)}`, "write https://host/path");
  if (DOT_SEGMENT.test(url)) {
    const hint = "ask a place that reads it as it stands, such as fly or lambda";
    throw new JobError("internal", "this runtime would resolve the dots in the URL's path", { retryable: false, hint });
  }
  return url;
}

function parses(url: string): boolean {
  try {
    return new URL(url).href !== "";
  } catch {
    return false;
  }
}

/** Where a redirect leads, vetted like any other URL; a server's bad URL is the server's fault. */
function redirected(target: Target, response: Response, platform: Platform): Target {
  const location = response.headers.get("location");
  if (!location) throw sourceFailed(`the source redirects (${response.status}) to nowhere`, false);
  let following: Target;
  try {
    following = checkUrl(resolved(location, target), platform.settings);
  } catch (error) {
    if (error instanceof JobError && error.type === "forbidden_source") throw error;
    throw sourceFailed(`the source redirects to ${show(location)}, which is no usable URL`, false, { cause: error });
  }
  if (target.scheme === "https" && following.scheme === "http") {
    const hint = "use the https URL of the object";
    throw new JobError("forbidden_source", "the source redirects from https to http", { hint });
  }
  return following;
}

/** The authority is never left to a parser: the guard must see it as it was written. */
function resolved(location: string, target: Target): string {
  const text = location.replace(/#.*$/s, "");
  if (ALIEN.test(text) || ABSOLUTE.test(text)) return text;
  return text.startsWith("//") ? `${target.scheme}:${text}` : new URL(text, target.url).href.replace(/#.*$/s, "");
}

/** The runtime's own error in place of an answer, or of a part of it. */
class Unanswered extends JobError {}

/** Wait for the network; whatever it fails with is the source's failure. */
async function waited<T>(deadline: Deadline, work: () => Promise<T>, what: string): Promise<T> {
  try {
    return await deadline.wait(work());
  } catch (error) {
    if (error instanceof JobError) throw error;
    throw new Unanswered("source_failed", `the source ${what}: ${reason(error)}`, {}, { cause: error });
  }
}

/** Why a `fetch` or a read failed, in few and safe words; undici keeps what it knows in the cause. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return show(String(error));
  return show((error.cause instanceof Error && error.cause.message) || error.message || error.name);
}

/** Free the connection of an answer whose body is not wanted. */
function discard(response: Response): void {
  response.body?.cancel().catch(() => undefined);
}

/** The bytes of an opened range. */
class HttpStream implements ByteStream {
  objectSize: number | null;
  readonly etag: string | null;
  readonly cache = null;
  readonly #plan: Plan;
  readonly #request: RangeRequest;
  /** Only at the end of such an answer is it known where the object ends. */
  readonly #unsized: boolean;
  #body: Body | null;
  /** Bytes of the body that were taken or skipped. */
  #position = 0;

  constructor(response: Response, plan: Plan, reading: Reading) {
    this.objectSize = plan.objectSize;
    this.etag = plan.etag;
    this.#plan = plan;
    this.#request = reading.request;
    this.#unsized = plan.framing.kind === "chunked" && response.status === 200;
    this.#body = new Body(response, reading.deadline);
    if (plan.skip === 0 && plan.take === 0) this.close();
  }

  async read(): Promise<Uint8Array | null> {
    const { skip, take, exact } = this.#plan;
    const stop = take === null ? null : skip + take;
    while (this.#body !== null && (exact || this.#position !== stop)) {
      const chunk = await this.#body.read();
      if (chunk === null) {
        this.#ended(stop);
        break;
      }
      const at = this.#position;
      this.#position += chunk.length;
      if (stop !== null && this.#position > stop) {
        if (exact) throw new JobError("source_failed", "the source sent more bytes than the range that it declared");
        this.#position = stop;
      }
      const wanted = chunk.subarray(Math.max(0, skip - at), this.#position - at);
      if (wanted.length > 0) return wanted;
    }
    this.close();
    return null;
  }

  close(): void {
    this.#body?.cancel();
    this.#body = null;
  }

  /** The body ended properly; was that where the plan expects it? */
  #ended(stop: number | null): void {
    const position = this.#position;
    if (position === stop) return;
    if (!this.#unsized) {
      throw new JobError("source_failed", "the source cut its answer: the connection ended in the middle of the range");
    }
    this.objectSize = position;
    if (stop !== null || position < this.#plan.skip) throw beyond(this.#request, position);
  }
}

/**
 * A response's body, chunk by chunk.
 *
 * Into our own buffer where the runtime can (BYOB): workerd's own chunks have 4 KiB, and take six times as long
 * (measured: 4.0 s for a GiB over loopback, against 0.7 s). In Node the two cost the same. WebAssembly's memory itself
 * cannot be lent: a stream takes the buffer away while it reads, which that memory forbids.
 */
class Body {
  readonly #deadline: Deadline;
  readonly #lent: ReadableStreamBYOBReader | null;
  readonly #given: ReadableStreamDefaultReader<Uint8Array> | null;
  #buffer: ArrayBuffer | null = null;

  constructor(response: Response, deadline: Deadline) {
    this.#deadline = deadline;
    this.#lent = response.body && lendingReader(response.body);
    this.#given = this.#lent === null ? (response.body?.getReader() ?? null) : null;
  }

  read(): Promise<Uint8Array | null> {
    return waited(this.#deadline, () => this.#next(), "cut its answer");
  }

  cancel(): void {
    (this.#lent ?? this.#given)?.cancel().catch(() => undefined);
  }

  async #next(): Promise<Uint8Array | null> {
    if (this.#lent === null) return (await this.#given?.read())?.value ?? null;
    const { done, value } = await this.#lent.read(new Uint8Array(this.#buffer ?? new ArrayBuffer(BUFFER_BYTES)));
    // The buffer comes back as another object over the same bytes.
    this.#buffer = value?.buffer ?? null;
    return done ? null : value;
  }
}

/** A reader into our own buffer, where the runtime's body is a byte stream. */
function lendingReader(body: ReadableStream<Uint8Array>): ReadableStreamBYOBReader | null {
  try {
    return body.getReader({ mode: "byob" });
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}
