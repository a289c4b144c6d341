/** A response whose body comes no faster than the page allows. */

const SECOND_MS = 1_000;

/** Let `bytesPerSecond` through; what a source has already sent waits in the browser, and the source behind it. */
export function paced(response: Response, bytesPerSecond: number): Response {
  if (response.body === null || (response.status !== 200 && response.status !== 206)) return response;
  let dueMs = performance.now();
  const pacer = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    async transform(chunk, controller) {
      controller.enqueue(chunk);
      const nowMs = performance.now();
      dueMs = Math.max(dueMs, nowMs) + (chunk.length / bytesPerSecond) * SECOND_MS;
      await new Promise((resolve) => setTimeout(resolve, dueMs - nowMs));
    },
  });
  const { status, statusText, headers } = response;
  return new Response(response.body.pipeThrough(pacer), { status, statusText, headers });
}
