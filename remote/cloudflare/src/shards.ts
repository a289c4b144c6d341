/**
 * Which of the Durable Objects has a key.
 *
 * One object runs one event at a time and takes about a thousand calls a second. A request makes one call for its nonce
 * and two for its job, so that sixteen of each take 8,000 requests a second, while `/stats`, which asks all sixteen,
 * stays far below the fifty subrequests of the free plan. Changing the number forgets what is remembered, once.
 */

export const SHARDS = 16;

/** FNV-1a 32 over the key's characters: keys are ASCII, and whoever chooses them has signed the request. */
export function shardOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at++) {
    hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  }
  return (hash >>> 0) % SHARDS;
}

export function shardNames(): string[] {
  return Array.from({ length: SHARDS }, (_, at) => String(at));
}
