/**
 * The compute server over Web APIs: `remote/contract/` from a `Request` to a `Response`. It behaves as `remote/fly/`
 * does.
 *
 * What a stranger may send is bounded before it is looked at:
 *
 * - A body is read up to its bound and for ten seconds, and all bodies under way together up to 32 MiB. Then its
 *   signature is verified, and only what is signed is parsed.
 * - `maxConcurrency` attempts run at once. One more is answered with 429 at once: there is no queue. A batch takes the
 *   slots that are free, at least one, and runs its jobs on these.
 * - A slot is given back when its attempt has ended. When the client leaves, and the platform's `request.signal` says so,
 *   the attempt ends at once, unless others wait for the same job.
 */

import { Deadline } from "./deadline";
import { ERRORS, JobError } from "./errors";
import { execute, health, typed } from "./executor";
import { busy, isolateOf, Slots, type Slot } from "./isolate";
import type { Platform } from "./platform";
import { SIGNATURE_HEADER } from "./signature";
import { bad, requireObject, show } from "./validation";
import { failure, jobIdOf, type Answer, type Failure } from "./wire";

const MAX_BODY = 2 ** 16;
const MAX_BATCH_BODY = 2 ** 20;
/** Most bytes of bodies under way at once: they come before their signatures do. */
const MAX_BODIES = 2 ** 25;
const MAX_JOBS = 64;
const BODY_TIMEOUT_MS = 10_000;
const FIRST_BYTES = 2 ** 12;

type Handler = (platform: Platform, request: Request, path: string) => Promise<Response>;

const ROUTES: Readonly<Record<string, { readonly methods: readonly string[]; readonly handle: Handler }>> = {
  "/compute": { methods: ["POST"], handle: compute },
  "/compute/batch": { methods: ["POST"], handle: batch },
  "/health": { methods: ["GET", "HEAD"], handle: (platform) => Promise.resolve(reply(200, health(platform))) },
};

/** Answer one request; never rejects. */
export async function serve(platform: Platform, request: Request): Promise<Response> {
  try {
    const path = new URL(request.url).pathname;
    const route = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
    if (route === undefined) return refusal(404, "there is no such path");
    if (!route.methods.includes(request.method)) {
      return refusal(405, `${show(request.method)} is not served there`, { Allow: route.methods.join(", ") });
    }
    const { fault } = platform.settings;
    if (fault !== null) {
      const details = { field: fault.field, hint: fault.hint, retryable: false };
      return answer(failure(null, new JobError("internal", fault.message, details), 0));
    }
    return await route.handle(platform, request, path);
  } catch (error) {
    return answer(failure(null, typed(error), 0));
  }
}

async function compute(platform: Platform, request: Request, path: string): Promise<Response> {
  const startedMs = performance.now();
  let job: unknown = null;
  try {
    job = parse(await verifiedBody(platform, request, path, MAX_BODY));
    const [result] = await attempts(platform, request.signal, [job]);
    return answer(result!);
  } catch (error) {
    return answer(failure(jobIdOf(job), typed(error), performance.now() - startedMs));
  }
}

async function batch(platform: Platform, request: Request, path: string): Promise<Response> {
  const startedMs = performance.now();
  try {
    const jobs = jobsOf(parse(await verifiedBody(platform, request, path, MAX_BATCH_BODY)));
    return reply(200, { results: await attempts(platform, request.signal, jobs) });
  } catch (error) {
    return answer(failure(null, typed(error), performance.now() - startedMs));
  }
}

/** Run the jobs on as many slots as are free, and resolve to their answers in order; no slot free is `busy`. */
async function attempts(platform: Platform, left: AbortSignal, jobs: readonly unknown[]): Promise<Answer[]> {
  const { slots } = isolateOf(platform.settings);
  const answers: Answer[] = [];
  const waiting = jobs.entries();
  const work = async (slot: Slot): Promise<void> => {
    try {
      for (const [at, job] of waiting) {
        answers[at] = await execute(job, platform, (timeoutMs) => Slots.begin(slot, timeoutMs), left);
      }
    } finally {
      slots.give(slot);
    }
  };
  const done = Promise.all(slots.take(jobs.length).map(work));
  // If the client leaves, the attempts still end, and give their slots back when they do.
  platform.defer(done);
  await done;
  return answers;
}

