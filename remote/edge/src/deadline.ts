/**
 * One moment by which an attempt must have ended, and the longest silence on the way: what aborts a wait for the
 * network. For an attempt that nobody waits for any more, that moment is now.
 *
 * Runtimes differ in how fast, and with what error, an aborted `fetch` or read ends; so each wait ends here by itself,
 * with our own error, and the abort only frees what it held. One timer is set at a time and set anew only when it has
 * gone off: a stream of a million chunks costs no timer each.
 */

import { JobError } from "./errors";

/** The error of an attempt whose client left: nobody will read it. */
function left(): JobError {
  return new JobError("internal", "the client left");
}

export class Deadline {
  readonly #controller = new AbortController();
  readonly #late: string;
  readonly #atMs: number;
  readonly #stallMs: number;
  readonly #unwanted: AbortSignal | null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #waitingSinceMs = 0;
  #interrupt: ((error: JobError) => void) | null = null;

  readonly #leave = (): void => this.#give(left());

  /** `unwanted` aborts when nobody waits for the attempt any more; `late` is what to say when the time is over. */
  constructor(
    budgetMs: number,
    stallMs: number,
    unwanted: AbortSignal | null = null,
    late = `the deadline of ${budgetMs / 1000} s has passed`,
  ) {
    this.#late = late;
    this.#unwanted = unwanted;
    unwanted?.addEventListener("abort", this.#leave);
    this.#atMs = performance.now() + budgetMs;
    this.#stallMs = stallMs;
  }

  /** Aborts when the time is over, when nobody waits any more, and when the attempt has ended. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Throws `timeout` when the time is over, `internal` when nobody waits any more. */
  check(): void {
    if (this.#unwanted?.aborted) throw left();
    if (performance.now() >= this.#atMs) throw this.#overdue();
  }

  /**
   * Resolve as `work` does, or reject when the deadline or the longest silence comes first. One wait at a time.
   *
   * Not by `Promise.race` with one promise for all waits: that would hold on to every wait's promise until the last.
   */
  wait<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#unwanted?.aborted) reject(left());
      this.#interrupt = reject;
      this.#waitingSinceMs = performance.now();
      this.#watch();
      const settled = <V>(settle: (value: V) => void) => (value: V): void => {
        if (this.#interrupt === reject) this.#interrupt = null;
        settle(value);
      };
      work.then(settled(resolve), settled(reject));
    });
  }

  /** Free the timer and whatever still waits; the deadline itself stays. */
  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#unwanted?.removeEventListener("abort", this.#leave);
    this.#controller.abort();
  }

  #watch(): void {
    if (this.#timer !== null) return;
    const nowMs = performance.now();
    const dueMs = Math.min(this.#atMs, this.#waitingSinceMs + this.#stallMs);
    this.#timer = setTimeout(() => this.#look(), Math.max(0, Math.ceil(dueMs - nowMs)));
  }

  #look(): void {
    this.#timer = null;
    if (this.#interrupt === null) return;
    const nowMs = performance.now();
    if (nowMs >= this.#atMs) this.#give(this.#overdue());
    else if (nowMs >= this.#waitingSinceMs + this.#stallMs) this.#give(this.#stalled());
    else this.#watch();
  }

  #give(error: JobError): void {
    this.#interrupt?.(error);
    this.#interrupt = null;
    this.#controller.abort(error);
  }

  #overdue(): JobError {
    return new JobError("timeout", this.#late);
  }

  #stalled(): JobError {
    return new JobError("source_failed", `the source stalled: it sent nothing for ${this.#stallMs / 1000} s`);
  }
}
