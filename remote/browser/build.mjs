/**
 * Builds what pages load.
 *
 *     node build.mjs                   packetfs_compute/gateway/static/browser/<version>/, which is committed
 *     node build.mjs --output FOLDER   <version>/ in that folder
 *
 * The same sources give the same bytes. Each script holds the integrity (SRI) of the files that it loads, so that the
 * `integrity` of the one script tag in a page vouches for all of them.
 */

import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const WASM = join(HERE, "..", "edge", "wasm");
/** What the gateway serves; a Python package is installed where there is no node. */
const SERVED = join(HERE, "..", "..", "packetfs_compute", "gateway", "static", "browser");
const TYPES = {
  js: "text/javascript", mjs: "text/javascript", wasm: "application/wasm", html: "text/html", css: "text/css",
};

const COMMON = {
  absWorkingDir: HERE, bundle: true, platform: "browser", target: "es2022", minify: true, charset: "utf8",
  legalComments: "none", logLevel: "warning",
};

async function buildAll(output) {
  const names = await readFile(join(HERE, "..", "edge", "src", "names.ts"), "utf8");
  const version = /VERSION = "([^"]+)"/.exec(names)[1];
  const folder = join(output, version);
  const integrity = {};
  const seal = async (name) => {
    const hash = createHash("sha384").update(await readFile(join(folder, name))).digest("base64");
    integrity[name] = `sha384-${hash}`;
  };
  const script = async (name, entry, format, more = {}) => {
    const { define = {}, ...rest } = more;
    await build({
      ...COMMON, ...rest, format, entryPoints: [entry], outfile: join(folder, name),
      define: { PACKETFS_INTEGRITY: JSON.stringify(integrity), ...define },
    });
    await seal(name);
  };

  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const name of ["kernels.wasm", "kernels-simd.wasm"]) {
    await copyFile(join(WASM, name), join(folder, name));
    await seal(name);
  }
  await script("service-worker.js", "src/service-worker.ts", "iife");
  await script("worker.js", "src/worker.ts", "iife");
  const where = { "import.meta.url": "document.currentScript.src" };
  await script("packetfs.js", "src/index.ts", "iife", { globalName: "PacketFS", define: where });
  await script("packetfs.mjs", "src/index.ts", "esm");
  await script("lend.js", "page/lend.ts", "esm", { external: ["./packetfs.mjs"] });
  await build({ ...COMMON, entryPoints: ["page/lend.css"], outfile: join(folder, "lend.css") });
  await copyFile(join(HERE, "page", "lend.html"), join(folder, "lend.html"));
  for (const name of ["lend.html", "lend.css"]) await seal(name);
  await describe(folder, version, integrity);
}

/** Write manifest.json, and print the sizes. */
async function describe(folder, version, integrity) {
  const files = {};
  console.log(folder);
  for (const name of Object.keys(integrity).sort()) {
    const bytes = await readFile(join(folder, name));
    files[name] = { bytes: bytes.length, type: TYPES[name.split(".").at(-1)], integrity: integrity[name] };
    const gzipped = gzipSync(bytes, { level: 9 }).length;
    console.log(`${name.padEnd(20)} ${String(bytes.length).padStart(7)} bytes ${String(gzipped).padStart(6)} gzipped`);
  }
  await writeFile(join(folder, "manifest.json"), `${JSON.stringify({ version, files }, null, 2)}\n`);
}

const [kind, place] = process.argv.slice(2);
if (kind === undefined) await buildAll(SERVED);
else if (kind === "--output" && place !== undefined) await buildAll(resolve(place));
else {
  console.error("usage: node build.mjs [--output FOLDER]");
  process.exitCode = 2;
}
