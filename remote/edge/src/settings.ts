/** Settings of an endpoint: parsed once from the platform's variables into a typed object that never changes. */

import { parseNetwork, type Network } from "./addresses";
import { MAX_RANGE_BYTES } from "./names";
import type { SigningKey } from "./signature";
import { show } from "./validation";

/**
 * All settings, parsed. One object is one isolate's: its slots and imported keys are kept by the identity of this
 * object (`server.ts`), so a handler reads the settings once and not with every request.
 */
export interface Settings {
  /** The keys whose signatures are accepted; two live at once while one replaces the other. */
  readonly signingKeys: readonly SigningKey[];
  /** Whether anyone is served where there is no key. */
  readonly allowUnsigned: boolean;
  /** Networks that sources may be on although they are not public. */
  readonly allowPrivateSources: readonly Network[];
  /** Ports that sources may use besides 80, 443, 8080 and 8443. */
  readonly sourcePorts: readonly number[];
  /** Longest silence of a source, in milliseconds. */
  readonly stallTimeoutMs: number;
  /** Most bytes to read and throw away when a source ignores Range and the wanted ones lie further on. */
  readonly maxSkipBytes: number;
  /** Attempts at once in one isolate; past it, the answer is 429. */
  readonly maxConcurrency: number;
  /** Longest range that this place takes; past it, the answer is 413. */
  readonly maxRangeBytes: number;
  /** The region that answers name; `null` leaves it to the platform. */
  readonly region: string | null;
  /** Why nothing is served: a variable that cannot be used, or no key. A platform has no start-up that could fail. */
  readonly fault: ConfigurationFault | null;
}

export interface ConfigurationFault {
  readonly field: string;
  readonly message: string;
  readonly hint: string;
}

/** The platform's variables; whatever is no string (bindings, for one) is not looked at. */
export type Variables = Readonly<Record<string, unknown>>;

const KEYS = "PACKETFS_SIGNING_KEYS";
const SIGNING_KEY = /^([A-Za-z0-9_-]{1,64}):([\x21-\x2b\x2d-\x7e]{16,256})$/;
const FLAGS: Readonly<Record<string, boolean>> = { "1": true, true: true, "0": false, false: false };

const NONE: readonly never[] = [];

class Unusable extends Error {}

/** Return the settings in `variables`. What cannot be used is in `fault`: never thrown, and no secret is quoted. */
export function parseSettings(variables: Variables): Settings {
  const faults: ConfigurationFault[] = [];
  function read<T, F>(name: string, fallback: F, parse: (text: string) => T, secret = false): T | F {
    const raw = variables[name];
    const text = typeof raw === "string" ? raw.trim() : "";
    if (text === "") return fallback;
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      const message = secret ? `${name} is not a key` : `${name} is ${show(text)}`;
      faults.push({ field: name, message, hint: error.message });
      return fallback;
    }
  }
  const given = {
    signingKeys: read(KEYS, NONE, signingKeys, true),
    allowUnsigned: read("PACKETFS_ALLOW_UNSIGNED", false, flag),
    allowPrivateSources: read("PACKETFS_ALLOW_PRIVATE_SOURCES", NONE, (text) => listed(text).map(network)),
    sourcePorts: read("PACKETFS_SOURCE_PORTS", NONE, (text) => listed(text).map(count(1, 65535))),
    stallTimeoutMs: 1000 * read("PACKETFS_STALL_TIMEOUT_S", 30, seconds(0.1, 600)),
    maxSkipBytes: read("PACKETFS_MAX_SKIP_BYTES", 2 ** 24, count(0, 2 ** 40)),
    maxConcurrency: read("PACKETFS_MAX_CONCURRENCY", 16, count(1, 10_000)),
    maxRangeBytes: read("PACKETFS_MAX_RANGE_BYTES", MAX_RANGE_BYTES, count(1, MAX_RANGE_BYTES)),
    region: read("PACKETFS_REGION", null, region),
  };
  return { ...given, fault: faults[0] ?? (given.signingKeys.length === 0 && !given.allowUnsigned ? NO_KEY : null) };
}

const NO_KEY: ConfigurationFault = {
  field: KEYS,
  message: `${KEYS} is not set: anyone could have this endpoint compute`,
  hint: `set ${KEYS} to keyid:secret, or PACKETFS_ALLOW_UNSIGNED=1`,
};

function signingKeys(text: string): SigningKey[] {
  const keys = listed(text).map((item) => {
    const match = SIGNING_KEY.exec(item);
    if (match === null) {
      throw new Unusable("give each as keyid:secret, the secret of 16 to 256 visible characters, no comma");
    }
    return { id: match[1]!, secret: match[2]! };
  });
  if (new Set(keys.map((key) => key.id)).size < keys.length) {
    throw new Unusable("each key has an id of its own; two live at once while one replaces the other");
  }
  return keys;
}

function listed(text: string): string[] {
  return text.split(",").map((part) => part.trim()).filter((part) => part !== "");
}

function flag(text: string): boolean {
  const value = FLAGS[text.toLowerCase()];
  if (value === undefined) throw new Unusable("give 1 or 0, true or false");
  return value;
}

function network(text: string): Network {
  const found = parseNetwork(text);
  if (found === null) throw new Unusable("give networks in CIDR form, such as 127.0.0.0/8");
  return found;
}

function count(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(low <= value && value <= high)) throw new Unusable(`give an integer from ${low} to ${high}`);
    return value;
  };
}

function seconds(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,9}(?:\.[0-9]{1,9})?$/.test(text) ? Number(text) : Number.NaN;
    if (!(low <= value && value <= high)) throw new Unusable(`give a number of seconds from ${low} to ${high}`);
    return value;
  };
}

function region(text: string): string {
  if (!/^[\x20-\x7e]{1,64}$/.test(text)) throw new Unusable("give at most 64 visible characters");
  return text;
}
