/**
 * The address guard, as far as text goes: which URLs a source may have.
 *
 * It is rules 1, 3 and 4 of `packetfs_compute/sources/guard.py`: a URL is checked as text before anything parses it, so
 * that no two parsers can read it differently; an address must be globally reachable (RFC 6890) or lie in a network
 * that `PACKETFS_ALLOW_PRIVATE_SOURCES` opens; a name must be a public one, the port one of a few.
 *
 * **Names are not resolved here: Web APIs cannot.** That a public name does not lead inside a network is the platform's
 * to see to (`global_fetch_strictly_public` on Cloudflare, `allow = ["public"]` in workerd; Vercel's edge has no
 * inside). So what Python leaves to the addresses behind a name is refused here: a private name or a strange port is
 * open only as an address in an opened network, or as `localhost` (RFC 6761, section 6.3) where that network is the
 * loopback.
 */

import { parseIpv4, parseIpv6, parseNetwork, within, type Address, type Network } from "./addresses";
import { JobError } from "./errors";
import { MAX_URL_CHARS } from "./names";
import type { Settings } from "./settings";
import { bad, characters, show } from "./validation";

/** A URL that passed: `host` is in lower case, without brackets or the root's dot. */
export interface Target {
  readonly url: string;
  readonly scheme: "http" | "https";
  readonly host: string;
  readonly port: number;
}

const FIELD = "program.data_url";
const DEFAULT_PORTS = { http: 80, https: 443 } as const;
const PORTS: ReadonlySet<number> = new Set([80, 443, 8080, 8443]);
const HINT = "PACKETFS_ALLOW_PRIVATE_SOURCES opens networks, PACKETFS_SOURCE_PORTS opens ports of public addresses";

/** Names that mean something only inside a network: RFC 6761, 6762, 7686, 8375, 9476, and what platforms use. */
const PRIVATE_SUFFIXES: ReadonlySet<string> = new Set([
  "alt", "cluster", "corp", "flycast", "home", "home.arpa", "internal", "intranet", "invalid", "lan", "local",
  "localdomain", "localhost", "onion", "private", "svc", "test",
]);

/** The IANA special-purpose registry and what else is not public; guard.py says what each is. A test compares. */
const CLOSED_V4 = networks(
  "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
  "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
  "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
);
const OPEN_V6 = networks("2000::/3");
const CLOSED_V6 = networks("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20");
const LOOPBACK = networks("127.0.0.0/8", "::1/128");

