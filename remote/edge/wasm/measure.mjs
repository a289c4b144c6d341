/** Prints what each op reads in MB/s, portable and with SIMD, interleaved in one process, best of seven. */

import { readFile } from "node:fs/promises";

const OPS = ["counteq", "crc32c", "fnv64", "xor", "add"];
const ROUNDS = 7;
const BYTES_PER_ROUND = 1 << 28;

async function load(name) {
  const module = await WebAssembly.compile(await readFile(new URL(name, import.meta.url)));
  const { exports } = await WebAssembly.instantiate(module);
  const size = exports.inputBytes();
  const input = new Uint8Array(exports.memory.buffer, exports.input(), size);
  crypto.getRandomValues(input.subarray(0, 65536));
  for (let at = 65536; at < size; at += 65536) input.copyWithin(at, 0, 65536);
  return { ...exports, size, steps: new DataView(exports.memory.buffer, exports.steps()) };
}

function megabytesPerSecond(module, ops) {
  ops.forEach((op, at) => module.steps.setUint32(16 * at + 8, op, true));
  const started = performance.now();
  for (let done = 0; done < BYTES_PER_ROUND; done += module.size) module.fused(ops.length, module.size);
  return BYTES_PER_ROUND / 1e3 / (performance.now() - started);
}

const modules = { portable: await load("kernels.wasm"), simd: await load("kernels-simd.wasm") };
const rows = [...OPS.map((name, op) => [name, [op]]), ["all five", OPS.map((_, op) => op)]];
for (const [name, ops] of rows) {
  const best = { portable: 0, simd: 0 };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const kind of Object.keys(modules)) best[kind] = Math.max(best[kind], megabytesPerSecond(modules[kind], ops));
  }
  const ratio = (best.simd / best.portable).toFixed(2);
  const [portable, simd] = [best.portable, best.simd].map((rate) => rate.toFixed(0).padStart(6));
  console.log(`${name.padEnd(9)} portable ${portable}  simd ${simd}  x${ratio}`);
}
