/**
 * What is to be computed: a byte range of one object, and the operations to run over it.
 *
 * `parseProgram` turns untrusted JSON into a `Program` or throws `bad_program`, naming the field and the fix. It takes
 * exactly what `packetfs_compute/program.py` takes, in the same order, so that both name the same field. An unknown
 * field is refused: a misspelt `lenght` that is ignored would give the checksum of other bytes than the caller meant.
 */

import {
  FNV64_OFFSET,
  MAX_ETAG_CHARS,
  MAX_INTEGER,
  MAX_OPS,
  MAX_RANGE_BYTES,
  MAX_URL_CHARS,
  OPS,
  OPS_WITH_IMM,
  OPS_WITH_SEED,
  type OpName,
} from "./names";
import { bad, characters, integer, requireObject, show, STRONG_ETAG } from "./validation";

/** One operation: its name, its immediate where it takes one, and for `fnv64` the running value to start from. */
export interface Op {
  readonly name: OpName;
  readonly imm: number | null;
  readonly seed: bigint | null;
}

/** The range `[offset, offset + length)` in bytes; `length` `null` is to the object's end. `etag` pins the version. */
export interface Program {
  readonly dataUrl: string;
  readonly ops: readonly Op[];
  readonly offset: number;
  readonly length: number | null;
  readonly etag: string | null;
}

/** One entry of an answer's `results`: 16 hex digits for `fnv64`, an integer for every other. */
export interface OpResult {
  op: OpName;
  imm?: number;
  value: number | string;
}

const OP_FIELDS = ["op", "imm", "seed"] as const;
const PROGRAM_FIELDS = ["data_url", "offset", "length", "ops", "op", "imm", "seed", "etag"] as const;

/** The op's value over no bytes at all; for `fnv64` the seed. */
export function identityOf(op: Op): bigint {
  return op.name === "fnv64" ? (op.seed ?? FNV64_OFFSET) : 0n;
}

/** The op's entry in an answer. Every value but that of `fnv64` is below 2**53: see `MAX_RANGE_BYTES`. */
export function renderOp(op: Op, value: bigint): OpResult {
  const result: OpResult = { op: op.name, value: op.name === "fnv64" ? hex64(value) : Number(value) };
  return op.imm === null ? result : { op: op.name, imm: op.imm, value: result.value };
}

/** The program as it stands in a request: equal programs give equal objects, with their keys in the same order. */
export function programToWire(program: Program): Record<string, unknown> {
  return {
    data_url: program.dataUrl,
    offset: program.offset,
    ops: program.ops.map((op) => ({
      op: op.name,
      ...(op.imm === null ? {} : { imm: op.imm }),
      ...(op.seed === null ? {} : { seed: hex64(op.seed) }),
    })),
    ...(program.length === null ? {} : { length: program.length }),
    ...(program.etag === null ? {} : { etag: program.etag }),
  };
}

export function parseProgram(raw: unknown): Program {
  const fields = requireObject(raw, "program", PROGRAM_FIELDS);
  const offset = absent(fields["offset"]) ? 0 : integer(fields["offset"], "program.offset", 0, MAX_INTEGER);
  const length = absent(fields["length"]) ? null : integer(fields["length"], "program.length", 0, MAX_RANGE_BYTES);
  const dataUrl = parseUrl(fields["data_url"]);
  const ops = parseOps(fields);
  return { dataUrl, ops, offset, length, etag: parseEtag(fields["etag"]) };
}

/** Return the operation in `raw`, `{"op", "imm"?, "seed"?}`; `field` is its name in errors. */
export function parseOp(raw: unknown, field: string): Op {
  const fields = requireObject(raw, field, OP_FIELDS);
  const name = OPS.find((op) => op === fields["op"]);
  if (name === undefined) throw bad(`${field}.op`, `is ${show(fields["op"])}`, `use one of ${OPS.join(", ")}`);
  return { name, imm: parseImm(fields["imm"], name, field), seed: parseSeed(fields["seed"], name, field) };
}

function parseImm(raw: unknown, name: OpName, field: string): number | null {
  if (OPS_WITH_IMM.has(name)) {
    if (absent(raw)) throw bad(`${field}.imm`, `is missing, and ${name} needs it`, "give an integer from 0 to 255");
    return integer(raw, `${field}.imm`, 0, 255);
  }
  if (!absent(raw)) throw bad(`${field}.imm`, `is given, but ${name} takes none`, "leave it out");
  return null;
}

function parseSeed(raw: unknown, name: OpName, field: string): bigint | null {
  if (absent(raw)) return null;
  if (!OPS_WITH_SEED.has(name)) throw bad(`${field}.seed`, `is given, but ${name} takes none`, "leave it out");
  if (typeof raw !== "string" || !/^[0-9a-f]{16}$/.test(raw)) {
    throw bad(`${field}.seed`, `is ${show(raw)}`, "give 16 lowercase hexadecimal digits");
  }
  return BigInt(`0x${raw}`);
}

function parseUrl(raw: unknown): string {
  if (typeof raw !== "string" || raw === "") {
    throw bad("program.data_url", `is ${show(raw)}`, "give the object's URL as a string");
  }
  const length = characters(raw);
  if (length > MAX_URL_CHARS) throw bad("program.data_url", `has ${length} characters`, `use at most ${MAX_URL_CHARS}`);
  return raw;
}

function parseEtag(raw: unknown): string | null {
  if (absent(raw)) return null;
  const fix = 'give a strong entity tag in its quotes, such as "\\"abc\\""';
  if (typeof raw === "string" && raw.startsWith("W/")) {
    throw bad("program.etag", `is weak (${show(raw)}) and cannot pin bytes`, fix);
  }
  if (typeof raw !== "string" || raw.length > MAX_ETAG_CHARS || !STRONG_ETAG.test(raw)) {
    throw bad("program.etag", `is ${show(raw)}`, fix);
  }
  return raw;
}

function parseOps(fields: Readonly<Record<string, unknown>>): readonly Op[] {
  const ops = fields["ops"];
  if (absent(ops)) {
    if (absent(fields["op"])) {
      throw bad("program.ops", "is missing", "give a list of operations, or one in program.op");
    }
    return [parseOp({ op: fields["op"], imm: fields["imm"], seed: fields["seed"] }, "program")];
  }
  const beside = OP_FIELDS.toSorted().find((key) => !absent(fields[key]));
  if (beside !== undefined) {
    throw bad(`program.${beside}`, "stands beside program.ops", "put it into the list, or leave the list out");
  }
  if (!Array.isArray(ops) || ops.length < 1 || ops.length > MAX_OPS) {
    throw bad("program.ops", `is ${show(ops)}`, `give a list of 1 to ${MAX_OPS} operations`);
  }
  return ops.map((op, at) => parseOp(op, `program.ops[${at}]`));
}

/** Where an optional field is `null` it is absent. */
function absent(raw: unknown): raw is null | undefined {
  return raw === null || raw === undefined;
}

function hex64(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}
