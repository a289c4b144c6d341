/** What passes between the page, its Workers and the Service Worker. */

import type { Answer, Variables } from "../../edge/src";

/** The first message to a Worker; the page has compiled the kernels for all of them. */
export interface Begin {
  readonly type: "begin";
  readonly module: WebAssembly.Module;
  readonly variables: Variables;
  /** `null` is as fast as it goes. */
  readonly bytesPerSecond: number | null;
}

/** To a Worker, which runs one at a time: a request of `POST /compute`. */
export interface Run {
  readonly type: "run";
  readonly id: number;
  readonly request: unknown;
}

export type ToWorker = Begin | Run;

/** From a Worker: still at it, or done. */
export type FromWorker =
  | { readonly type: "alive"; readonly id: number }
  | { readonly type: "answer"; readonly id: number; readonly answer: Answer };

/** To the Service Worker; the answer goes to the port that came with it, or else to the page that sent it. */
export interface Execute {
  readonly type: "execute";
  readonly id: string | number;
  readonly request: unknown;
}

export interface Executed {
  readonly type: "answer";
  readonly id: string | number;
  readonly answer: Answer;
}
