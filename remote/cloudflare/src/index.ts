/**
 * The Worker: builds a `Platform` of what Cloudflare gives, and hands every request to the core.
 *
 * Settings and kernels are one for the isolate. What belongs to a request, such as its `waitUntil` and its budget of
 * calls to the cache, is made with it, since one request may not use what another one opened.
 */

import { env as variables } from "cloudflare:workers";
import { Kernels, parseSettings, type Platform, serve } from "../../edge/src/index";
import kernelsModule from "../../edge/wasm/kernels-simd.wasm";
import { ColoBlocks } from "./cache";
import { JobCoordinator } from "./coordinator";
import type { Env } from "./env";
import { replayGuard } from "./nonces";
import { stats } from "./stats";

export { JobShard } from "./jobs";
export { NonceShard } from "./nonces";

const settings = parseSettings({ ...variables });
const kernels = new Kernels(kernelsModule);

export default {
  fetch(request, env, ctx): Promise<Response> {
    const region = settings.region ?? request.cf?.colo.toLowerCase() ?? "local";
    const defer = (work: Promise<unknown>): void => ctx.waitUntil(work);
    const platform: Platform = {
      settings,
      kernels,
      region,
      replays: replayGuard(env.NONCES),
      blocks: new ColoBlocks(caches.default),
      coordinator: new JobCoordinator(env.JOBS, region, defer),
      now: () => Date.now(),
      // The zone's cache would ask a source for all of an object of which a range was wanted, and answer with old ones.
      fetch: (url, init) => fetch(url, { ...init, cache: "no-store" }),
      memoryUsedMb: () => null,
      defer,
    };
    const counts = request.method === "GET" && new URL(request.url).pathname === "/stats";
    return counts ? stats(platform, request, env) : serve(platform, request);
  },
} satisfies ExportedHandler<Env>;
