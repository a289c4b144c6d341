/** What the platform hands the Worker: the bindings of `wrangler.jsonc`, its variables and its secrets. */

import type { JobShard } from "./jobs";
import type { NonceShard } from "./nonces";

export interface Env {
  readonly JOBS: DurableObjectNamespace<JobShard>;
  readonly NONCES: DurableObjectNamespace<NonceShard>;
  /** Most nonces that one object remembers; 20,000 where it is not set. */
  readonly PACKETFS_MAX_NONCES?: string;
  /** How long the result of a job is kept, in seconds; 600 where it is not set. */
  readonly PACKETFS_RESULT_TTL_S?: string;
}

/** The positive integer in a variable. What is none leaves the default: an object has no start-up that could fail. */
export function count(text: string | undefined, fallback: number): number {
  return text !== undefined && /^[1-9][0-9]{0,8}$/.test(text) ? Number(text) : fallback;
}
