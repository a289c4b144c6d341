/**
 * A pool of dedicated Workers for long work.
 *
 * Each Worker runs one job. A cancelled job's Worker is ended, since WebAssembly cannot be interrupted from outside,
 * and so is one that fails or gives no sign of life; a new one is started when it is needed. Jobs that find no Worker
 * wait in a queue with a bound.
 */

import { failure, jobIdOf, JobError, type Answer, type Variables } from "../../edge/src";
import type { FromWorker, ToWorker } from "./messages";

/** Most Workers: also the most slots that a hub takes (the protocol's own bound). */
const MAX_WORKERS = 8;
const MAX_WAITING = 256;
/** Silence after which a Worker is lost; it gives a sign every two seconds. */
const LOST_MS = 30_000;

export interface PoolOptions {
  /** URL of the built `worker.js`, of this page's origin or a blob. */
  readonly script: string;
  readonly module: WebAssembly.Module;
  readonly size: number;
  readonly variables: Variables;
  /** Of all Workers together; `null` is as fast as it goes. */
  readonly bytesPerSecond: number | null;
  /** Called every two seconds for each Worker that has a job. */
  readonly onAlive: () => void;
}

export interface RunOptions {
  /** Cancels the job: the promise is rejected with its reason. */
  readonly signal?: AbortSignal | undefined;
}

interface Job {
  readonly id: number;
  readonly request: unknown;
  readonly resolve: (answer: Answer) => void;
  readonly startedMs: number;
}

interface Member {
  readonly worker: Worker;
  job: Job | null;
  watch: ReturnType<typeof setTimeout> | null;
}

/** How many Workers to have: `wanted`, or all processors but one, within what the browser says that there are. */
export function poolSize(wanted: number | undefined): number {
  const processors = Math.max(1, navigator.hardwareConcurrency || 1);
  const most = Math.min(MAX_WORKERS, processors);
  return Math.min(most, Math.max(1, Math.floor(wanted ?? processors - 1)));
}

export class Pool {
  readonly #options: PoolOptions;
  readonly #members = new Set<Member>();
  readonly #waiting: Job[] = [];
  #ids = 0;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Resolve to the answer of `request`, well or failed; reject only when `signal` aborts or the pool is closed. */
  run(request: unknown, options: RunOptions = {}): Promise<Answer> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new Error("the pool is closed");
      signal?.throwIfAborted();
      const startedMs = performance.now();
      if (this.#waiting.length >= MAX_WAITING) {
        const busy = new JobError("busy", `${MAX_WAITING} jobs are waiting`, { retry_after_s: 1 });
        resolve(failure(jobIdOf(request), busy, 0));
        return;
      }
      const cancel = (): void => {
        this.#cancel(job);
        reject(signal?.reason);
      };
      const settle = (answer: Answer): void => {
        signal?.removeEventListener("abort", cancel);
        resolve(answer);
      };
      const job: Job = { id: (this.#ids += 1), request, resolve: settle, startedMs };
      signal?.addEventListener("abort", cancel, { once: true });
      this.#waiting.push(job);
      this.#next();
    });
  }

  /** End all Workers; what is under way is answered as lost. */
  close(): void {
    this.#closed = true;
    for (const job of this.#waiting.splice(0)) this.#lose(job, "the page closed its pool");
    for (const member of Array.from(this.#members)) this.#end(member, "the page closed its pool");
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const member = this.#idle();
      if (member === null) return;
      const job = this.#waiting.shift()!;
      member.job = job;
      this.#heard(member);
      try {
        this.#post(member, { type: "run", id: job.id, request: job.request });
      } catch {
        // What cannot be copied is no JSON either; the core says so.
        this.#post(member, { type: "run", id: job.id, request: null });
      }
    }
  }

  #idle(): Member | null {
    for (const member of this.#members) if (member.job === null) return member;
    return this.#members.size < this.#options.size ? this.#start() : null;
  }

  #start(): Member {
    const { script, module, variables, bytesPerSecond, size } = this.#options;
    const worker = new Worker(script, { name: "packetfs" });
    const member: Member = { worker, job: null, watch: null };
    worker.addEventListener("message", (event: MessageEvent<FromWorker>) => this.#take(member, event.data));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#end(member, event.message || "its script cannot be loaded");
    });
    this.#members.add(member);
    const each = bytesPerSecond === null ? null : bytesPerSecond / size;
    this.#post(member, { type: "begin", module, variables, bytesPerSecond: each });
    return member;
  }

  #post(member: Member, message: ToWorker): void {
    member.worker.postMessage(message);
  }

  #take(member: Member, message: FromWorker): void {
    const { job } = member;
    if (job?.id !== message.id) return;
    if (message.type === "alive") {
      this.#heard(member);
      this.#options.onAlive();
      return;
    }
    this.#unwatch(member);
    member.job = null;
    job.resolve(message.answer);
    this.#next();
  }

  #heard(member: Member): void {
    this.#unwatch(member);
    member.watch = setTimeout(() => this.#end(member, `no sign of life for ${LOST_MS / 1000} s`), LOST_MS);
  }

  #unwatch(member: Member): void {
    if (member.watch !== null) clearTimeout(member.watch);
    member.watch = null;
  }

  #cancel(job: Job): void {
    const at = this.#waiting.indexOf(job);
    if (at >= 0) this.#waiting.splice(at, 1);
    for (const member of this.#members) if (member.job === job) this.#end(member, null);
  }

  /** End a Worker; the job that it had is answered as lost, unless it was cancelled (`why` is `null`). */
  #end(member: Member, why: string | null): void {
    if (!this.#members.delete(member)) return;
    this.#unwatch(member);
    member.worker.terminate();
    if (member.job !== null && why !== null) this.#lose(member.job, why);
    member.job = null;
    if (!this.#closed) this.#next();
  }

  #lose(job: Job, why: string): void {
    const error = new JobError("internal", `the Worker was lost: ${why.slice(0, 200)}`);
    job.resolve(failure(jobIdOf(job.request), error, performance.now() - job.startedMs));
  }
}
