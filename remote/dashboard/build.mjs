/**
 * Builds the page that the gateway serves.
 *
 *     node build.mjs                   packetfs_compute/gateway/static/dashboard/, which is committed
 *     node build.mjs --output FOLDER   the same, elsewhere
 *
 * The same sources give the same bytes: a test builds them anew and compares.
 */

import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const UPLOT = join(HERE, "..", "node_modules", "uplot");
const SERVED = join(HERE, "..", "..", "packetfs_compute", "gateway", "static", "dashboard");

async function buildAll(output) {
  const { version } = JSON.parse(await readFile(join(UPLOT, "package.json"), "utf8"));
  const notice = `/*! Holds uPlot ${version}, (c) Leon Sorokin, MIT License: its text is in uplot.LICENSE.txt. */`;
  await rm(output, { recursive: true, force: true });
  await mkdir(output, { recursive: true });
  await build({
    absWorkingDir: HERE, bundle: true, platform: "browser", target: "es2022", format: "esm", minify: true, charset: "utf8",
    legalComments: "none", logLevel: "warning", banner: { js: notice, css: notice }, outdir: output,
    entryPoints: [{ in: "src/main.ts", out: "dashboard" }, { in: "style.css", out: "dashboard" }],
  });
  await copyFile(join(HERE, "index.html"), join(output, "index.html"));
  await copyFile(join(HERE, "icon.svg"), join(output, "icon.svg"));
  await copyFile(join(UPLOT, "LICENSE"), join(output, "uplot.LICENSE.txt"));
}

const [kind, place] = process.argv.slice(2);
if (kind === undefined) await buildAll(SERVED);
else if (kind === "--output" && place !== undefined) await buildAll(resolve(place));
else {
  console.error("usage: node build.mjs [--output FOLDER]");
  process.exitCode = 2;
}