/** Resolve to the request's body, once it is all here and its signature is good. */
async function verifiedBody(platform: Platform, request: Request, path: string, limit: number): Promise<Uint8Array> {
  const { verifier } = isolateOf(platform.settings);
  const signature = request.headers.get(SIGNATURE_HEADER);
  try {
    if (verifier !== null && signature === null) {
      throw new JobError("unauthorized", "the request is not signed", { hint: `send one ${SIGNATURE_HEADER}` });
    }
    if (Number(request.headers.get("content-length") ?? 0) > limit) throw tooLong(limit);
    const body = await readBody(platform, request, limit);
    await verifier?.verify({ method: request.method, path, body }, signature, platform.now() / 1000, platform.replays);
    return body;
  } catch (error) {
    if (request.body !== null && !request.body.locked) request.body.cancel().catch(() => undefined);
    throw error;
  }
}

async function readBody(platform: Platform, request: Request, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const isolate = isolateOf(platform.settings);
  const reader = request.body?.getReader() ?? null;
  const late = `the request's body did not come within ${BODY_TIMEOUT_MS / 1000} s`;
  const deadline = new Deadline(BODY_TIMEOUT_MS, BODY_TIMEOUT_MS, null, late);
  // One buffer, not a list of chunks: of a body that comes byte by byte, the chunks weigh a hundred times its bytes.
  let body = new Uint8Array(FIRST_BYTES);
  let size = 0;
  try {
    while (reader !== null) {
      const { done, value } = await deadline.wait(reader.read());
      if (done) break;
      if (size + value.length > limit) throw tooLong(limit);
      if (isolate.buffered + value.length > MAX_BODIES) throw busy("too many requests are being received");
      isolate.buffered += value.length;
      if (size + value.length > body.length) body = grown(body, size + value.length);
      body.set(value, size);
      size += value.length;
    }
  } catch (error) {
    reader?.cancel().catch(() => undefined);
    throw error;
  } finally {
    deadline.end();
    isolate.buffered -= size;
  }
  return body.subarray(0, size);
}

function grown(bytes: Uint8Array, needed: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.max(needed, 2 * bytes.length));
  larger.set(bytes);
  return larger;
}

/** Return the JSON of a body. Other encodings, a BOM and NaN are none. */
function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body)) as unknown;
  } catch (error) {
    const details = { field: "request", hint: "send a JSON object in UTF-8" };
    const why = error instanceof Error ? show(error.message) : "it cannot be read";
    throw new JobError("bad_program", `the request is no JSON: ${why}`, details, { cause: error });
  }
}

function jobsOf(raw: unknown): readonly unknown[] {
  const { jobs } = requireObject(raw, "request", ["jobs"]);
  if (!Array.isArray(jobs) || jobs.length > MAX_JOBS) {
    throw bad("request.jobs", `is ${show(jobs)}`, `give a list of at most ${MAX_JOBS} jobs`);
  }
  return jobs;
}

function tooLong(limit: number): JobError {
  return new JobError("too_large", `the request is longer than ${limit} bytes`);
}

/** The response that an answer of the wire is. */
function answer(given: Answer): Response {
  if (given.success) return reply(200, given);
  const { type, retry_after_s: after = 1 } = given.error;
  return reply(ERRORS[type].status, given, type === "busy" ? { "Retry-After": String(Math.ceil(after)) } : {});
}

/** What no route takes. */
function refusal(status: number, message: string, fields: Record<string, string> = {}): Response {
  const hint = "POST /compute, POST /compute/batch and GET /health are served";
  const body: Failure = failure(null, new JobError("bad_program", message, { field: "request", hint }), 0);
  return reply(status, body, fields);
}

function reply(status: number, document: unknown, fields: Record<string, string> = {}): Response {
  const headers = { ...fields, "Content-Type": "application/json", "Cache-Control": "no-store" };
  return new Response(JSON.stringify(document), { status, headers });
}
