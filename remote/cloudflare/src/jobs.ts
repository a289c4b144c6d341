/**
 * The Durable Object behind the coordinator: who computes a job, what came of it, and what was counted where.
 *
 * An object is charged for as long as a call to it is pending, so that it never computes: a Worker does, and makes two
 * calls, `claim` and `finish`. In between, a lease says that the job is under way; whoever asks for it meanwhile waits
 * here. A lease is short, and renewed while its Worker lives, so that one that died holds nobody up for long, however
 * long its request might have taken. Leases are in memory alone: when the object restarts, a job may be computed twice,
 * which changes nothing, since programs are pure.
 *
 * One row is written for a job, its result; it carries what is to be counted, and when its table is dropped, that is
 * added to the counters. Only a failure, which leaves no row, is counted by a write of its own.
 */

import { DurableObject } from "cloudflare:workers";
import { count, type Env } from "./env";
import { Generations } from "./generations";

/** How long a Worker that has died holds up those who wait for its job. */
export const LEASE_MS = 10_000;
export const RENEW_MS = 3_000;
const RESULT_TTL_S = 600;
/** A result is 4 KiB at most, so that an object keeps 64 MiB at most, of its 10 GB. */
const MAX_RESULTS = 16_384;
const MAX_ANSWER_CHARS = 4_096;
/** Each waiting call takes memory of the object, which is one of 128 MB. */
const MAX_WAITING = 1_000;
const MAX_LEASES = 10_000;

const COLUMNS = `answer TEXT NOT NULL, region TEXT NOT NULL, bytes INTEGER NOT NULL, hit INTEGER NOT NULL,
  repeats INTEGER NOT NULL`;
const COUNTERS = `CREATE TABLE IF NOT EXISTS counters (region TEXT PRIMARY KEY, jobs INTEGER NOT NULL,
  failures INTEGER NOT NULL, bytes INTEGER NOT NULL, cacheHits INTEGER NOT NULL, repeats INTEGER NOT NULL)
  WITHOUT ROWID`;
const ADD = `ON CONFLICT (region) DO UPDATE SET jobs = jobs + excluded.jobs, failures = failures + excluded.failures,
  bytes = bytes + excluded.bytes, cacheHits = cacheHits + excluded.cacheHits, repeats = repeats + excluded.repeats`;
const SUMS = `region, COUNT(*) AS jobs, 0 AS failures, SUM(bytes) AS bytes, SUM(hit) AS cacheHits,
  SUM(repeats) AS repeats`;

export type Claim =
  | { readonly kind: "answer"; readonly answer: string }
  /** The caller is to compute it, and to say with this lease what came of it. It may have `waited` for another run. */
  | { readonly kind: "lease"; readonly lease: string; readonly waited: boolean }
  /** Another run is under way, and did not end while the caller could wait. */
  | { readonly kind: "late" }
  | { readonly kind: "busy" };

/** What came of a run: `answer` is its JSON where it is a success, and `null` where it is not. */
export interface Outcome {
  readonly answer: string | null;
  readonly region: string;
  readonly bytes: number;
  readonly hit: boolean;
}

export interface Counts {
  jobs: number;
  failures: number;
  bytes: number;
  cacheHits: number;
  repeats: number;
}

interface Lease {
  readonly id: string;
  until: number;
  waiting: number;
  /** Resolves with the answer, or with `null` where the run failed. */
  readonly end: PromiseWithResolvers<string | null>;
}

