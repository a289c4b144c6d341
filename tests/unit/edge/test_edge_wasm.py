"""The committed WebAssembly is what its sources give, needs nothing of its host, and cannot grow."""

import os
import subprocess
from pathlib import Path

import pytest
from support.edge import REMOTE, ROOT, WASM, need_node

pytestmark = pytest.mark.integration

TOOLS = ROOT / ".tools" / "bin" / "python"
MODULES = ["kernels.wasm", "kernels-simd.wasm"]

DESCRIBE = """
const module = await WebAssembly.compile(await (await import("node:fs/promises")).readFile(process.argv[1]));
const { exports } = await WebAssembly.instantiate(module);
const grown = (() => { try { exports.memory.grow(1); return true; } catch { return false; } })();
console.log(JSON.stringify([WebAssembly.Module.imports(module), Object.keys(exports).sort(), grown]));
"""

# fnv64 (op 2) of the same bytes in both modules: every length past two chunks of 1 KiB, and past blocks of 16 KiB.
COMPARE_FNV64 = """
const { readFile } = await import("node:fs/promises");
const modules = await Promise.all(process.argv.slice(1).map(async (path) => {
  const { exports } = await WebAssembly.instantiate(await WebAssembly.compile(await readFile(path)));
  const { buffer } = exports.memory;
  return { exports, input: new Uint8Array(buffer, exports.input()), step: new DataView(buffer, exports.steps()) };
}));
const lengths = [...Array(2200).keys(), 16384, 16385, 33000, 100000, modules[0].exports.inputBytes()];
const fills = [(i) => (Math.imul(i, 2654435761) + (i >> 9)) >>> 13, () => 0x00, () => 0xff, () => 0xb3];
let compared = 0;
for (const fill of fills) {
  for (const { input } of modules) for (let i = 0; i < 1 << 18; i += 1) input[i] = fill(i);
  for (const length of lengths) {
    const [plain, simd] = modules.map(({ exports, step }) => {
      step.setBigUint64(0, BigInt(length + 1) * 0x9e3779b97f4a7c15n, true);
      step.setUint32(8, 2, true);
      exports.fused(1, length);
      return step.getBigUint64(0, true);
    });
    if (plain !== simd) throw new Error(`${length} bytes of ${fill}: ${simd}, not ${plain}`);
    compared += 1;
  }
}
console.log(compared);
"""


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not TOOLS.exists():
        reason = "zig is not installed: make types"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("wasm")
    done = subprocess.run(
        [str(TOOLS), str(WASM / "build.py"), str(folder)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_it_is_what_its_sources_give(rebuilt: Path, name: str) -> None:
    assert (rebuilt / name).read_bytes() == (WASM / name).read_bytes(), "run remote/edge/wasm/build.py"


@pytest.mark.parametrize("name", MODULES)
def test_it_imports_nothing_and_cannot_grow(name: str) -> None:
    node = need_node()
    done = subprocess.run(
        [node, "--input-type=module", "--eval", DESCRIBE, str(WASM / name)], cwd=REMOTE, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    exports = '["fused","input","inputBytes","memory","simd","steps"]'
    assert (done.stdout.strip(), done.stderr) == (f"[[],{exports},false]", "")


def test_fnv64_with_simd_is_fnv64_without() -> None:
    done = subprocess.run(
        [need_node(), "--input-type=module", "--eval", COMPARE_FNV64, *(str(WASM / name) for name in MODULES)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (str(4 * 2205), "")


def test_it_names_no_place_of_the_machine_that_built_it() -> None:
    for name in MODULES:
        text = (WASM / name).read_bytes()
        assert b"/tmp" not in text
        assert b"zig" not in text.lower()
        assert len(text) < 24_576
