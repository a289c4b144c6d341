/**
 * A dedicated Worker: one job at a time, and a sign of life while it runs.
 *
 * The signs come from here because browsers let a hidden page's timers go off only once a minute, too late for a lease;
 * a Worker's timers and its messages are not held back.
 */

import { execute, Kernels, type Platform } from "../../edge/src";
import type { FromWorker, ToWorker } from "./messages";
import { platformOf } from "./platform";

declare const self: DedicatedWorkerGlobalScope;

const ALIVE_MS = 2_000;

let platform: Platform | null = null;

self.addEventListener("message", (event: MessageEvent<ToWorker>) => {
  const message = event.data;
  if (message.type === "begin") {
    platform = platformOf(new Kernels(message.module), message.variables, message.bytesPerSecond);
  } else if (platform !== null) {
    void run(platform, message.id, message.request);
  }
});

async function run(on: Platform, id: number, request: unknown): Promise<void> {
  const tell = (message: FromWorker): void => self.postMessage(message);
  const signs = setInterval(() => tell({ type: "alive", id }), ALIVE_MS);
  try {
    tell({ type: "answer", id, answer: await execute(request, on) });
  } finally {
    clearInterval(signs);
  }
}
