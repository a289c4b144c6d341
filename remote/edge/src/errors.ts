/**
 * Every way in which a job can end other than well, as one class and one table.
 *
 * The types, their statuses, whose fault each is and whether it is worth a retry are those of
 * `packetfs_compute/errors.py`, less the two that only a dispatcher can find. A test holds the two together.
 */

/** Whose it is to mend, which decides what a dispatcher does next. */
export type Fault = "program" | "source" | "substrate";

interface Kind {
  readonly status: number;
  readonly fault: Fault;
  /** Whether the same request may succeed on the same substrate a little later. */
  readonly retryable: boolean;
}

export const ERRORS = {
  bad_program: { status: 400, fault: "program", retryable: false },
  forbidden_source: { status: 403, fault: "program", retryable: false },
  range_not_satisfiable: { status: 416, fault: "program", retryable: false },
  source_not_found: { status: 404, fault: "source", retryable: false },
  source_changed: { status: 409, fault: "source", retryable: false },
  source_failed: { status: 502, fault: "source", retryable: true },
  unauthorized: { status: 401, fault: "substrate", retryable: false },
  too_large: { status: 413, fault: "substrate", retryable: false },
  busy: { status: 429, fault: "substrate", retryable: true },
  timeout: { status: 504, fault: "substrate", retryable: true },
  internal: { status: 500, fault: "substrate", retryable: true },
} as const satisfies Record<string, Kind>;

export type ErrorType = keyof typeof ERRORS;

/** What a program can read beside the message. `retryable` overrides the type's own. */
export interface Details {
  readonly field?: string;
  readonly hint?: string;
  readonly object_size?: number;
  readonly retry_after_s?: number;
  readonly retryable?: boolean;
}

/** How a job ended other than well: `message` is one line for a person, `details` are for a program. */
export class JobError extends Error {
  constructor(
    readonly type: ErrorType,
    message: string,
    readonly details: Details = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "JobError";
  }

  get status(): number {
    return ERRORS[this.type].status;
  }

  get retryable(): boolean {
    return this.details.retryable ?? ERRORS[this.type].retryable;
  }
}

/** The source broke HTTP's rules; asking again is worth it only where `retryable` says so. */
export function sourceFailed(message: string, retryable: boolean, options?: ErrorOptions): JobError {
  return new JobError("source_failed", message, { retryable }, options);
}
