/**
 * The TypeScript core in a node process: each line of standard input is a call, `[name, …arguments]` in JSON, each line
 * of standard output its result, `{"ok": …}` or `{"error": {…}}`. `tests/support/edge.py` bundles it and talks to it.
 */

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { parseIpv4, parseIpv6 } from "../../../remote/edge/src/addresses";
import { ERRORS, JobError } from "../../../remote/edge/src/errors";
import { execute } from "../../../remote/edge/src/executor";
import { checkUrl, isPublic } from "../../../remote/edge/src/guard";
import { Slots } from "../../../remote/edge/src/isolate";
import { Kernels } from "../../../remote/edge/src/kernels";
import * as names from "../../../remote/edge/src/names";
import { canonicalUrl } from "../../../remote/edge/src/presigned";
import { parseOp } from "../../../remote/edge/src/program";
import { decide, fieldsOf, firstAsk } from "../../../remote/edge/src/ranges";
import { serve } from "../../../remote/edge/src/server";
import { parseSettings } from "../../../remote/edge/src/settings";
import { MemoryReplayGuard, Verifier } from "../../../remote/edge/src/signature";
import { parseRequest, requestToWire } from "../../../remote/edge/src/wire";

const [folder] = process.argv.slice(2);
const modules = {};
for (const name of ["kernels", "kernels-simd"]) {
  modules[name] = new Kernels(await WebAssembly.compile(await readFile(`${folder}/${name}.wasm`)));
}

const bytesOf = (text) => new Uint8Array(Buffer.from(text, "base64"));
const textOf = (_, item) => (typeof item === "bigint" ? String(item) : item);
const plain = (value) => JSON.parse(JSON.stringify(value, textOf));

/** A cache in memory, whose entries and faults the tests can see and set. */
class TestBlocks {
  entries = new Map();
  asked = [];
  fault = null;

  constructor(blockBytes) {
    this.blockBytes = blockBytes;
  }

  async get(key) {
    this.asked.push(key.index);
    await this.#misbehave();
    return this.entries.get(JSON.stringify(key))?.slice() ?? null; // the core frees what it was given
  }

  async put(key, bytes) {
    await this.#misbehave();
    this.entries.set(JSON.stringify(key), bytes.slice());
  }

  async #misbehave() {
    if (this.fault === "throws") throw new Error("the cache is gone");
    if (this.fault === "hangs") await new Promise(() => {});
  }
}

/** A coordinator that does as its name says. */
const coordinators = {
  direct: () => ({ run: (_, compute) => compute() }),
  broken: () => ({ run: () => Promise.reject(new Error("the object is gone")) }),
  late: () => ({ run: async (_, compute) => (await compute(), Promise.reject(new Error("it was reset"))) }),
};

const state = { platform: null, blocks: null, verifier: null, replays: null, deferred: [] };

/** With `again` the isolate is a new one and the cache the same. */
function platformOf(options) {
  const { variables = {}, blockBytes = null, now = null, coordinator = null, again = false } = options;
  if (!again) state.blocks = blockBytes === null ? null : new TestBlocks(blockBytes);
  return {
    settings: parseSettings(variables),
    kernels: modules[options.kernels ?? "kernels-simd"],
    region: "here",
    replays: new MemoryReplayGuard(),
    blocks: state.blocks,
    coordinator: coordinator === null ? null : coordinators[coordinator](),
    now: () => now ?? Date.now(),
    fetch: (url, init) => fetch(url, init),
    memoryUsedMb: () => null,
    defer: (work) => state.deferred.push(work.catch(() => undefined)),
  };
}

const calls = {
  names: () => {
    const [imm, seed] = [names.OPS_WITH_IMM, names.OPS_WITH_SEED].map((set) => [...set].sort());
    return { ...names, OPS_WITH_IMM: imm, OPS_WITH_SEED: seed };
  },
  errors: () => ERRORS,
  parse: (raw) => requestToWire(parseRequest(raw)),
  url: (url, variables) => checkUrl(url, parseSettings(variables)),
  address: (text) => {
    const found = parseIpv4(text) ?? parseIpv6(text);
    return found && { ...found, public: isPublic(found) };
  },
  settings: (variables) => parseSettings(variables),
  canonical: canonicalUrl,
  /** Take from `all` slots, let the first `lost` of them run out of time unreturned, and take again. */
  slots: (all, wanted, lost) => {
    const slots = new Slots(all);
    const first = slots.take(wanted);
    for (const slot of first) Slots.begin(slot, 60_000);
    for (const slot of first.slice(0, lost)) slot.untilMs = performance.now() - 1;
    return [first.length, slots.take(wanted).length];
  },
  fields: (request, ask) => ({ first: firstAsk(request), fields: fieldsOf(ask ?? firstAsk(request), request) }),
  decide: (status, fields, ask, request, maxSkip, nowMs) =>
    decide({ status, fields: new Headers(fields) }, ask, request, maxSkip, nowMs),
  kernels: (name, ops, chunks) => {
    const plan = modules[name].plan(ops.map((op, at) => parseOp(op, `ops[${at}]`)));
    for (const chunk of chunks) plan.run(bytesOf(chunk));
    return plan.values();
  },
  verifier: (keys, limit, nowS) => {
    state.verifier = new Verifier(keys);
    state.nowS = nowS;
    state.replays = new MemoryReplayGuard(limit, () => state.nowS);
  },
  verify: (method, path, body, header, nowS) => {
    state.nowS = nowS;
    return state.verifier.verify({ method, path, body: bytesOf(body) }, header, nowS, state.replays);
  },
  platform: (options) => {
    state.platform = platformOf(options);
    return { name: state.platform.kernels.name, settings: state.platform.settings };
  },
  execute: async (request) => {
    const answer = await execute(request, state.platform);
    const patience = new Promise((resolve) => setTimeout(resolve, 500));
    await Promise.race([Promise.all(state.deferred.splice(0)), patience]);
    return answer;
  },
  /** Several requests at once. */
  together: (requests) => Promise.all(requests.map((request) => execute(request, state.platform))),
  serve: async (method, path, headers, body) => {
    const init = { method, headers, body: body === null ? undefined : bytesOf(body) };
    const response = await serve(state.platform, new Request(`http://endpoint.example${path}`, init));
    return { status: response.status, headers: Object.fromEntries(response.headers), text: await response.text() };
  },
  asked: () => state.blocks.asked.splice(0),
  kept: () => [...state.blocks.entries.keys()].map((key) => JSON.parse(key)),
  fault: (fault) => void (state.blocks.fault = fault),
  /** Change what is kept: `index` of which block, `how` it is damaged. */
  damage: (index, how) => {
    for (const [key, bytes] of state.blocks.entries) {
      if (JSON.parse(key).index !== index) continue;
      if (how === "removed") state.blocks.entries.delete(key);
      else if (how === "cut") state.blocks.entries.set(key, bytes.slice(0, -1));
      else if (how === "empty") state.blocks.entries.set(key, new Uint8Array());
      else if (how === "text") state.blocks.entries.set(key, "bytes");
      else if (how.startsWith("moved:")) {
        const from = [...state.blocks.entries].find(([other]) => JSON.parse(other).index === Number(how.slice(6)));
        state.blocks.entries.set(key, from[1]);
      } else if (Number(how) < bytes.length) bytes[Number(how)] ^= 1;
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...given] = JSON.parse(line);
  let result;
  try {
    result = { ok: plain((await calls[name](...given)) ?? null) };
  } catch (error) {
    if (!(error instanceof JobError)) throw error;
    const { type, message, status, retryable, details } = error;
    result = { error: { type, message, status, retryable, details } };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
