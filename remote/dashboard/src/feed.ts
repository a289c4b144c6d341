/**
 * The live feed: one stream, opened again when it ends, ever more patiently while nobody answers, and closed while the page
 * is hidden.
 */

import { ask, events, Refused } from "./gateway";
import type { Overview, Problem } from "./types";

const PATH = "/v1/overview/events";
const FIRST_MS = 500;
const LONGEST_MS = 15_000;
/** It says something each second; what is silent for so long is dead, whatever the connection says. */
const SILENCE_MS = 10_000;

export interface Told {
  /** A document came. */
  readonly overview: (document: Overview) => void;
  /** The gateway answers, but cannot say how things are: a problem in the document's stead. */
  readonly unknown: (problem: Problem) => void;
  /** Nothing comes; the next attempt is in so many milliseconds. `null`: the page is hidden and asks for nothing. */
  readonly lost: (problem: Problem | null, error: unknown, waitMs: number) => void;
  /** The gateway wants a key, or another one. */
  readonly closed: (problem: Problem) => void;
}

export class Feed {
  readonly #told: Told;
  #stop = new AbortController();
  #failures = 0;
  #timer = 0;

  constructor(told: Told) {
    this.#told = told;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.start()));
    addEventListener("online", () => this.start());
    addEventListener("pagehide", () => this.#end());
    addEventListener("pageshow", (event) => event.persisted && this.start());
  }

  /** Connect at once; what was open or waited for is given up. */
  start(): void {
    this.#end();
    if (document.hidden) return;
    this.#failures = 0;
    void this.#run(this.#stop);
  }

  #rest(): void {
    this.#end();
    this.#told.lost(null, null, 0);
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#stop.abort();
    this.#stop = new AbortController();
  }

  async #run(stop: AbortController): Promise<void> {
    let error: unknown = null;
    try {
      await this.#read(stop);
    } catch (thrown) {
      error = thrown;
    }
    if (stop !== this.#stop) return;
    if (error instanceof Refused && (error.problem.status === 401 || error.problem.status === 403)) {
      this.#told.closed(error.problem);
      return;
    }
    const waitMs = this.#patience(error);
    this.#failures += 1;
    if (error !== null) this.#told.lost(error instanceof Refused ? error.problem : null, error, waitMs);
    this.#timer = window.setTimeout(() => void this.#run(stop), waitMs);
  }

  async #read(stop: AbortController): Promise<void> {
    const quiet = new AbortController();
    const limit = () => window.setTimeout(() => quiet.abort(new Error("the gateway is silent")), SILENCE_MS);
    let watchdog = limit();
    try {
      const response = await ask("GET", PATH, undefined, AbortSignal.any([stop.signal, quiet.signal]));
      for await (const [name, data] of events(response)) {
        clearTimeout(watchdog);
        watchdog = limit();
        if (stop.signal.aborted) return;
        if (name === "end") return;
        if (name !== "overview" && name !== "problem") continue;
        this.#failures = 0;
        if (name === "problem") {
          this.#told.unknown({ status: 0, ...(JSON.parse(data) as Omit<Problem, "status">) });
          continue;
        }
        this.#told.overview(JSON.parse(data) as Overview);
      }
      // A stream that is over without having said so was cut.
      throw new TypeError("the stream was cut");
    } finally {
      clearTimeout(watchdog);
    }
  }

  /** Full jitter, so that the pages of a gateway that comes back do not come all at once. */
  #patience(error: unknown): number {
    const least = error instanceof Refused ? (error.retryAfterS ?? 0) * 1000 : 0;
    const most = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.#failures, 10));
    return Math.min(60_000, least + most * (0.1 + 0.9 * Math.random()));
  }
}