const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]*):/;
const ALIEN = /[^\x21-\x5b\x5d-\x7e]/u;
const URL_PARTS = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]*)([^#]*)(?:#.*)?$/s;
const HOST_PORT = /^(\[[^[\]]*\]|[^:[\]]*)(?::([0-9]*))?$/;
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** Like WHATWG's "ends in a number": resolvers read 0x7f.1, 127.1, 017700000001 and 2130706433 as addresses. */
const NUMBER = /^(?:[0-9]+|0x[0-9a-f]*)$/;

/** Whether `address` is globally reachable unicast. */
export function isPublic(address: Address): boolean {
  const inside = (network: Network): boolean => within(address, network);
  return address.version === 4 ? !CLOSED_V4.some(inside) : OPEN_V6.some(inside) && !CLOSED_V6.some(inside);
}

/** Return the target of `url`; throw `bad_program` for text that is no URL, `forbidden_source` for a closed place. */
export function checkUrl(url: string, settings: Settings): Target {
  const length = characters(url);
  if (length > MAX_URL_CHARS) throw bad(FIELD, `has ${length} characters`, `use at most ${MAX_URL_CHARS}`);
  const alien = ALIEN.exec(url);
  if (alien !== null) {
    throw bad(FIELD, `holds ${show(alien[0])}`, "percent-encode it (RFC 3986, section 2); write a name in punycode");
  }
  const scheme = SCHEME.exec(url)?.[1]?.toLowerCase();
  if (scheme === undefined) throw bad(FIELD, `is ${show(url)}`, "begin it with a scheme, such as https://");
  if (scheme !== "http" && scheme !== "https") throw otherScheme(scheme);
  const parts = URL_PARTS.exec(url);
  if (parts === null) throw bad(FIELD, `is ${show(url)}`, `write ${scheme}://host/path`);
  const { host, port } = splitAuthority(parts[1]!, scheme);
  const found = readHost(host);
  checkPlace(found, host, port, settings);
  return { url, scheme, host: found.name, port };
}

interface Host {
  readonly name: string;
  readonly address: Address | null;
  /** Why the name is no public one, or `null`. */
  readonly reserve: string | null;
}

function checkPlace(found: Host, host: string, port: number, settings: Settings): void {
  const { allowPrivateSources: opened } = settings;
  if (found.address !== null) {
    const { address } = found;
    if (opened.some((network) => within(address, network))) return;
    if (!isPublic(address)) throw forbidden(`${host} is not a public address`);
  } else if (isLocalhost(found.name) && opened.some((network) => LOOPBACK.some((loop) => covers(network, loop)))) {
    return;
  }
  if (found.reserve !== null) throw forbidden(found.reserve);
  if (!PORTS.has(port) && !settings.sourcePorts.includes(port)) throw forbidden(`port ${port} is not open to sources`);
}

function splitAuthority(authority: string, scheme: "http" | "https"): { host: string; port: number } {
  if (authority.includes("@")) {
    throw bad(FIELD, "holds a user name", "leave out what stands before the @; pass secrets in a presigned URL");
  }
  if (authority.includes("%")) throw bad(FIELD, "holds a % in its host", "write the host plainly");
  const match = HOST_PORT.exec(authority);
  const host = match?.[1];
  if (!match || !host) {
    throw bad(FIELD, `has the host ${show(authority)}`, "write a name, a dotted quad or [an IPv6 address]");
  }
  const port = match[2];
  if (port === undefined) return { host, port: DEFAULT_PORTS[scheme] };
  if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65535) {
    throw bad(FIELD, `has the port ${show(port)}`, "give a number from 1 to 65535");
  }
  return { host, port: Number(port) };
}

function readHost(host: string): Host {
  if (host.startsWith("[")) {
    const address = parseIpv6(host.slice(1, -1));
    if (address === null) throw bad(FIELD, `has the host ${show(host)}`, "write an IPv6 address in the brackets");
    return { name: host.slice(1, -1).toLowerCase(), address, reserve: null };
  }
  const name = host.toLowerCase().replace(/\.$/, "");
  const labels = name.split(".");
  const last = labels.at(-1)!;
  if (NUMBER.test(last)) {
    const address = parseIpv4(host);
    if (address === null) throw forbidden(`${show(host)} is an IPv4 address in disguise`, "write it as a dotted quad");
    return { name, address, reserve: null };
  }
  if (name.length > 253 || !labels.every((label) => LABEL.test(label))) {
    throw bad(FIELD, `has the host ${show(host)}`, "write a host name of letters, digits, hyphens and dots");
  }
  if (labels.length === 1) return { name, address: null, reserve: `${show(name)} is not a public name: it has no dot` };
  const isPrivate = PRIVATE_SUFFIXES.has(last) || PRIVATE_SUFFIXES.has(labels.slice(-2).join("."));
  return { name, address: null, reserve: isPrivate ? `${show(name)} is not a public name` : null };
}

function isLocalhost(name: string): boolean {
  return name === "localhost" || name.endsWith(".localhost");
}

function covers(outer: Network, inner: Network): boolean {
  return outer.prefix <= inner.prefix && within(inner.base, outer);
}

function networks(...texts: readonly string[]): readonly Network[] {
  return texts.map((text) => parseNetwork(text)!);
}

function otherScheme(scheme: string): JobError {
  return scheme === "s3"
    ? forbidden("s3:// must be presigned where jobs are dispatched", "dispatchers do it: sources.presign")
    : forbidden(`the scheme ${show(scheme)} is not open to sources`, "use https:// or http://");
}

function forbidden(message: string, hint: string = HINT): JobError {
  return new JobError("forbidden_source", message, { field: FIELD, hint });
}
