/** How long to wait before trying again: full jitter, rand(0, min(cap, base * 2**n)). */

export interface Backoff {
  readonly baseMs: number;
  readonly capMs: number;
  /** Failures in a row after which it is given up. */
  readonly attempts: number;
}

export const DEFAULT_BACKOFF: Backoff = { baseMs: 1_000, capMs: 60_000, attempts: 30 };

/** The pause after the `failures`-th failure in a row, from 1. */
export function pauseMs({ baseMs, capMs }: Backoff, failures: number, random: () => number = Math.random): number {
  return random() * Math.min(capMs, baseMs * 2 ** (failures - 1));
}
