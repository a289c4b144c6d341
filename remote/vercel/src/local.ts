/** The same function as the npm `edge-runtime` runs it: a listener of fetch events in place of an exported handler. */

import handler from "./handler";

interface FetchEvent extends Event {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
  waitUntil(work: Promise<unknown>): void;
}

addEventListener("fetch", (event) => {
  const fetchEvent = event as FetchEvent;
  fetchEvent.respondWith(handler(fetchEvent.request, fetchEvent));
});
