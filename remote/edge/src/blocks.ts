/**
 * Sources with the platform's cache of blocks in front: the source is always asked, but for the bytes that are not
 * here.
 *
 * What is kept is never trusted to be current. As in `packetfs_compute/sources/cached.py`, each range is opened at the
 * source, which says with its answer that we may read the object, and which version it is now:
 *
 *     its first block is here     ──> ask the source for one byte; then blocks, and pinned requests for what is missing
 *     it is not, or no version of the object is known here
 *                                 ──> the very request; whole blocks are kept as they pass
 *     the answer names another ETag or size, or no range at all ──> the very request instead
 *
 * `HIT` is all bytes from blocks, `PARTIAL` some, `MISS` none, `null` that the source gives no strong ETag or no size,
 * so that nothing can be kept. A cache can only be asked for one block at a time: where one is missing, the next four
 * are looked for, and the source is asked for all up to the first of them that is here, or else for all the rest.
 *
 * A kept block carries its length and a CRC-32C over itself and over whose block it is. One that is damaged, cut short
 * or in the wrong place is as good as never kept, and so is one that the cache does not give within a second.
 */

import { JobError } from "./errors";
import { isolateOf, type Version } from "./isolate";
import type { Kernels } from "./kernels";
import type { BlockCache, BlockKey, Platform } from "./platform";
import { canonicalUrl } from "./presigned";
import { stopOf, type RangeRequest } from "./ranges";
import { openSource, type ByteStream, type Reading } from "./source";
import type { CacheStatus } from "./wire";

/** What stands before a block's bytes: the magic, their length, their checksum. */
export const FRAME_BYTES = 16;

const MAGIC = [0x50, 0x46, 0x53, 0x42, 1, 0, 0, 0];
const LOOK_AHEAD = 4;
/** Puts under way at once: with the source's own, within the six connections that Cloudflare gives a request. */
const MAX_PUTS = 3;
const PATIENCE_MS = 1_000;

/** Open a range by way of `platform.blocks`, where the platform keeps any. */
export async function openBlocks(reading: Reading): Promise<ByteStream> {
  const { request, platform } = reading;
  if (platform.blocks === null || request.length === 0) return openSource(reading);
  const url = canonicalUrl(request.url);
  const { versions } = isolateOf(platform.settings);
  const shelfOf = (version: Version): Shelf => new Shelf(platform.blocks!, platform.kernels, url, version);
  const known = usable(versions.get(url), request);
  if (known !== null) {
    const shelf = shelfOf(known);
    const kept = await shelf.get(shelf.indexOf(request.offset));
    if (kept !== null && (await confirmed(reading, known))) return new BlockStream(reading, shelf, kept, null);
  }
  const answer = await openSource(reading);
  const { etag, objectSize } = answer;
  if (etag === null || objectSize === null || objectSize === request.offset) return answer;
  versions.note(url, { etag, objectSize });
  const shelf = shelfOf({ etag, objectSize });
  const looked = known?.etag === etag && known.objectSize === objectSize;
  const first = looked ? null : await shelf.get(shelf.indexOf(request.offset));
  if (first === null) return new BlockStream(reading, shelf, null, answer);
  answer.close();
  return new BlockStream(reading, shelf, first, null);
}

/** The version that was seen last, where it can be the one that is asked for, and has the range. */
function usable(version: Version | null, request: RangeRequest): Version | null {
  if (version === null || (request.etag !== null && request.etag !== version.etag)) return null;
  const stop = stopOf(request) ?? version.objectSize;
  return request.offset < stop && stop <= version.objectSize ? version : null;
}

/** Whether the source, asked for one byte of the range, still has that version, and lets us read it. */
async function confirmed(reading: Reading, version: Version): Promise<boolean> {
  try {
    const answer = await openSource({ ...reading, request: { ...reading.request, length: 1 } });
    const same = answer.etag === version.etag && answer.objectSize === version.objectSize;
    if (!same) answer.close();
    // All of its one byte, so that the connection can be kept.
    else while ((await answer.read()) !== null);
    return same;
  } catch (error) {
    // It is shorter now; what that means for the range, the very request will say.
    if (error instanceof JobError && error.type === "range_not_satisfiable") return false;
    throw error;
  }
}

