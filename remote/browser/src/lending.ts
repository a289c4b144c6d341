/**
 * Lending this browser to a hub: the browser's side of the protocol between the two, version 1, over one WebSocket.
 *
 *     hello ──> welcome ──> run … answer, as many at once as there are slots; alive while any runs; cancel; pause
 *
 * A connection that is lost takes its leases with it: their jobs are cancelled, for the hub hands them to others. It
 * is then made anew, with a ticket of its own, after pauses with full jitter. Failures in a row are bounded, and a hub
 * that welcomes and drops at once counts as failing. What the hub sends is checked; a frame that is none ends the
 * connection.
 */

import { failure, jobIdOf, JobError, type Answer } from "../../edge/src";
import { isObject } from "../../edge/src/validation";
import { pauseMs, type Backoff } from "./backoff";
import type { RunOptions } from "./pool";

export type LendingState = "connecting" | "lending" | "waiting" | "left";

export interface LendingOptions {
  /** `ws:` or `wss:`, the hub's `/v1/browsers`. */
  readonly url: string;
  /** A ticket, or what gives one for each connection: a hub takes each only once. */
  readonly ticket: string | (() => string | Promise<string>);
  readonly kernel: string;
  readonly slots: number;
  readonly backoff: Backoff;
  readonly run: (request: unknown, options: RunOptions) => Promise<Answer>;
  readonly changed: () => void;
}

const VERSION = 1;
const MAX_FRAME_CHARS = 65_536;
const LEASE = /^[A-Za-z0-9_-]{1,64}$/;
const WELCOME_MS = 10_000;
/** A connection that has lasted this long is no failure. */
const STEADY_MS = 10_000;
/** Least time between two signs of life, which come from each Worker; a hub bounds frames. */
const ALIVE_MS = 1_000;
/** The hub will not have this page or this account (RFC 6455, section 7.4.1, and its own code): nothing would help. */
const REFUSED: ReadonlySet<number> = new Set([1008, 4003]);
/** It will not have this ticket: another one may be good. */
const BAD_TICKET = 4001;
const BAD_FRAME = 4400;
const NO_WELCOME = 4408;

export class Lending {
  readonly #options: LendingOptions;
  readonly #leases = new Map<string, AbortController>();
  readonly #joined = Promise.withResolvers<void>();
  #socket: WebSocket | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #state: LendingState = "connecting";
  #browser: string | null = null;
  #welcomedMs = 0;
  #aliveMs = -ALIVE_MS;
  #failures = 0;
  #paused: boolean;

  constructor(options: LendingOptions, paused: boolean) {
    this.#options = options;
    this.#paused = paused;
    this.#joined.promise.catch(() => undefined); // whoever waits for it hears it
    void this.#connect();
  }

  /** Resolves at the first welcome; rejects when the hub refuses, or cannot be reached for as long as is tried. */
  get joined(): Promise<void> {
    return this.#joined.promise;
  }

  get state(): LendingState {
    return this.#state;
  }

  /** What the hub calls this browser, while connected. */
  get browser(): string | null {
    return this.#browser;
  }

