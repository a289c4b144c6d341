/** Vercel's Edge runtime: variables, region and `waitUntil` around the core. */

import { Kernels, MemoryReplayGuard, parseSettings, serve, type Platform } from "../../edge/src";
import kernelsModule from "../../edge/wasm/kernels-simd.wasm?module";

interface RequestContext {
  waitUntil?(work: Promise<unknown>): void;
}

declare const process: { readonly env: Readonly<Record<string, string | undefined>> };

const REGION = /^[a-z]{2,5}[0-9]{1,2}$/;

const settings = parseSettings(process.env);
const kernels = new Kernels(kernelsModule);
/** One isolate's: behind several, a signed request may be replayed once on each within its minute. */
const replays = new MemoryReplayGuard();

/** Answer one request. */
export default function handler(request: Request, context: RequestContext): Promise<Response> {
  const platform: Platform = {
    settings,
    kernels,
    replays,
    region: settings.region ?? (process.env["VERCEL_REGION"] || regionOf(request.headers.get("x-vercel-id"))),
    blocks: null,
    coordinator: null,
    now: () => Date.now(),
    fetch: (url, init) => fetch(url, init),
    memoryUsedMb: () => null,
    defer: (work) => context.waitUntil?.(work),
  };
  return serve(platform, request);
}

/** `x-vercel-id` is the regions that a request passed through, the last of which runs us, and the request's own id. */
export function regionOf(id: string | null): string {
  const passed = (id ?? "").split("::").filter((part) => REGION.test(part));
  return passed.at(-1) ?? "vercel";
}
