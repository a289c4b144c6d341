/** The vocabulary that another program may see: as in `packetfs_compute/names.py`, with which a test compares it. */

/** The version of this code: that of the Python package beside it. */
export const VERSION = "0.1.0";

/** Version of the wire between dispatcher and substrate (`remote/contract/`). */
export const PROTOCOL = 1;

export const OPS = ["counteq", "crc32c", "fnv64", "xor", "add"] as const;
export type OpName = (typeof OPS)[number];
export const OPS_WITH_IMM: ReadonlySet<string> = new Set<OpName>(["counteq", "xor", "add"]);
export const OPS_WITH_SEED: ReadonlySet<string> = new Set<OpName>(["fnv64"]);

/** The FNV-1a 64 offset basis: the hash of no bytes at all. */
export const FNV64_OFFSET = 0xcbf29ce484222325n;

/** Largest offset or length: the largest integer that every JSON reader holds exactly (RFC 8259, section 6). */
export const MAX_INTEGER = 2 ** 53 - 1;

/** Longest range of one program: 255 * 2**45 < 2**53, so that even `add` stays exact as a JSON number. */
export const MAX_RANGE_BYTES = 2 ** 45;

/** Most operations in one program. */
export const MAX_OPS = 16;

export const MAX_URL_CHARS = 2048;
export const MAX_ETAG_CHARS = 1024;
export const MAX_JOB_ID_CHARS = 128;

export const DEFAULT_TIMEOUT_MS = 30_000;
export const MAX_TIMEOUT_MS = 3_600_000;
