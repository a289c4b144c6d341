/**
 * A browser as the core's platform: `fetch` under the rules of CORS.
 *
 * - **No preflight.** Of the core's fields only `Accept` and one `Range` are sent, both CORS-safelisted (Fetch, section
 *   2.2.2). `If-Match` is left out: the core takes a pinned version only when the answer's own `ETag` proves it. The
 *   browser itself asks for `identity` with every Range (Fetch, "HTTP-network-or-cache fetch").
 * - **What is hidden is no proof.** A cross-origin answer shows `Content-Range` and `ETag` only where the source shares
 *   them, and never says that it hides a `Content-Encoding`. A 206 must have as many bytes as its `Content-Range`
 *   says, decoded or not; of a 200 only an empty one is taken.
 * - **Redirects** are followed by the browser, which hides where each leads but the last. That one is checked here
 *   before a byte is read. So no bytes of a forbidden place come through, but it may have been asked: by a GET without
 *   cookies, referrer or any field that a plain request has not. A hop in the middle is not seen at all.
 * - **Names** are resolved by the browser: that a public one leads nowhere inside is left to its own protection of
 *   local networks, and to CORS, since such a place would have to allow this origin.
 *
 * A source that a browser may not read is `source_failed` with the field `cors`, not retryable here: a hub learns it.
 */

import {
  JobError, MemoryReplayGuard, parseSettings, type Kernels, type Platform, type Settings, type Variables,
} from "../../edge/src";
import { checkUrl } from "../../edge/src/guard";
import { paced } from "./pacing";

const SENT = ["accept", "range"] as const;
const CORS_HINT =
  "the source must send Access-Control-Allow-Origin, and Access-Control-Expose-Headers: Content-Range, ETag";

/** `variables` are those of the core's README; no request is signed inside a page. */
export function platformOf(kernels: Kernels, variables: Variables, bytesPerSecond: number | null = null): Platform {
  const settings = parseSettings({ ...variables, PACKETFS_SIGNING_KEYS: "", PACKETFS_ALLOW_UNSIGNED: "1" });
  return {
    settings,
    kernels,
    region: settings.region ?? "browser",
    replays: new MemoryReplayGuard(),
    blocks: null,
    coordinator: null,
    now: () => Date.now(),
    fetch: async (url, init) => {
      const response = await ask(url, init, settings);
      return bytesPerSecond === null ? response : paced(response, bytesPerSecond);
    },
    memoryUsedMb: () => null,
    defer: () => undefined,
  };
}

async function ask(url: string, init: RequestInit, settings: Settings): Promise<Response> {
  const fields = new Headers(init.headers);
  const headers = SENT.flatMap((name): [string, string][] => {
    const value = fields.get(name);
    return value === null ? [] : [[name, value]];
  });
  // A kept answer may be of an older version than the source's, and kept parts of two.
  const how: RequestInit = {
    credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer", redirect: "follow",
  };
  const signal = init.signal ?? null;
  let response: Response;
  try {
    response = await fetch(url, { ...how, headers, mode: "cors", signal });
  } catch (error) {
    if (isMixed(url)) throw unreadable("this page is https, where browsers read no http source");
    if (signal?.aborted || !(await answersOthers(url, { ...how, signal }))) throw error;
    throw unreadable("the source answers, but does not let other origins read it");
  }
  try {
    checkArrival(url, response, settings);
    checkShown(response, fields.has("if-match"));
  } catch (error) {
    response.body?.cancel().catch(() => undefined);
    throw error;
  }
  return response;
}

/** Whether the source answers one who may not read it: then it was CORS that failed, which `fetch` does not say. */
async function answersOthers(url: string, how: RequestInit): Promise<boolean> {
  try {
    await fetch(url, { ...how, method: "HEAD", mode: "no-cors" });
    return true;
  } catch {
    return false;
  }
}

/** The guard for the place where redirects led. */
function checkArrival(url: string, response: Response, settings: Settings): void {
  if (!response.redirected) return;
  let scheme: string;
  try {
    ({ scheme } = checkUrl(response.url, settings));
  } catch (error) {
    if (error instanceof JobError && error.type === "forbidden_source") throw error;
    const details = { retryable: false };
    throw new JobError("source_failed", "the source redirects to no usable URL", details, { cause: error });
  }
  if (url.startsWith("https:") && scheme === "http") {
    const hint = "use the https URL of the object";
    throw new JobError("forbidden_source", "the source redirects from https to http", { hint });
  }
}

/** Refuse an answer of which CORS hides what would prove its bytes. */
function checkShown({ type, status, headers }: Response, pinned: boolean): void {
  if (type !== "cors") return;
  if (status === 206 && !headers.has("content-range")) {
    throw unreadable("the source does not expose the Content-Range of its answer");
  }
  if (status === 200 && headers.get("content-length") !== "0") {
    throw unreadable("the source ignores Range, and browsers hide whether its answer is coded");
  }
  if (pinned && (status === 200 || status === 206) && !headers.has("etag")) {
    throw unreadable("the source does not expose the ETag that would prove the pinned version");
  }
}

/** Browsers refuse such a request before they send it, except to loopback addresses, which count as secure. */
function isMixed(url: string): boolean {
  if (!location.origin.startsWith("https:") || !url.startsWith("http:")) return false;
  return !/^(?:127\.|\[::1\]|localhost$)/.test(new URL(url).hostname);
}

function unreadable(message: string): JobError {
  return new JobError("source_failed", message, { field: "cors", hint: CORS_HINT, retryable: false });
}