export class JobShard extends DurableObject<Env> {
  readonly #sql: SqlStorage;
  readonly #ttlMs: number;
  readonly #results: Generations;
  readonly #leases = new Map<string, Lease>();
  #waiting = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    this.#sql.exec(COUNTERS);
    this.#ttlMs = count(env.PACKETFS_RESULT_TTL_S, RESULT_TTL_S) * 1000;
    // A table is open for less time than a result lives, so that none expires within the one that is open.
    this.#results = new Generations(this.#sql, "results", COLUMNS, this.#ttlMs / 2, MAX_RESULTS / 4);
  }

  /** Say what is to be done about the job `key`, within `patienceMs`. */
  async claim(key: string, patienceMs: number): Promise<Claim> {
    const end = Date.now() + patienceMs;
    for (let waited = false; ; waited = true) {
      const now = Date.now();
      const found = this.#results.find(key, now);
      if (found !== null) {
        this.#sql.exec(`UPDATE ${found.table} SET repeats = repeats + 1 WHERE key = ?`, key);
        return { kind: "answer", answer: String(found.row.answer) };
      }
      const lease = this.#leases.get(key);
      if (lease === undefined || lease.until <= now) {
        return this.#grant(key, now, lease, waited);
      }
      if (now >= end) {
        return { kind: "late" };
      }
      if (this.#waiting >= MAX_WAITING) {
        return { kind: "busy" };
      }
      const answer = await this.#wait(lease, Math.min(end, lease.until) - now);
      if (answer !== null) {
        return { kind: "answer", answer };
      }
    }
  }

  /**
   * Note that the run under `lease` is still under way, and tell whether others wait for it. An object that has been
   * restarted learns of the run by this.
   */
  async renew(key: string, id: string): Promise<boolean> {
    const lease = this.#leases.get(key);
    if (lease === undefined) {
      this.#leases.set(key, newLease(id));
    } else if (lease.id === id) {
      lease.until = Date.now() + LEASE_MS;
    }
    return (lease?.waiting ?? 0) > 0;
  }

  /** Note what came of a run, and let those who wait for it know. A success is good whoever's lease it now is. */
  async finish(key: string, id: string, outcome: Outcome): Promise<void> {
    const now = Date.now();
    const { answer, region, bytes, hit } = outcome;
    const lease = this.#leases.get(key);
    const keep = answer !== null && answer.length <= MAX_ANSWER_CHARS && this.#results.find(key, now) === null;
    const counted = [region, bytes, Number(hit), lease?.waiting ?? 0] as const;
    const opened = keep && this.#results.add(now, key, now + this.#ttlMs, answer, ...counted);
    if (!keep) {
      const [job, failure] = answer === null ? [0, 1] : [1, 0];
      this.#sql.exec(`INSERT INTO counters VALUES (?, ?, ?, ?, ?, 0) ${ADD}`, region, job, failure, bytes, Number(hit));
    }
    if (lease !== undefined && (answer !== null || lease.id === id)) {
      this.#leases.delete(key);
      lease.end.resolve(answer);
    }
    if (opened) {
      this.#drop(now);
      await this.#arm();
    }
  }

  /** What was counted, by region. */
  async counts(): Promise<Record<string, Counts>> {
    const live = this.#results.names.map((name) => `SELECT ${SUMS} FROM ${name} GROUP BY region`);
    const counts: Record<string, Counts> = {};
    for (const query of ["SELECT * FROM counters", ...live]) {
      for (const { region, ...more } of this.#sql.exec<{ region: string } & Record<keyof Counts, number>>(query)) {
        addCounts((counts[region] ??= noCounts()), more);
      }
    }
    return counts;
  }

  override async alarm(): Promise<void> {
    this.#drop(Date.now());
    await this.#arm();
  }

  #grant(key: string, now: number, expired: Lease | undefined, waited: boolean): Claim {
    if (this.#leases.size >= MAX_LEASES) {
      for (const [other, { until }] of this.#leases) {
        if (until <= now) {
          this.#leases.delete(other);
        }
      }
      if (this.#leases.size >= MAX_LEASES) {
        return { kind: "busy" };
      }
    }
    const lease = newLease(crypto.randomUUID());
    this.#leases.set(key, lease);
    // Those who waited for the run that died wait for this one now.
    expired?.end.resolve(null);
    return { kind: "lease", lease: lease.id, waited };
  }

  async #wait(lease: Lease, forMs: number): Promise<string | null> {
    const over = Promise.withResolvers<null>();
    const timer = setTimeout(() => over.resolve(null), forMs);
    this.#waiting += 1;
    lease.waiting += 1;
    try {
      return await Promise.race([lease.end.promise, over.promise]);
    } finally {
      this.#waiting -= 1;
      lease.waiting -= 1;
      clearTimeout(timer);
    }
  }

  #drop(now: number): void {
    this.#results.drop(now, MAX_RESULTS, (table) => {
      this.#sql.exec(`INSERT INTO counters SELECT ${SUMS} FROM ${table} WHERE true GROUP BY region ${ADD}`);
    });
  }

  /** An object that is asked no more has to be woken to drop its last tables. */
  async #arm(): Promise<void> {
    const at = this.#results.dropAt;
    if (at !== null && (await this.ctx.storage.getAlarm()) === null) {
      await this.ctx.storage.setAlarm(Math.max(at, Date.now()) + this.#ttlMs / 2);
    }
  }
}

function newLease(id: string): Lease {
  return { id, until: Date.now() + LEASE_MS, waiting: 0, end: Promise.withResolvers() };
}

export function noCounts(): Counts {
  return { jobs: 0, failures: 0, bytes: 0, cacheHits: 0, repeats: 0 };
}

export function addCounts(sum: Counts, more: Counts): void {
  sum.jobs += more.jobs;
  sum.failures += more.failures;
  sum.bytes += more.bytes;
  sum.cacheHits += more.cacheHits;
  sum.repeats += more.repeats;
}
