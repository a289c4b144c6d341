/**
 * Builds the function.
 *
 *     node build.mjs                   .vercel/output, as `vercel deploy --prebuilt` takes it (Build Output API 3)
 *     node build.mjs --output FOLDER   the same, elsewhere
 *     node build.mjs --local FILE      one script for npm's `edge-runtime`
 *
 * The Edge runtime compiles no WebAssembly while it runs: there the module is a file beside the script, imported. npm's
 * `edge-runtime` imports nothing, but does compile: there its bytes are in the script. That one has no environment
 * either, so the PACKETFS_* variables of the build, secrets included, are in the script too: it is for this machine
 * alone.
 */

import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const WASM = join(HERE, "..", "edge", "wasm", "kernels-simd.wasm");
/** The function may read no variable that is not named here. */
const VARIABLES = [
  "PACKETFS_SIGNING_KEYS", "PACKETFS_ALLOW_UNSIGNED", "PACKETFS_ALLOW_PRIVATE_SOURCES", "PACKETFS_SOURCE_PORTS",
  "PACKETFS_STALL_TIMEOUT_S", "PACKETFS_MAX_SKIP_BYTES", "PACKETFS_MAX_CONCURRENCY", "PACKETFS_MAX_RANGE_BYTES",
  "PACKETFS_REGION", "VERCEL_REGION",
];

const COMMON = { bundle: true, platform: "neutral", target: "es2022", legalComments: "none", logLevel: "warning" };

/** Leaves the module a file beside the script. */
const imported = {
  name: "wasm-imported",
  setup({ onResolve }) {
    onResolve({ filter: /\.wasm\?module$/ }, ({ path }) => ({
      path: `./${basename(path).replace("?module", "")}`,
      external: true,
    }));
  },
};

/** Puts the module's bytes into the script. */
const inlined = {
  name: "wasm-inlined",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\.wasm\?module$/ }, ({ path, resolveDir }) => ({
      path: resolve(resolveDir, path.replace("?module", "")),
      namespace: "wasm",
    }));
    onLoad({ filter: /.*/, namespace: "wasm" }, async ({ path }) => {
      const text = (await readFile(path)).toString("base64");
      const bytes = `Uint8Array.from(atob("${text}"), (char) => char.charCodeAt(0))`;
      return { contents: `export default new WebAssembly.Module(${bytes});` };
    });
  },
};

async function buildOutput(output) {
  const folder = join(output, "functions", "index.func");
  await rm(output, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await build({
    ...COMMON,
    entryPoints: [join(HERE, "src", "handler.ts")],
    outfile: join(folder, "index.js"),
    format: "esm",
    plugins: [imported],
  });
  await copyFile(WASM, join(folder, basename(WASM)));
  const config = { runtime: "edge", deploymentTarget: "v8-worker", entrypoint: "index.js", envVarsInUse: VARIABLES };
  await writeFile(join(folder, ".vc-config.json"), JSON.stringify(config));
  // Every path is the function's: what it does not serve, it answers itself.
  const routing = { version: 3, routes: [{ src: "/.*", dest: "/index" }] };
  await writeFile(join(output, "config.json"), JSON.stringify(routing));
}

async function buildLocal(file) {
  const environment = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name] ?? ""]));
  await build({
    ...COMMON,
    entryPoints: [join(HERE, "src", "local.ts")],
    outfile: file,
    format: "iife",
    plugins: [inlined],
    define: { "process.env": JSON.stringify(environment) },
  });
}

const [kind, place] = process.argv.slice(2);
if (kind === undefined) await buildOutput(join(HERE, ".vercel", "output"));
else if (kind === "--output" && place !== undefined) await buildOutput(resolve(place));
else if (kind === "--local" && place !== undefined) await buildLocal(resolve(place));
else {
  console.error("usage: node build.mjs [--output FOLDER | --local FILE]");
  process.exitCode = 2;
}
