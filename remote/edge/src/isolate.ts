/**
 * What one isolate keeps between requests: its slots, its imported keys, the versions of objects that it has seen.
 *
 * It is kept by the identity of the settings, which a handler parses once, so that no module has state of its own.
 */

import { JobError } from "./errors";
import type { Settings } from "./settings";
import { Verifier } from "./signature";

export interface Isolate {
  readonly slots: Slots;
  readonly verifier: Verifier | null;
  readonly versions: Versions;
  /** Bytes of request bodies under way. */
  buffered: number;
}

const RETRY_AFTER_S = 1;
const MAX_VERSIONS = 1024;
/** What an attempt may take past its timeout, to give its slot back by itself. */
const GRACE_MS = 5_000;

const isolates = new WeakMap<Settings, Isolate>();

export function isolateOf(settings: Settings): Isolate {
  let isolate = isolates.get(settings);
  if (isolate === undefined) {
    isolate = {
      slots: new Slots(settings.maxConcurrency),
      verifier: settings.signingKeys.length > 0 ? new Verifier(settings.signingKeys) : null,
      versions: new Versions(),
      buffered: 0,
    };
    isolates.set(settings, isolate);
  }
  return isolate;
}

export function busy(message: string): JobError {
  return new JobError("busy", message, { retry_after_s: RETRY_AFTER_S });
}

/** One attempt's place, for as long as its job may take. */
export interface Slot {
  untilMs: number;
}

/**
 * Room for `all` attempts. A platform may end a request without running what is left of it, `finally` included, so a
 * slot whose time is over counts as given back.
 */
export class Slots {
  readonly #all: number;
  readonly #taken = new Set<Slot>();

  constructor(all: number) {
    this.#all = all;
  }

  /** Take up to `wanted` slots; throws `busy` when there is none. */
  take(wanted: number): Slot[] {
    const nowMs = performance.now();
    for (const slot of this.#taken) if (slot.untilMs < nowMs) this.#taken.delete(slot);
    const free = this.#all - this.#taken.size;
    if (free <= 0 && wanted > 0) throw busy(`all ${this.#all} slots are taken`);
    const slots = Array.from({ length: Math.min(wanted, free) }, () => ({ untilMs: nowMs + GRACE_MS }));
    for (const slot of slots) this.#taken.add(slot);
    return slots;
  }

  /** Note that a job of at most `timeoutMs` begins on `slot`. */
  static begin(slot: Slot, timeoutMs: number): void {
    slot.untilMs = performance.now() + timeoutMs + GRACE_MS;
  }

  give(slot: Slot): void {
    this.#taken.delete(slot);
  }
}

/** One version of an object: its strong ETag and its size in bytes. */
export interface Version {
  readonly etag: string;
  readonly objectSize: number;
}

/** The version of each URL that was read last: a hint, which the source confirms before it is used. */
export class Versions {
  readonly #known = new Map<string, Version>();

  get(url: string): Version | null {
    return this.#known.get(url) ?? null;
  }

  note(url: string, version: Version): void {
    this.#known.delete(url);
    this.#known.set(url, version);
    if (this.#known.size > MAX_VERSIONS) this.#known.delete(this.#known.keys().next().value!);
  }
}
