/**
 * Run one program over its source's bytes: the whole contract as one function from a request to an answer.
 *
 * The bytes stream through the kernels in chunks, so that memory stays flat whatever the range's length and all
 * operations of a program share one pass. Answers are those of `packetfs_compute/executor.py`.
 */

import { openBlocks } from "./blocks";
import { Deadline } from "./deadline";
import { JobError } from "./errors";
import { MAX_TIMEOUT_MS, OPS, PROTOCOL, VERSION } from "./names";
import type { Compute, Platform } from "./platform";
import type { ByteStream } from "./source";
import { failure, jobIdOf, parseRequest, success, type Answer, type ComputeRequest } from "./wire";

const MAX_TOLD_CHARS = 500;

/**
 * Run the request in `raw`, any JSON value, and resolve to the answer; never rejects. `onStart` hears its timeout; `left`
 * aborts when its client has left, and so stops it.
 */
export async function execute(
  raw: unknown,
  platform: Platform,
  onStart: (timeoutMs: number) => void = () => undefined,
  left: AbortSignal | null = null,
): Promise<Answer> {
  const startedMs = performance.now();
  try {
    const request = parseRequest(raw);
    onStart(request.timeoutMs);
    return await coordinated(request, platform, left, (unwanted) => answered(request, platform, unwanted));
  } catch (error) {
    return failure(jobIdOf(raw), typed(error), performance.now() - startedMs);
  }
}

/** The `GET /health` answer, as in `remote/contract/`. */
export function health(platform: Platform): Record<string, unknown> {
  return {
    status: "healthy",
    version: VERSION,
    protocol: PROTOCOL,
    region: platform.region,
    ops: OPS,
    kernel: platform.kernels.name,
    limits: { maxRangeBytes: platform.settings.maxRangeBytes, maxTimeoutMs: MAX_TIMEOUT_MS },
  };
}

/** What failed, as an error with a type. */
export function typed(error: unknown): JobError {
  if (error instanceof JobError) return error;
  const told = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new JobError("internal", told.slice(0, MAX_TOLD_CHARS), {}, { cause: error });
}

/** A coordinator that fails must fail no job: programs are pure, so to run one twice is harmless. */
async function coordinated(
  request: ComputeRequest,
  platform: Platform,
  left: AbortSignal | null,
  compute: Compute,
): Promise<Answer> {
  if (platform.coordinator === null || request.jobId === null) return compute(left);
  let own: Promise<Answer> | undefined;
  const once: Compute = (unwanted) => (own ??= compute(unwanted));
  try {
    return await platform.coordinator.run(request, once, left);
  } catch {
    return once(left);
  }
}

async function answered(request: ComputeRequest, platform: Platform, unwanted: AbortSignal | null): Promise<Answer> {
  const startedMs = performance.now();
  try {
    return await computed(request, platform, unwanted, startedMs);
  } catch (error) {
    return failure(request.jobId, typed(error), performance.now() - startedMs);
  }
}

async function computed(
  request: ComputeRequest,
  platform: Platform,
  unwanted: AbortSignal | null,
  startedMs: number,
): Promise<Answer> {
  const { program } = request;
  const { maxRangeBytes } = platform.settings;
  if (program.length !== null) checkSize(program.length, maxRangeBytes);
  const wanted = { url: program.dataUrl, offset: program.offset, length: program.length, etag: program.etag };
  const deadline = new Deadline(request.timeoutMs, platform.settings.stallTimeoutMs, unwanted);
  let stream: ByteStream | null = null;
  try {
    stream = await openBlocks({ request: wanted, deadline, platform });
    let fetchMs = performance.now() - startedMs;
    if (program.length === null && stream.objectSize !== null) {
      checkSize(stream.objectSize - program.offset, maxRangeBytes);
    }
    const plan = platform.kernels.plan(program.ops);
    let bytes = 0;
    for (;;) {
      const askedMs = performance.now();
      const chunk = await stream.read();
      fetchMs += performance.now() - askedMs;
      if (chunk === null) break;
      bytes += chunk.length;
      if (bytes > maxRangeBytes) checkSize(bytes, maxRangeBytes);
      plan.run(chunk);
      deadline.check();
    }
    return success(request, plan.values(), {
      bytesProcessed: bytes,
      objectSize: stream.objectSize,
      etag: stream.etag,
      executionMs: performance.now() - startedMs,
      fetchMs,
      region: platform.region,
      memoryUsedMb: platform.memoryUsedMb(),
      cache: stream.cache,
    });
  } finally {
    stream?.close();
    deadline.end();
  }
}

function checkSize(bytes: number, limit: number): void {
  if (bytes > limit) {
    const details = { field: "program.length", hint: "split the range, or ask a place that takes more" };
    throw new JobError("too_large", `the range is longer than the ${limit} bytes that are taken here`, details);
  }
}
