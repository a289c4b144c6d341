/** `PacketFS`: what a page gets, as a global of `packetfs.js` or as exports of `packetfs.mjs`. */

import { VERSION, type Variables } from "../../edge/src";
import { Client, type ConnectOptions } from "./client";

export { Client, ConsentRefused, type ConnectOptions, type LendOptions, type Metrics } from "./client";
export { JobFailed, type JobStatus, type SubmitOptions } from "./jobs";
export { type Limits, type PauseReason } from "./limits";
export { type RunOptions } from "./pool";
export const version = VERSION;

/** Where this script is; `build.mjs` makes it `document.currentScript.src` in the classic one. */
const HERE = import.meta.url;

export function connect(options: ConnectOptions = {}): Promise<Client> {
  return Client.connect(options, HERE);
}

export interface ServiceWorkerOptions {
  /** The copy of `service-worker.js` on this page's own origin, with the kernels beside it. */
  readonly url?: string;
  /** The script's own folder by default; wider needs `Service-Worker-Allowed`. */
  readonly scope?: string;
  readonly variables?: Variables;
}

/** Register the Service Worker, and resolve when it is active: then `<scope>execute` and `<scope>health` answer. */
export async function registerServiceWorker(options: ServiceWorkerOptions = {}): Promise<ServiceWorkerRegistration> {
  const url = new URL(options.url ?? "service-worker.js", options.url === undefined ? HERE : location.href);
  for (const [name, value] of Object.entries(options.variables ?? {})) url.searchParams.set(name, String(value));
  const scope = options.scope === undefined ? {} : { scope: options.scope };
  const registration = await navigator.serviceWorker.register(url, scope);
  const worker = registration.installing ?? registration.waiting;
  if (worker !== null) await activated(worker);
  return registration;
}

function activated(worker: ServiceWorker): Promise<void> {
  return new Promise((resolve, reject) => {
    const look = (): void => {
      if (worker.state === "activated") resolve();
      else if (worker.state === "redundant") reject(new Error("the Service Worker could not be installed"));
    };
    worker.addEventListener("statechange", look);
    look();
  });
}
