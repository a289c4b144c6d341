/**
 * Blocks of sources in the colo's cache, through the Cache API.
 *
 * The key is an address that nobody can ask for (RFC 2606: `.invalid` has no host), made of a hash over the URL without
 * the parameters of presigning, the strong ETag and the object's size: each signature of one object finds its blocks.
 * That another signature may be another permission does no harm, since the core hands out no byte of a block before the
 * source has said, asked with the very URL that the job was given, that it may be read and which version it is. Entries
 * are whole blocks that never change, kept under 200 and for a year; the cache drops what is not asked for.
 *
 * Nothing here fails a job: whatever has not a block's status and length is a miss, and the core checks the bytes. On a
 * `workers.dev` address the platform's cache keeps nothing at all.
 */

import type { BlockCache, BlockKey } from "../../edge/src/platform";
import { FRAME_BYTES } from "../../edge/src/blocks";
import { canonicalUrl } from "../../edge/src/presigned";
import { sha256 } from "./digest";

/** An attempt has up to four blocks in memory, of which an isolate has 128 MB for its sixteen attempts. */
const BLOCK_BYTES = 1 << 20;
/** Each call is one of a request's 10,000 subrequests; past these no source could be read, nor a result stored. */
const MAX_CALLS = 8_000;
const FIELDS = { "Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=31536000, immutable" };

/** The cache as one request may use it. */
export class ColoBlocks implements BlockCache {
  readonly blockBytes = BLOCK_BYTES;
  #calls = 0;

  constructor(private readonly cache: Cache) {}

  async get(key: BlockKey): Promise<Uint8Array | null> {
    if (++this.#calls > MAX_CALLS) return null;
    const found = await this.cache.match(await addressOf(key));
    if (found?.status === 200 && found.headers.get("Content-Length") === String(lengthOf(key))) {
      return new Uint8Array(await found.arrayBuffer());
    }
    await found?.body?.cancel();
    return null;
  }

  /**
   * Takes `bytes` over, and gives their memory back at once: the collector would let 64 MB of blocks gather. Hence the
   * stream as well; a response made of the bytes themselves would hold them for as long as it is not collected.
   */
  async put(key: BlockKey, bytes: Uint8Array): Promise<void> {
    try {
      if (++this.#calls <= MAX_CALLS) await this.#send(await addressOf(key), bytes);
    } finally {
      if (bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0);
    }
  }

  async #send(address: string, bytes: Uint8Array): Promise<void> {
    const { readable, writable } = new FixedLengthStream(bytes.length);
    const writer = writable.getWriter();
    const written = writer.write(bytes).then(() => writer.close());
    try {
      await this.cache.put(address, new Response(readable, { headers: FIELDS }));
      await written;
    } catch (error) {
      await Promise.allSettled([writer.abort(error), written]);
      throw error;
    }
  }
}

/** Bytes of the block, whose last one is shorter, and of its frame. */
function lengthOf(key: BlockKey): number {
  return FRAME_BYTES + Math.min(BLOCK_BYTES, key.objectSize - key.index * BLOCK_BYTES);
}

async function addressOf(key: BlockKey): Promise<string> {
  const version = JSON.stringify([canonicalUrl(key.url), key.etag, key.objectSize, BLOCK_BYTES]);
  return `https://blocks.packetfs.invalid/1/${await sha256(version)}/${key.index}`;
}
