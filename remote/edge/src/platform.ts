/**
 * What a platform gives the core, and what the core asks of it: the whole seam between `edge/` and a vendor.
 *
 * The core knows Web APIs only. A handler builds a `Platform` and hands every `Request` to `serve(platform, request)`.
 * What the core relies on beyond the types:
 *
 * - `settings` is one object for as long as the isolate lives (`parseSettings(env)`, once): slots, imported keys and
 *   known versions are kept by its identity. `kernels` is likewise one `new Kernels(module)`. The rest may be new with
 *   each request, as `defer` and `region` are on Workers.
 * - `settings.fault` need not be looked at: `serve` then answers everything with 500, naming the variable.
 * - What `BlockCache.put` was given, `get` gives back byte for byte: `bytes` is not the block alone, but `FRAME_BYTES`
 *   (16) of length and checksum before it. The core checks them, so that a damaged entry is a miss. `put` may keep
 *   `bytes`; what `get` resolves to is the core's own, which frees it when it has been read.
 * - `get` and `put` that take over a second are given up; at most three `put`s of a job are under way at once, each of
 *   which is also handed to `defer`.
 * - A `Coordinator` that rejects fails no job: the job is then computed without it, or its own run's answer is taken.
 */

import type { Kernels } from "./kernels";
import type { Settings } from "./settings";
import type { Answer, ComputeRequest } from "./wire";

export interface Platform {
  readonly settings: Settings;
  readonly kernels: Kernels;
  /** Where this runs, as answers name it: at most 64 printable characters. */
  readonly region: string;
  readonly replays: ReplayGuard;
  /** Blocks of sources, kept by the platform; `null` where it keeps none. */
  readonly blocks: BlockCache | null;
  /** Runs a job with an id once, however often it is asked for; `null` where nothing is coordinated. */
  readonly coordinator: Coordinator | null;
  /** Unix time in milliseconds. */
  now(): number;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** What this isolate uses, in MB; `null` where the platform does not tell. */
  memoryUsedMb(): number | null;
  /** Lets `work` outlive the response, where the platform can (`ctx.waitUntil`). */
  defer(work: Promise<unknown>): void;
}

/** Remembers nonces for as long as their signatures would be accepted. */
export interface ReplayGuard {
  /**
   * Remember `nonce` until the Unix second `until`. Resolves to `"new"`, to `"used"` when it was remembered already, or
   * to `"full"` when no more can be remembered: forgetting one that is still good would let it be replayed.
   */
  admit(nonce: string, until: number): Promise<"new" | "used" | "full">;
}

/** A cache of whole blocks of an object's version. Every failure of it is a miss: nothing depends on it. */
export interface BlockCache {
  /** Bytes of a block, without its frame; the last one of an object is shorter. */
  readonly blockBytes: number;
  get(key: BlockKey): Promise<Uint8Array | null>;
  put(key: BlockKey, bytes: Uint8Array): Promise<void>;
}

/** Only a strong entity tag promises equal bytes, so only with one is anything kept. */
export interface BlockKey {
  readonly url: string;
  readonly etag: string;
  readonly objectSize: number;
  readonly index: number;
}

/** Computes a job; it stops when `unwanted` aborts. */
export type Compute = (unwanted: AbortSignal | null) => Promise<Answer>;

export interface Coordinator {
  /**
   * Answer `request`, which has a job id: with the answer that the same job was given before, with that of a run that
   * is under way, or else with that of `compute`. Only a success is remembered, and only for the same program. `left`
   * aborts when this client has left; others may still wait for the run.
   */
  run(request: ComputeRequest, compute: Compute, left: AbortSignal | null): Promise<Answer>;
}
