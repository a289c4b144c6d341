/**
 * The kernels: one WebAssembly instance with a fixed memory, into which a stream is copied a part at a time.
 *
 * Every job of an isolate shares the instance, since nothing waits while it runs: a plan carries its running values in
 * and out with each part. Nothing is allocated while a stream runs, and no 64-bit number becomes a BigInt before the
 * end.
 */

import { MAX_OPS, OPS } from "./names";
import { identityOf, type Op } from "./program";

/** What `wasm/kernels.c` exports. */
interface Exports {
  readonly memory: WebAssembly.Memory;
  input(): number;
  inputBytes(): number;
  steps(): number;
  simd(): number;
  fused(count: number, length: number): void;
}

/** `struct step`: the value in 64 bits, then the op and its immediate in 32 bits each. */
const STEP_BYTES = 16;

export class Kernels {
  /** How `GET /health` names them. */
  readonly name: "wasm" | "wasm-simd";
  readonly #exports: Exports;
  readonly #input: Uint8Array;
  /** The steps in the module's memory: `[n]` is a view of the first `n`. */
  readonly #inside: readonly Uint8Array[];

  /** `module` is `wasm/kernels.wasm` or `wasm/kernels-simd.wasm`, compiled in whichever way the platform allows. */
  constructor(module: WebAssembly.Module) {
    this.#exports = new WebAssembly.Instance(module, {}).exports as unknown as Exports;
    const memory = this.#exports.memory.buffer;
    const at = this.#exports.steps();
    this.#input = new Uint8Array(memory, this.#exports.input(), this.#exports.inputBytes());
    this.#inside = Array.from({ length: MAX_OPS + 1 }, (_, count) => new Uint8Array(memory, at, count * STEP_BYTES));
    this.name = this.#exports.simd() === 1 ? "wasm-simd" : "wasm";
  }

  /** Make `ops` ready to run over chunk after chunk, each from its identity or seed. */
  plan(ops: readonly Op[]): Plan {
    return new Plan(ops, (chunk, steps) => this.#run(chunk, steps));
  }

  /** The CRC-32C of bytes that follow those whose CRC is `value`. */
  crc32c(bytes: Uint8Array, value = 0): number {
    const steps = stepsOf([{ name: "crc32c", imm: null, seed: null }]);
    const view = new DataView(steps.buffer);
    view.setUint32(0, value, true);
    this.#run(bytes, steps);
    return view.getUint32(0, true);
  }

  #run(chunk: Uint8Array, steps: Uint8Array): void {
    const count = steps.length / STEP_BYTES;
    const inside = this.#inside[count]!;
    inside.set(steps);
    for (let at = 0; at < chunk.length; at += this.#input.length) {
      const part = at === 0 && chunk.length <= this.#input.length ? chunk : chunk.subarray(at, at + this.#input.length);
      this.#input.set(part);
      this.#exports.fused(count, part.length);
    }
    steps.set(inside);
  }
}

/** The running values of one job's operations. */
export class Plan {
  readonly #steps: Uint8Array<ArrayBuffer>;
  readonly #run: (chunk: Uint8Array, steps: Uint8Array) => void;

  constructor(ops: readonly Op[], run: (chunk: Uint8Array, steps: Uint8Array) => void) {
    this.#steps = stepsOf(ops);
    this.#run = run;
  }

  /** Take the next bytes. */
  run(chunk: Uint8Array): void {
    this.#run(chunk, this.#steps);
  }

  /** The values over all bytes so far, in the order of the ops. */
  values(): bigint[] {
    const view = new DataView(this.#steps.buffer);
    return Array.from({ length: this.#steps.length / STEP_BYTES }, (_, at) => view.getBigUint64(at * STEP_BYTES, true));
  }
}

function stepsOf(ops: readonly Op[]): Uint8Array<ArrayBuffer> {
  const steps = new Uint8Array(ops.length * STEP_BYTES);
  const view = new DataView(steps.buffer);
  for (const [at, op] of ops.entries()) {
    view.setBigUint64(at * STEP_BYTES, identityOf(op), true);
    view.setUint32(at * STEP_BYTES + 8, OPS.indexOf(op.name), true);
    view.setUint32(at * STEP_BYTES + 12, op.imm ?? 0, true);
  }
  return steps;
}
