/** What the gateway says, as its OpenAPI document has it: times in Unix seconds, money in USD, lengths in bytes. */

export interface Fault {
  readonly type: string;
  readonly message: string;
}

export interface Unwell {
  readonly what: string;
  readonly name?: string;
  readonly message: string;
}

export interface Cause {
  readonly at: number;
  readonly error: string;
  readonly message: string;
}

export interface Breaker {
  readonly state: string;
  /** `null`: it was never open. */
  readonly since: number | null;
  /** `null`: it is not open. */
  readonly until: number | null;
  readonly times: number;
  readonly cause: Cause | null;
}

export interface Latency {
  readonly count: number;
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
}

export interface Substrate {
  readonly name: string;
  readonly kind: string;
  readonly provider: string | null;
  readonly region: string;
  readonly trust: string;
  readonly breaker: Breaker;
  readonly depth: number | null;
  readonly in_flight: number;
  readonly slots: number | null;
  readonly consumers: number;
  readonly jobs: {
    readonly done_per_s: number;
    readonly failed_per_s: number;
    readonly done: number;
    readonly failed: Readonly<Record<string, number>>;
  };
  readonly attempts: { readonly ok: number; readonly failed: Readonly<Record<string, number>> };
  readonly latency_s: Latency | null;
  readonly bytes_per_s: number;
  readonly bytes: number;
  readonly usd_per_hour: number;
  readonly usd: number;
}

export type Steps = readonly (number | null)[];

export interface Series {
  readonly step_s: number;
  readonly from: number;
  readonly done: Readonly<Record<string, Steps>>;
  readonly failed: Readonly<Record<string, Steps>>;
  readonly usd: Steps;
  readonly p50_s: Steps;
  readonly p95_s: Steps;
}

export interface Attempt {
  readonly substrate: string;
  readonly ok: boolean;
  readonly error: Fault | null;
  readonly seconds: number;
}

export interface Candidate {
  readonly substrate: string;
  readonly wait_s: number;
  readonly run_s: number;
  readonly seconds?: number;
  readonly usd: number;
  readonly egress_usd: number;
  readonly success: number;
  readonly score: number;
  readonly veto: string | null;
}

export interface Decision {
  readonly substrate: string | null;
  readonly panic: boolean;
  readonly candidates: readonly Candidate[];
}

export interface Explained extends Decision {
  readonly measured: boolean;
  readonly byte_count: number | null;
}

/** How far a scan is; `null` where there is nothing to tell a rate from. */
export interface Progress {
  readonly bytes_done: number;
  readonly bytes_total: number;
  readonly windows_done: number;
  readonly windows: number;
  readonly rate_bytes_per_s: number | null;
  readonly cost_usd: number;
  readonly eta_s: number | null;
}

/** A scan that runs. */
export interface Scan {
  readonly job_id: string;
  readonly since: number;
  readonly op: string;
  readonly data_url: string;
  readonly length: number | null;
  readonly progress: Progress;
}

/** What is told of a scan that ended; `null` of one that failed. */
export interface Scanned {
  readonly bytes_processed: number | null;
  readonly windows: number | null;
  readonly window: number | null;
  readonly cached_bytes: number | null;
  readonly appended_to: string | null;
  readonly hedges: number | null;
}

export interface Recent {
  readonly job_id: string;
  readonly at: number;
  readonly op: string;
  readonly data_url: string;
  readonly length: number | null;
  readonly status: string;
  readonly error: Fault | null;
  readonly substrate: string | null;
  readonly cost_usd: number | null;
  readonly total_s: number | null;
  readonly attempts: readonly Attempt[];
  readonly decision: Decision | null;
  /** Its values were known: there was no attempt. */
  readonly cached: boolean;
  /** The scan that it is a window of. */
  readonly window_of: string | null;
  /** Of a scan alone. */
  readonly scan: Scanned | null;
}

export interface Overview {
  readonly at: number;
  readonly window_s: number;
  readonly ledger: {
    readonly open: number;
    readonly overdue_s: number;
    readonly resubmitted: number;
    readonly given_up: number;
  };
  readonly unwell: readonly Unwell[];
  readonly status: string;
  readonly substrates: readonly Substrate[];
  readonly series: Series;
  readonly scans: readonly Scan[];
  readonly recent: readonly Recent[];
  readonly browsers: Readonly<Record<string, number>> | null;
  readonly links: { readonly flower: string | null; readonly docs: string | null; readonly metrics: string | null };
}

export interface JobStatus {
  readonly job_id: string;
  readonly status: string;
  readonly result: JobResult | null;
  readonly progress?: Progress;
  readonly error: (Fault & { readonly attempts?: readonly Attempt[] }) | null;
}

export interface JobResult {
  readonly results: readonly { readonly op: string; readonly imm?: number; readonly value: number | string }[];
  readonly bytes_processed: number;
  readonly substrate: string;
  readonly region: string;
  readonly attempts: readonly Attempt[];
  readonly cost_usd: number;
  readonly cached: boolean;
  readonly timing: { readonly queued_s: number | null; readonly fetch_s: number; readonly compute_s: number; readonly total_s: number };
}

/** RFC 9457, as the gateway writes it. */
export interface Problem {
  readonly status: number;
  readonly detail: string;
  readonly error: string;
  readonly field?: string;
  readonly hint?: string;
}
