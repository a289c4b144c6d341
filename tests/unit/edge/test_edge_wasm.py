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


def test_it_names_no_place_of_the_machine_that_built_it() -> None:
    for name in MODULES:
        text = (WASM / name).read_bytes()
        assert b"/tmp" not in text
        assert b"zig" not in text.lower()
        assert len(text) < 16_384
