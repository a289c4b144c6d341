/** What a page allows itself to be used for, and when. */

import { MAX_RANGE_BYTES } from "../../edge/src";

export interface Limits {
  /** Longest range of one job, in bytes; a longer one is answered with `too_large`. */
  readonly maxBytesPerJob?: number;
  /** Of all jobs together, in units of 1,000,000 bytes; at least 0.1 for each slot. */
  readonly maxMBPerSecond?: number;
  /** Jobs at once. */
  readonly maxJobs?: number;
  /** Take no lent work while the page is hidden. */
  readonly onlyWhenVisible?: boolean;
  /** Take no lent work while on battery, where the browser tells. */
  readonly onlyOnPower?: boolean;
  /** Take no lent work on battery below this charge, from 0 to 1, where the browser tells. */
  readonly minBattery?: number;
}

/** Why no new work is taken just now. */
export type PauseReason = "asked" | "hidden" | "battery";

/** The Battery Status API, which not every browser has. */
interface Battery extends EventTarget {
  readonly charging: boolean;
  readonly level: number;
}
type WithBattery = Navigator & { getBattery?: () => Promise<Battery> };

const BATTERY_EVENTS = ["chargingchange", "levelchange"] as const;

/** Return `limits` if each is within its bounds; throw `RangeError` naming the one that is not. */
export function checkedLimits(limits: Limits, slots: number): Limits {
  within("limits.maxBytesPerJob", limits.maxBytesPerJob, 1, MAX_RANGE_BYTES);
  within("limits.maxMBPerSecond", limits.maxMBPerSecond, 0.1 * slots, 1e6);
  within("limits.maxJobs", limits.maxJobs, 1, 8);
  within("limits.minBattery", limits.minBattery, 0, 1);
  return { ...limits };
}

function within(field: string, value: number | undefined, low: number, high: number): void {
  if (value === undefined || (value >= low && value <= high)) return;
  throw new RangeError(`${field} is ${value}: give a number from ${low} to ${high}`);
}

/** Watches what the limits depend on; `changed` is called whenever the reasons are others than before. */
export class Watch {
  readonly #limits: Limits;
  readonly #changed: () => void;
  readonly #closing = new AbortController();
  #battery: Battery | null = null;
  #asked = false;
  #told = "";

  constructor(limits: Limits, changed: () => void) {
    this.#limits = limits;
    this.#changed = changed;
    this.#told = this.reasons.join();
    const { signal } = this.#closing;
    document.addEventListener("visibilitychange", () => this.#look(), { signal });
    if (limits.onlyOnPower || limits.minBattery !== undefined) void this.#watchBattery(signal);
  }

  /** Empty while work is taken. */
  get reasons(): readonly PauseReason[] {
    const reasons: PauseReason[] = [];
    if (this.#asked) reasons.push("asked");
    if (this.#limits.onlyWhenVisible && document.visibilityState !== "visible") reasons.push("hidden");
    if (this.#battery !== null && this.#drains(this.#battery)) reasons.push("battery");
    return reasons;
  }

  /** Pause or go on because a person or the page asked. */
  ask(paused: boolean): void {
    this.#asked = paused;
    this.#look();
  }

  close(): void {
    this.#closing.abort();
  }

  #drains({ charging, level }: Battery): boolean {
    return !charging && (this.#limits.onlyOnPower === true || level < (this.#limits.minBattery ?? 0));
  }

  async #watchBattery(signal: AbortSignal): Promise<void> {
    try {
      this.#battery = (await (navigator as WithBattery).getBattery?.()) ?? null;
    } catch {
      return; // a policy of the page forbids it: as where there is none
    }
    for (const event of BATTERY_EVENTS) this.#battery?.addEventListener(event, () => this.#look(), { signal });
    this.#look();
  }

  #look(): void {
    const now = this.reasons.join();
    if (now === this.#told || this.#closing.signal.aborted) return;
    this.#told = now;
    this.#changed();
  }
}
