/**
 * A Service Worker that is a substrate inside the page: `POST <scope>execute` is `POST /compute` of the contract,
 * `GET <scope>health` its health, and a message `{type: "execute", id, request}` gets `{type: "answer", id, answer}`.
 *
 * Nothing is signed: only pages of this origin, inside the scope, come this far. A navigation is let go by, since any
 * other site can cause one. Browsers end an event after some minutes and a Worker without events after half a minute,
 * so long work belongs to the pool. The settings are in the query of this script's URL, which the page chose when it
 * registered it.
 */

import { Kernels, serve, VERSION, type Answer, type Platform } from "../../edge/src";
import { fetchFile, kernelsFile } from "./files";
import type { Execute, Executed } from "./messages";
import { platformOf } from "./platform";

declare const self: ServiceWorkerGlobalScope;

const CACHES = "packetfs-kernels-";
const CACHE = `${CACHES}${VERSION}`;
const HERE = self.location.href;
const PATHS: ReadonlyMap<string, string> = new Map([
  [new URL("execute", self.registration.scope).pathname, "/compute"],
  [new URL("health", self.registration.scope).pathname, "/health"],
]);

let platform: Promise<Platform> | null = null;

self.addEventListener("install", (event) => {
  event.waitUntil(kernelsResponse().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetOthers().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  const path = url.origin === self.location.origin ? PATHS.get(url.pathname) : undefined;
  if (path !== undefined && request.mode !== "navigate") event.respondWith(answered(path, request));
});

self.addEventListener("message", (event) => {
  const message = event.data as Partial<Execute> | null;
  if (message?.type !== "execute" || message.id === undefined) return;
  const to = event.ports[0] ?? event.source;
  const reply = async ({ id, request }: Execute): Promise<void> => {
    const response = await answered("/compute", new Request(HERE, { method: "POST", body: textOf(request) }));
    to?.postMessage({ type: "answer", id, answer: (await response.json()) as Answer } satisfies Executed);
  };
  event.waitUntil(reply(message as Execute));
});

async function answered(path: string, request: Request): Promise<Response> {
  try {
    platform ??= begin();
    return await serve(await platform, new Request(new URL(path, HERE), request));
  } catch (error) {
    platform = null; // the kernels could not be had; the next request tries again
    const message = `the kernels cannot be loaded: ${error instanceof Error ? error.message : String(error)}`;
    const failed = { type: "internal", message, retryable: true };
    return Response.json({ success: false, jobId: null, error: failed, executionTimeMs: 0 }, { status: 500 });
  }
}

async function begin(): Promise<Platform> {
  const module = await WebAssembly.compile(await (await kernelsResponse()).arrayBuffer());
  return platformOf(new Kernels(module), Object.fromEntries(new URL(HERE).searchParams));
}

/** The kernels, from the cache or else from this script's own folder. */
async function kernelsResponse(): Promise<Response> {
  const cache = await caches.open(CACHE);
  const url = new URL(kernelsFile(), HERE);
  const kept = await cache.match(url);
  if (kept !== undefined) return kept;
  const fetched = await fetchFile(kernelsFile(), HERE);
  await cache.put(url, fetched.clone());
  return fetched;
}

async function forgetOthers(): Promise<void> {
  for (const name of await caches.keys()) {
    if (name.startsWith(CACHES) && name !== CACHE) await caches.delete(name);
  }
}

/** A message may hold what JSON does not know; the core then says that it is no request. */
function textOf(request: unknown): string {
  try {
    return JSON.stringify(request) ?? "null";
  } catch {
    return "null";
  }
}
