/**
 * IP addresses and networks as text and as numbers, read as strictly as Python's `ipaddress` reads them: IPv4 only as a
 * dotted quad without leading zeros, IPv6 by RFC 4291, section 2.2, without a zone.
 */

export interface Address {
  readonly version: 4 | 6;
  readonly value: bigint;
}

/** All addresses whose first `prefix` bits are those of `base`. */
export interface Network {
  readonly base: Address;
  readonly prefix: number;
}

const OCTET = /^(?:0|[1-9][0-9]{0,2})$/;
const HEXTET = /^[0-9a-f]{1,4}$/i;

export function parseIpv4(text: string): Address | null {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => OCTET.test(part) && Number(part) <= 255)) return null;
  return { version: 4, value: parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n) };
}

export function parseIpv6(text: string): Address | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const groups = halves.map((half, at) => groupsOf(half, at === halves.length - 1));
  const [head, tail] = groups;
  if (head === undefined || head === null || tail === null) return null;
  // "::" stands for one group of zeros at least.
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const all = tail === undefined ? head : [...head, ...Array<bigint>(missing).fill(0n), ...tail];
  return { version: 6, value: all.reduce((value, group) => (value << 16n) | group, 0n) };
}

/** Return the 16-bit groups of one side of "::"; only the very last one may be a dotted quad. */
function groupsOf(text: string, last: boolean): bigint[] | null {
  if (text === "") return [];
  const parts = text.split(":");
  const groups: bigint[] = [];
  for (const [at, part] of parts.entries()) {
    const quad = last && at === parts.length - 1 && part.includes(".") ? parseIpv4(part) : null;
    if (quad !== null) groups.push(quad.value >> 16n, quad.value & 0xffffn);
    else if (HEXTET.test(part)) groups.push(BigInt(`0x${part}`));
    else return null;
  }
  return groups;
}

/** Return the network in CIDR form, such as `127.0.0.0/8`; no bit may be set after its prefix. */
export function parseNetwork(text: string): Network | null {
  const match = /^([^/]+)(?:\/([0-9]{1,3}))?$/.exec(text);
  const base = match && (parseIpv4(match[1]!) ?? parseIpv6(match[1]!));
  if (!base) return null;
  const bits = bitsOf(base);
  const prefix = match[2] === undefined ? bits : Number(match[2]);
  if (prefix > bits || base.value !== masked(base, prefix)) return null;
  return { base, prefix };
}

export function within(address: Address, network: Network): boolean {
  return address.version === network.base.version && masked(address, network.prefix) === network.base.value;
}

function masked(address: Address, prefix: number): bigint {
  const rest = BigInt(bitsOf(address) - prefix);
  return (address.value >> rest) << rest;
}

function bitsOf(address: Address): number {
  return address.version === 4 ? 32 : 128;
}
