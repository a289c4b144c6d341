/** `GET /stats`: what was counted, by region. Signed as every request is, over an empty body. */

import { failure, JobError, type Platform, SIGNATURE_HEADER } from "../../edge/src/index";
import { isolateOf } from "../../edge/src/isolate";
import { countsOf } from "./coordinator";
import type { Env } from "./env";

const PATH = "/stats";
const FIELDS = { "Cache-Control": "no-store" };

export async function stats(platform: Platform, request: Request, env: Env): Promise<Response> {
  const { fault } = platform.settings;
  try {
    if (fault !== null) {
      const { field, hint } = fault;
      throw new JobError("internal", fault.message, { field, hint, retryable: false });
    }
    const { verifier } = isolateOf(platform.settings);
    const signed = { method: request.method, path: PATH, body: new Uint8Array() };
    await verifier?.verify(signed, request.headers.get(SIGNATURE_HEADER), platform.now() / 1000, platform.replays);
    return Response.json({ regions: await countsOf(env.JOBS) }, { headers: FIELDS });
  } catch (error) {
    const unread = "the counters cannot be read";
    const found = error instanceof JobError ? error : new JobError("internal", unread, {}, { cause: error });
    return Response.json(failure(null, found, 0), { status: found.status, headers: FIELDS });
  }
}
