/**
 * Signatures of requests to an endpoint: who sent this, that it is whole, that it is new.
 *
 * The header is `X-PacketFS-Signature: v1;<key id>;<unix seconds>;<nonce>;<mac>`, its mac the hex HMAC-SHA256 over
 * `v1\nMETHOD\npath\nkey id\nseconds\nnonce\nhex sha256(body)`. The order is that of `packetfs_compute/signature.py`:
 * the form, the MAC (computed for an unknown key id as well, and compared by WebCrypto in constant time), the time, and
 * only then the store of nonces, so that a stranger cannot fill it.
 */

import { JobError } from "./errors";
import type { ReplayGuard } from "./platform";

export const SIGNATURE_HEADER = "X-PacketFS-Signature";

/** How far the signer's clock may be from ours, in seconds, either way. */
export const WINDOW_S = 60;

export interface SigningKey {
  readonly id: string;
  readonly secret: string;
}

const MAX_HEADER_CHARS = 256;
const HEADER = /^v1;([A-Za-z0-9_-]{1,64});([0-9]{1,12});([A-Za-z0-9_-]{16,64});([0-9a-f]{64})$/;
/** A method or a path. A line break in it would let one signature stand for two requests. */
const TARGET = /^[\x21-\x7e]{1,2048}$/;
/** Signs for nobody: it stands in for the key of an unknown id, so that both take the same time. */
const NOBODY: SigningKey = { id: "", secret: "no key has this id" };
const ALGORITHM = { name: "HMAC", hash: "SHA-256" };

/** Accepts what one of the keys has signed. */
export class Verifier {
  readonly #keys: ReadonlyMap<string, SigningKey>;
  readonly #imported = new Map<SigningKey, CryptoKey>();

  constructor(keys: readonly SigningKey[]) {
    this.#keys = new Map(keys.map((key) => [key.id, key]));
  }

  /**
   * Resolve to the id of the key that signed the request at the Unix time `nowS`.
   *
   * Throws `unauthorized` for anything else, `busy` when no more requests can be remembered.
   */
  async verify(
    request: { readonly method: string; readonly path: string; readonly body: Uint8Array<ArrayBuffer> },
    header: string | null,
    nowS: number,
    replays: ReplayGuard,
  ): Promise<string> {
    const match = header !== null && header.length <= MAX_HEADER_CHARS ? HEADER.exec(header) : null;
    if (match === null || !TARGET.test(request.method) || !TARGET.test(request.path)) {
      throw refused(header ? "has not the form of one" : "is missing", `send ${SIGNATURE_HEADER}`);
    }
    const [keyId, seconds, nonce, mac] = match.slice(1) as [string, string, string, string];
    const known = this.#keys.get(keyId);
    const digest = toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", request.body)));
    const lines = ["v1", request.method, request.path, keyId, seconds, nonce, digest].join("\n");
    const key = await this.#import(known ?? NOBODY);
    const genuine = await crypto.subtle.verify(ALGORITHM.name, key, fromHex(mac), new TextEncoder().encode(lines));
    if (!genuine || known === undefined) throw refused("is not valid", "check that both ends have the same key");
    const signedAt = Number(seconds);
    if (Math.abs(nowS - signedAt) > WINDOW_S) {
      const when = signedAt < nowS ? "in the past" : "in the future";
      throw refused(`is more than ${WINDOW_S} s ${when}`, "set the clocks of both ends");
    }
    const seen = await replays.admit(`${keyId};${nonce}`, signedAt + WINDOW_S);
    if (seen === "used") throw refused("was used before", "sign each request anew");
    if (seen === "full") {
      const message = "more signed requests than can be remembered came within a minute";
      throw new JobError("busy", message, { retry_after_s: 1 });
    }
    return keyId;
  }

  /** The key itself is kept, not the promise of it: on Workers one request must not wait for another's. */
  async #import(key: SigningKey): Promise<CryptoKey> {
    let imported = this.#imported.get(key);
    if (imported === undefined) {
      const secret = new TextEncoder().encode(key.secret);
      imported = await crypto.subtle.importKey("raw", secret, ALGORITHM, false, ["verify"]);
      this.#imported.set(key, imported);
    }
    return imported;
  }
}

/**
 * Nonces in this isolate's memory, by the second in which each may be forgotten.
 *
 * Behind several isolates a request may be replayed once on each, which costs its work and changes nothing, since
 * programs are pure. `nowS` gives Unix time in seconds.
 */
export class MemoryReplayGuard implements ReplayGuard {
  readonly #until = new Map<number, Set<string>>();
  readonly #limit: number;
  readonly #nowS: () => number;
  #count = 0;
  /** The latest second whose nonces are forgotten: were the clock set back, they would be new again. */
  #forgotten = -1;

  constructor(limit = 200_000, nowS: () => number = () => Date.now() / 1000) {
    this.#limit = limit;
    this.#nowS = nowS;
  }

  admit(nonce: string, until: number): Promise<"new" | "used" | "full"> {
    this.#forget(this.#nowS());
    const seen = this.#until.get(until) ?? new Set<string>();
    if (seen.has(nonce) || until <= this.#forgotten) return Promise.resolve("used");
    if (this.#count >= this.#limit) return Promise.resolve("full");
    this.#until.set(until, seen.add(nonce));
    this.#count += 1;
    return Promise.resolve("new");
  }

  #forget(nowS: number): void {
    for (const [second, nonces] of this.#until) {
      if (second >= nowS) continue;
      this.#count -= nonces.size;
      this.#until.delete(second);
      this.#forgotten = Math.max(this.#forgotten, second);
    }
  }
}

function refused(why: string, hint: string): JobError {
  return new JobError("unauthorized", `the request's signature ${why}`, { hint });
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: text.length / 2 }, (_, at) => Number.parseInt(text.slice(2 * at, 2 * at + 2), 16));
}
