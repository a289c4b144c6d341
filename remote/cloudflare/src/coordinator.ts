/**
 * The platform's `Coordinator`: a job runs once, however often it is asked for; see `jobs.ts` for what the objects do.
 *
 * A job is its id and its program together: the same id with another program is another job. Of the URL what
 * presigning adds is left out, as each attempt signs anew. The caller is let in by the endpoint's own signature, and
 * what it gets is the result of a job that it, or another holder of the key, had under this very id.
 *
 * Calls to objects: one for a job whose answer is there, two for one that is computed, and one more for every three
 * seconds that computing takes. The last, which stores the result, is not waited for: until it arrives, the lease has
 * whoever asks again wait for it. Where no object answers, the job is computed, uncoordinated and uncounted.
 *
 * A run whose client has left goes on for those who wait for it, and is stopped when a renewal of its lease tells that
 * nobody does; one more is made at once. Who asks in that very moment is given the lease next, and computes.
 */

import { JobError } from "../../edge/src/errors";
import type { Compute, Coordinator } from "../../edge/src/platform";
import { programToWire } from "../../edge/src/program";
import { type Answer, type ComputeRequest, failure } from "../../edge/src/wire";
import { sha256 } from "./digest";
import type { Env } from "./env";
import { addCounts, type Claim, type Counts, type JobShard, noCounts, type Outcome, RENEW_MS } from "./jobs";
import { canonicalUrl } from "../../edge/src/presigned";
import { shardNames, shardOf } from "./shards";

type Shard = DurableObjectStub<JobShard>;

export class JobCoordinator implements Coordinator {
  constructor(
    private readonly shards: Env["JOBS"],
    private readonly region: string,
    private readonly defer: (work: Promise<unknown>) => void,
  ) {}

  async run(request: ComputeRequest, compute: Compute, left: AbortSignal | null): Promise<Answer> {
    const started = Date.now();
    const key = await keyOf(request);
    const shard = this.shards.getByName(String(shardOf(key)));
    const claim = await claimOf(shard, key, request.timeoutMs);
    switch (claim?.kind) {
      case "answer":
        return JSON.parse(claim.answer) as Answer;
      case "lease": {
        // It goes on for those who wait for it, whether its own client has left or has had no more time.
        const run = this.#lead(shard, key, claim.lease, compute, left);
        this.defer(run);
        return claim.waited ? Promise.race([run, lateAfter(request, started)]) : run;
      }
      case "late":
        return lateAfter(request, started);
      case "busy": {
        const details = { retry_after_s: 1 };
        const error = new JobError("busy", "too many jobs are under way or waited for", details);
        return failure(request.jobId, error, Date.now() - started);
      }
      case undefined:
        return compute(left);
    }
  }

  /** Compute, holding the lease for as long as that takes; then say what came of it. */
  async #lead(
    shard: Shard,
    key: string,
    lease: string,
    compute: Compute,
    left: AbortSignal | null,
  ): Promise<Answer> {
    let outcome: Outcome = { answer: null, region: this.region, bytes: 0, hit: false };
    const unwanted = new AbortController();
    const renewed = async (): Promise<void> => {
      const waitedFor = await shard.renew(key, lease);
      if (left?.aborted && !waitedFor) unwanted.abort();
    };
    const renew = (): void => this.defer(quietly(renewed()));
    const renewing = setInterval(renew, RENEW_MS);
    left?.addEventListener("abort", renew);
    if (left?.aborted) renew();
    try {
      const answer = await compute(unwanted.signal);
      if (answer.success) {
        const { bytesProcessed: bytes, cache } = answer;
        outcome = { answer: JSON.stringify(answer), region: this.region, bytes, hit: cache === "HIT" };
      }
      return answer;
    } finally {
      clearInterval(renewing);
      left?.removeEventListener("abort", renew);
      this.defer(quietly(shard.finish(key, lease, outcome)));
    }
  }
}

/** What was counted, by region, over all objects. */
export async function countsOf(shards: Env["JOBS"]): Promise<Record<string, Counts>> {
  const sums: Record<string, Counts> = {};
  for (const counts of await Promise.all(shardNames().map((name) => shards.getByName(name).counts()))) {
    for (const [region, more] of Object.entries(counts)) addCounts((sums[region] ??= noCounts()), more);
  }
  return sums;
}

async function claimOf(shard: Shard, key: string, patienceMs: number): Promise<Claim | undefined> {
  try {
    return await shard.claim(key, patienceMs);
  } catch (error) {
    console.error("a job could not be coordinated", String(error));
    return undefined;
  }
}

async function quietly(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    console.error("what came of a job could not be noted", String(error));
  }
}

/** The hash of what makes a job: two requests with the same get the same answer. The timeout is no part of it. */
function keyOf({ jobId, program }: ComputeRequest): Promise<string> {
  return sha256(JSON.stringify([jobId, { ...programToWire(program), data_url: canonicalUrl(program.dataUrl) }]));
}

/** What is answered when the time is over, some of which went by while another run of the job was waited for. */
async function lateAfter({ jobId, timeoutMs }: ComputeRequest, started: number): Promise<Answer> {
  await scheduler.wait(Math.max(0, started + timeoutMs - Date.now()));
  return failure(jobId, new JobError("timeout", "other runs of this job took all its time"), Date.now() - started);
}