  /** Take no new work, or take it again; what runs is finished. */
  pause(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (this.#state === "lending") this.#send({ type: paused ? "pause" : "resume" });
  }

  /** The Workers are alive: so are all leases, those that wait for a Worker included. */
  alive(): void {
    const nowMs = performance.now();
    if (this.#leases.size === 0 || nowMs - this.#aliveMs < ALIVE_MS) return;
    this.#aliveMs = nowMs;
    this.#send({ type: "alive", leases: Array.from(this.#leases.keys()) });
  }

  /** End it for good; what runs is cancelled. */
  leave(why = "the page left"): void {
    if (this.#state === "left") return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.#drop();
    socket?.close(1000);
    this.#become("left");
    this.#joined.reject(new Error(`the browser is not lent: ${why}`));
  }

  async #connect(): Promise<void> {
    this.#become("connecting");
    let ticket: string;
    let socket: WebSocket;
    try {
      const given = this.#options.ticket;
      ticket = typeof given === "string" ? given : await given();
      if (this.#state === "left") return;
      socket = new WebSocket(this.#options.url);
    } catch (error) {
      this.#failed(error instanceof Error ? error.message : String(error));
      return;
    }
    this.#socket = socket;
    this.#timer = setTimeout(() => socket.close(NO_WELCOME), WELCOME_MS);
    const { kernel, slots } = this.#options;
    socket.addEventListener("open", () => this.#send({ type: "hello", version: VERSION, ticket, kernel, slots }));
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (this.#socket === socket && !this.#take(data)) socket.close(BAD_FRAME, "this is no frame of the protocol");
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (this.#socket === socket) this.#closed(code, reason);
    });
  }

  #closed(code: number, reason: string): void {
    const steady = this.#welcomedMs > 0 && performance.now() - this.#welcomedMs >= STEADY_MS;
    this.#socket = null;
    this.#drop();
    const final = REFUSED.has(code) || (code === BAD_TICKET && typeof this.#options.ticket === "string");
    if (final) this.leave(`the hub refuses it${reason ? `: ${reason}` : ""}`);
    else this.#failed(`the connection closed (${code})`, steady);
  }

  /** Try again later, or no more. */
  #failed(why: string, steady = false): void {
    if (this.#state === "left") return;
    this.#failures = steady ? 1 : this.#failures + 1;
    const { backoff } = this.#options;
    if (this.#failures >= backoff.attempts) {
      this.leave(`${why}, ${this.#failures} times in a row`);
      return;
    }
    this.#timer = setTimeout(() => void this.#connect(), pauseMs(backoff, this.#failures));
    this.#become("waiting");
  }

  /** Forget the connection: its leases are no longer ours. */
  #drop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#browser = null;
    this.#welcomedMs = 0;
    const leases = Array.from(this.#leases.values());
    this.#leases.clear();
    for (const lease of leases) lease.abort();
  }

  /** Act on a frame; return whether it was one. A type that is not known is a later version's, and passed over. */
  #take(data: unknown): boolean {
    const frame = parsed(data);
    if (frame === null) return false;
    const { type, browser, lease, request } = frame;
    if (type === "welcome") {
      if (this.#state === "connecting") this.#welcome(typeof browser === "string" ? browser : null);
    } else if (type === "run" || type === "cancel") {
      if (typeof lease !== "string" || !LEASE.test(lease)) return false;
      if (type === "cancel") this.#cancel(lease);
      else if (!this.#leases.has(lease)) void this.#run(lease, request);
    }
    return true;
  }

  #welcome(browser: string | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#browser = browser;
    this.#welcomedMs = performance.now();
    if (this.#paused) this.#send({ type: "pause" });
    this.#become("lending");
    this.#joined.resolve();
  }

  async #run(lease: string, request: unknown): Promise<void> {
    if (this.#paused || this.#leases.size >= this.#options.slots) {
      const why = this.#paused ? "this browser is paused" : "all slots are taken";
      const error = new JobError("busy", why, { retry_after_s: 1 });
      this.#send({ type: "answer", lease, answer: failure(jobIdOf(request), error, 0) });
      return;
    }
    const controller = new AbortController();
    this.#leases.set(lease, controller);
    const { signal } = controller;
    try {
      const answer = await this.#options.run(request, { signal });
      if (!signal.aborted) this.#send({ type: "answer", lease, answer });
    } catch {
      // It was cancelled: nobody waits for an answer.
    } finally {
      if (this.#leases.get(lease) === controller) this.#leases.delete(lease);
    }
  }

  #cancel(lease: string): void {
    const controller = this.#leases.get(lease);
    this.#leases.delete(lease);
    controller?.abort();
  }

  #send(frame: Readonly<Record<string, unknown>>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #become(state: LendingState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.changed();
  }
}

function parsed(data: unknown): Record<string, unknown> | null {
  if (typeof data !== "string" || data.length > MAX_FRAME_CHARS) return null;
  try {
    const frame: unknown = JSON.parse(data);
    return isObject(frame) && typeof frame["type"] === "string" ? frame : null;
  } catch {
    return null;
  }
}
