/**
 * Jobs for the gateway: `POST /v1/jobs`, their progress as server-sent events, `DELETE` to cancel.
 *
 * The events are read through `fetch`, not `EventSource`, which can send no API key. A stream that ends early is opened
 * again, after asking for the job's status once; a job is given up after so many failures in a row.
 */

import { DEFAULT_BACKOFF, pauseMs, type Backoff } from "./backoff";
import { eventsIn } from "./events";
import { isObject } from "../../edge/src/validation";

export interface JobStatus {
  readonly job_id: string;
  readonly status: "queued" | "running" | "done" | "failed" | "cancelled";
  readonly result: Readonly<Record<string, unknown>> | null;
  readonly error: { readonly type: string; readonly message: string; readonly [detail: string]: unknown } | null;
  readonly [more: string]: unknown;
}

export interface SubmitOptions {
  /** Chosen here by default, before it is sent, so that to send it twice is harmless. */
  readonly jobId?: string;
  /** 0, first, to 9, last. */
  readonly priority?: number;
  /** Called with each status. */
  readonly onProgress?: (status: JobStatus) => void;
  /** Cancels the job at the gateway; the promise is then rejected with its reason. */
  readonly signal?: AbortSignal;
}

/** The job ended other than well, or was refused; `status` is what the gateway said of it. */
export class JobFailed extends Error {
  constructor(
    message: string,
    readonly type: string,
    readonly status: JobStatus | null,
  ) {
    super(message);
    this.name = "JobFailed";
  }
}

const STATUSES: ReadonlySet<unknown> = new Set(["queued", "running", "done", "failed", "cancelled"]);
const BACKOFF: Backoff = { ...DEFAULT_BACKOFF, baseMs: 500, capMs: 10_000, attempts: 10 };
const PATIENCE_MS = 30_000;
const BUSY = 429;

export class Gateway {
  readonly #base: URL;
  readonly #key: string | null;

  constructor(base: URL, key: string | null) {
    this.#base = base;
    this.#key = key;
  }

  /** The address of the hub for browsers. */
  get hub(): string {
    const url = this.#at("v1/browsers");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url.href;
  }

  /** Submit a job, and resolve to its status when it is done; rejects with `JobFailed` when it ends otherwise. */
  async submit(program: unknown, policy: unknown, options: SubmitOptions): Promise<JobStatus> {
    const { jobId = crypto.randomUUID(), priority, onProgress, signal } = options;
    signal?.throwIfAborted();
    const body = JSON.stringify({ job_id: jobId, program, policy: policy ?? undefined, priority });
    const sent = { method: "POST", body, headers: { "Content-Type": "application/json", "Idempotency-Key": jobId } };
    try {
      let status = await this.#status(this.#at("v1/jobs"), sent, signal);
      onProgress?.(status);
      status = ended(status) ? status : await this.#watched(jobId, onProgress, signal);
      if (status.status === "done") return status;
      const { message = `the job is ${status.status}`, type = status.status } = status.error ?? {};
      throw new JobFailed(message, type, status);
    } catch (error) {
      if (!signal?.aborted) throw error;
      await this.#status(this.#job(jobId), { method: "DELETE" }).catch(() => undefined);
      throw signal.reason;
    }
  }

  async #watched(
    jobId: string,
    onProgress: ((status: JobStatus) => void) | undefined,
    signal: AbortSignal | undefined,
  ): Promise<JobStatus> {
    for (let failures = 0; ; ) {
      try {
        const asked = { headers: { Accept: "text/event-stream" } };
        const events = await this.#send(this.#job(jobId, "/events"), asked, signal);
        for await (const data of eventsIn(events)) {
          const status = statusIn(data);
          if (status === null) continue;
          failures = 0;
          onProgress?.(status);
          if (ended(status)) return status;
        }
        const status = await this.#status(this.#job(jobId), {}, signal);
        if (ended(status)) return status;
      } catch (error) {
        if (signal?.aborted || error instanceof JobFailed) throw error;
      }
      failures += 1;
      if (failures >= BACKOFF.attempts) throw new JobFailed("the gateway does not answer any more", "lost", null);
      await new Promise((resolve) => setTimeout(resolve, pauseMs(BACKOFF, failures)));
    }
  }

  /** Send a request that is answered with a job's status. */
  async #status(url: URL, init: RequestInit, signal?: AbortSignal): Promise<JobStatus> {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    const response = await this.#send(url, init, signal ? AbortSignal.any([signal, patience]) : patience);
    const status = statusIn(await response.text());
    if (status === null) throw new JobFailed("the gateway answered with no job's status", "internal", null);
    return status;
  }

  async #send(url: URL, init: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.#key !== null) headers.set("Authorization", `Bearer ${this.#key}`);
    const response = await fetch(url, { ...init, headers, signal: signal ?? null });
    if (response.ok) return response;
    // problem+json (RFC 9457): `detail` is for a person, `error` names the problem.
    const told: unknown = await response.json().catch(() => null);
    const { detail, error } = isObject(told) ? told : {};
    const message = typeof detail === "string" ? detail : `status ${response.status}`;
    if (response.status >= 500 || response.status === BUSY) throw new Error(`the gateway cannot now: ${message}`);
    throw new JobFailed(`the gateway refuses: ${message}`, typeof error === "string" ? error : "refused", null);
  }

  #job(jobId: string, more = ""): URL {
    return this.#at(`v1/jobs/${encodeURIComponent(jobId)}${more}`);
  }

  #at(path: string): URL {
    return new URL(path, this.#base);
  }
}

function ended({ status }: JobStatus): boolean {
  return status !== "queued" && status !== "running";
}

function statusIn(text: string): JobStatus | null {
  try {
    const status: unknown = JSON.parse(text);
    return isObject(status) && STATUSES.has(status["status"]) ? (status as unknown as JobStatus) : null;
  } catch {
    return null;
  }
}
