/**
 * The wire between a dispatcher and a substrate, version 1: `POST /compute` and its answer, as in `remote/contract/`.
 *
 * Requests are parsed strictly, since they are input; answers are built here and nowhere else.
 */

import { JobError, type ErrorType } from "./errors";
import { DEFAULT_TIMEOUT_MS, MAX_JOB_ID_CHARS, MAX_TIMEOUT_MS } from "./names";
import { parseProgram, programToWire, renderOp, type OpResult, type Program } from "./program";
import { bad, integer, isObject, requireObject, show } from "./validation";

/** One attempt as a substrate receives it. `timeoutMs` bounds all of it, the source's slowness included. */
export interface ComputeRequest {
  readonly program: Program;
  readonly jobId: string | null;
  readonly timeoutMs: number;
}

/** Where the bytes came from: all from a cache, some, none; `null` is no cache. */
export type CacheStatus = "HIT" | "PARTIAL" | "MISS" | null;

/** What one attempt read and took, in milliseconds; `fetchMs` is the part spent waiting for the source. */
export interface Measured {
  readonly bytesProcessed: number;
  readonly objectSize: number | null;
  readonly etag: string | null;
  readonly executionMs: number;
  readonly fetchMs: number;
  readonly region: string;
  readonly memoryUsedMb: number | null;
  readonly cache: CacheStatus;
}

export interface Success {
  success: true;
  jobId: string | null;
  results: OpResult[];
  bytesProcessed: number;
  objectSize: number | null;
  etag: string | null;
  executionTimeMs: number;
  fetchTimeMs: number;
  region: string;
  memoryUsedMb: number | null;
  cache: CacheStatus;
}

export interface WireError {
  type: ErrorType;
  message: string;
  retryable: boolean;
  field?: string;
  hint?: string;
  object_size?: number;
  retry_after_s?: number;
}

export interface Failure {
  success: false;
  jobId: string | null;
  error: WireError;
  executionTimeMs: number;
}

export type Answer = Success | Failure;

const REQUEST_FIELDS = ["jobId", "program", "timeout"] as const;
const JOB_ID = new RegExp(`^[A-Za-z0-9._:-]{1,${MAX_JOB_ID_CHARS}}$`);

/** Return the request in `raw`, a JSON value; throw `bad_program` naming the field. */
export function parseRequest(raw: unknown): ComputeRequest {
  const { jobId, program, timeout } = requireObject(raw, "request", REQUEST_FIELDS);
  if (jobId !== null && jobId !== undefined && jobIdOf(raw) === null) {
    throw bad("request.jobId", `is ${show(jobId)}`, `use 1 to ${MAX_JOB_ID_CHARS} of A-Z a-z 0-9 . _ : -`);
  }
  return {
    program: parseProgram(program),
    jobId: jobIdOf(raw),
    timeoutMs: integer(timeout ?? DEFAULT_TIMEOUT_MS, "request.timeout", 1, MAX_TIMEOUT_MS),
  };
}

/** The job id of a request that may be malformed elsewhere, so that even its refusal can name the job. */
export function jobIdOf(raw: unknown): string | null {
  const jobId = isObject(raw) ? raw["jobId"] : null;
  return typeof jobId === "string" && JOB_ID.test(jobId) ? jobId : null;
}

/** The request as JSON: equal requests give equal objects, with their keys in the same order. */
export function requestToWire(request: ComputeRequest): Record<string, unknown> {
  const wire = { program: programToWire(request.program), timeout: request.timeoutMs };
  return request.jobId === null ? wire : { ...wire, jobId: request.jobId };
}

/** The answer to a request that was computed; `values` are in the order of its ops. */
export function success(request: ComputeRequest, values: readonly bigint[], measured: Measured): Success {
  return {
    success: true,
    jobId: request.jobId,
    results: request.program.ops.map((op, at) => renderOp(op, values[at]!)),
    bytesProcessed: measured.bytesProcessed,
    objectSize: measured.objectSize,
    etag: measured.etag,
    executionTimeMs: thousandths(measured.executionMs),
    fetchTimeMs: thousandths(measured.fetchMs),
    region: measured.region,
    memoryUsedMb: measured.memoryUsedMb,
    cache: measured.cache,
  };
}

/** The answer to a request that was not computed, with those details of the error that cross the wire. */
export function failure(jobId: string | null, error: JobError, executionMs: number): Failure {
  const { field, hint, object_size, retry_after_s } = error.details;
  const wire: WireError = { type: error.type, message: error.message, retryable: error.retryable };
  if (field !== undefined) wire.field = field;
  if (hint !== undefined) wire.hint = hint;
  if (object_size !== undefined) wire.object_size = object_size;
  if (retry_after_s !== undefined) wire.retry_after_s = retry_after_s;
  return { success: false, jobId, error: wire, executionTimeMs: thousandths(executionMs) };
}

function thousandths(milliseconds: number): number {
  return Math.round(Math.max(0, milliseconds) * 1000) / 1000;
}