/** A block that is here: its number and its bytes. */
interface Kept {
  readonly index: number;
  readonly bytes: Uint8Array;
}

/** The blocks of one version of one object in the platform's cache. */
class Shelf {
  readonly version: Version;
  readonly #cache: BlockCache;
  readonly #kernels: Kernels;
  readonly #url: string;

  constructor(cache: BlockCache, kernels: Kernels, url: string, version: Version) {
    this.version = version;
    this.#cache = cache;
    this.#kernels = kernels;
    this.#url = url;
  }

  indexOf(position: number): number {
    return Math.floor(position / this.#cache.blockBytes);
  }

  startOf(index: number): number {
    return index * this.#cache.blockBytes;
  }

  lengthOf(index: number): number {
    return Math.min(this.#cache.blockBytes, this.version.objectSize - this.startOf(index));
  }

  /** Resolve to the block, or to `null` where it is not here or no good; never rejects. */
  async get(index: number): Promise<Kept | null> {
    const framed = await soon(() => this.#cache.get(this.#key(index)));
    const length = this.lengthOf(index);
    if (!(framed instanceof Uint8Array) || framed.length !== FRAME_BYTES + length) return null;
    const expected = new Uint8Array(FRAME_BYTES);
    const bytes = framed.subarray(FRAME_BYTES);
    this.#seal(expected, index, bytes);
    return expected.every((byte, at) => framed[at] === byte) ? { index, bytes } : null;
  }

  /** Keep a block: `framed` has room for the frame, then its bytes. Never rejects. */
  async put(index: number, framed: Uint8Array): Promise<void> {
    this.#seal(framed, index, framed.subarray(FRAME_BYTES));
    try {
      await this.#cache.put(this.#key(index), framed);
    } catch {
      // Nothing depends on it.
    }
  }

  #key(index: number): BlockKey {
    return { url: this.#url, etag: this.version.etag, objectSize: this.version.objectSize, index };
  }

  #seal(frame: Uint8Array, index: number, bytes: Uint8Array): void {
    const whose = new TextEncoder().encode(JSON.stringify(Object.values(this.#key(index))));
    const view = new DataView(frame.buffer, frame.byteOffset, FRAME_BYTES);
    frame.set(MAGIC);
    view.setUint32(8, bytes.length, true);
    view.setUint32(12, this.#kernels.crc32c(bytes, this.#kernels.crc32c(whose)), true);
  }
}

/** The bytes of an opened range, from blocks and from the source. */
class BlockStream implements ByteStream {
  readonly objectSize: number;
  readonly etag: string;
  readonly #reading: Reading;
  readonly #shelf: Shelf;
  readonly #stop: number;
  readonly #from = { blocks: false, source: false };
  #at: number;
  #kept: Kept | null;
  /** The block whose bytes were handed out last, good until the next call. */
  #lent: Kept | null = null;
  #answer: ByteStream | null;
  #keeper: Keeper;

  /** `kept` is the first block, if it is here; otherwise `answer` is what the source is about to send, all of it. */
  constructor(reading: Reading, shelf: Shelf, kept: Kept | null, answer: ByteStream | null) {
    const { request, platform } = reading;
    this.etag = shelf.version.etag;
    this.objectSize = shelf.version.objectSize;
    this.#reading = reading;
    this.#shelf = shelf;
    this.#at = request.offset;
    this.#stop = stopOf(request) ?? this.objectSize;
    this.#kept = kept;
    this.#answer = answer;
    this.#keeper = new Keeper(shelf, platform, this.#at, this.#stop);
    this.#from.source = answer !== null;
  }

  get cache(): CacheStatus {
    return !this.#from.blocks ? "MISS" : this.#from.source ? "PARTIAL" : "HIT";
  }

  async read(): Promise<Uint8Array | null> {
    this.#giveBack();
    while (this.#answer !== null || this.#at < this.#stop) {
      const chunk = this.#answer === null ? await this.#fromBlocks() : await this.#fromSource(this.#answer);
      if (chunk !== null) {
        this.#at += chunk.length;
        return chunk;
      }
    }
    this.close();
    return null;
  }

  close(): void {
    this.#giveBack();
    this.#answer?.close();
    this.#answer = this.#kept = null;
  }

  /** Free a block at once: the collector, which does not see how much these hold, would let 64 MB of them gather. */
  #giveBack(): void {
    const buffer = this.#lent?.bytes.buffer;
    if (buffer instanceof ArrayBuffer) buffer.transfer(0);
    this.#lent = null;
  }

  /** Resolve to the bytes of the block at hand; where it is missing, open the source and resolve to `null`. */
  async #fromBlocks(): Promise<Uint8Array | null> {
    const shelf = this.#shelf;
    const { request, deadline, platform } = this.#reading;
    const index = shelf.indexOf(this.#at);
    const kept = this.#kept?.index === index ? this.#kept : await shelf.get(index);
    deadline.check();
    if (kept !== null) {
      this.#kept = null;
      this.#lent = kept;
      this.#from.blocks = true;
      const start = shelf.startOf(index);
      return kept.bytes.subarray(this.#at - start, this.#stop - start);
    }
    const until = Math.min(this.#stop, await this.#nextKept(index));
    const pinned = { url: request.url, offset: this.#at, length: until - this.#at, etag: this.etag };
    this.#keeper = new Keeper(shelf, platform, this.#at, until);
    this.#answer = await openSource({ request: pinned, deadline, platform });
    this.#from.source = true;
    return null;
  }

  async #fromSource(answer: ByteStream): Promise<Uint8Array | null> {
    const chunk = await answer.read();
    if (chunk === null) this.#answer = null;
    else await this.#keeper.take(chunk);
    return chunk;
  }

  /** Resolve to where the next block begins that is here, as far ahead as is looked; else to the range's end. */
  async #nextKept(missing: number): Promise<number> {
    for (let index = missing + 1; index <= missing + LOOK_AHEAD; index += 1) {
      if (this.#shelf.startOf(index) >= this.#stop) break;
      this.#kept = await this.#shelf.get(index);
      if (this.#kept !== null) return this.#shelf.startOf(index);
    }
    return this.#stop;
  }
}

/** Puts the whole blocks of a run `[at, until)` of the source together, and keeps them. */
class Keeper {
  readonly #shelf: Shelf;
  readonly #platform: Platform;
  readonly #until: number;
  readonly #puts = new Set<Promise<void>>();
  #at: number;
  #framed: Uint8Array | null = null;
  #givenUp = false;

  constructor(shelf: Shelf, platform: Platform, at: number, until: number) {
    this.#shelf = shelf;
    this.#platform = platform;
    this.#at = at;
    this.#until = until;
  }

  async take(chunk: Uint8Array): Promise<void> {
    let rest = chunk;
    while (rest.length > 0 && !this.#givenUp) {
      const index = this.#shelf.indexOf(this.#at);
      const start = this.#shelf.startOf(index);
      const length = this.#shelf.lengthOf(index);
      const part = rest.subarray(0, start + length - this.#at);
      rest = rest.subarray(part.length);
      // A block that the run begins or ends in the middle of never becomes whole.
      if (this.#at === start && start + length <= this.#until) this.#framed = new Uint8Array(FRAME_BYTES + length);
      this.#framed?.set(part, FRAME_BYTES + this.#at - start);
      this.#at += part.length;
      if (this.#framed !== null && this.#at === start + length) await this.#put(index, this.#framed);
    }
  }

  async #put(index: number, framed: Uint8Array): Promise<void> {
    this.#framed = null;
    if (this.#puts.size >= MAX_PUTS) await soon(() => Promise.race(this.#puts));
    if (this.#puts.size >= MAX_PUTS) {
      this.#givenUp = true; // it is slower than the source
      return;
    }
    const put = this.#shelf.put(index, framed).finally(() => this.#puts.delete(put));
    this.#puts.add(put);
    this.#platform.defer(put);
  }
}

/** Resolve as `work` does, but to `null` where it fails or takes longer than a cache may. */
function soon<T>(work: () => Promise<T>): Promise<T | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), PATIENCE_MS);
    const settle = (value: T | null): void => {
      clearTimeout(timer);
      resolve(value);
    };
    Promise.resolve().then(work).then(settle, () => settle(null));
  });
}
