"""Compile the kernels to WebAssembly: ``kernels.wasm``, and ``kernels-simd.wasm`` for runtimes with 128-bit SIMD.

The sources are ``packetfs_compute/kernels/csrc`` (the portable file) and ``kernels.c`` beside this script; the compiler
is the one in PyPI's ``ziglang``, pinned in ``requirements/tools.txt``, so that the same sources give the same bytes on
every machine. Run it with the Python that has it: ``.tools/bin/python remote/edge/wasm/build.py [DIRECTORY]``.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CSRC: Final = HERE.parents[2] / "packetfs_compute" / "kernels" / "csrc"
STACK_BYTES: Final = 1 << 14
MEMORY_BYTES: Final = 5 << 16
"""The stack, 12 KiB of tables, 256 KiB of input: fixed, so that no input can make it grow."""

MODULES: Final = {"kernels.wasm": "-mcpu=mvp", "kernels-simd.wasm": "-mcpu=mvp+simd128"}


def compile_module(out: Path, cpu: str) -> None:
    """Compile one module; raise :class:`subprocess.CalledProcessError` with the compiler's words where it cannot."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", cpu, "-std=c11", "-O3",
            "-Wall", "-Wextra", "-Werror", "-nostdlib", "-fno-ident", "-g0", f"-I{CSRC}",
            str(CSRC / "crc32c_combine.c"), str(HERE / "kernels.c"),
            "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--gc-sections", f"-Wl,-z,stack-size={STACK_BYTES}",
            f"-Wl,--initial-memory={MEMORY_BYTES}", f"-Wl,--max-memory={MEMORY_BYTES}",
            "-o", str(Path(scratch) / out.name),
        ]  # fmt: skip
        # The working directory and the scratch directories are new each time: nothing of them may be in the output.
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": scratch,
            "ZIG_GLOBAL_CACHE_DIR": f"{scratch}/zig",
            "ZIG_LOCAL_CACHE_DIR": f"{scratch}/zig",
        }
        subprocess.run(command, cwd=scratch, env=environ, check=True)  # noqa: S603  (its arguments are ours)
        out.write_bytes((Path(scratch) / out.name).read_bytes())


def main() -> None:
    """Write both modules into the directory that the command line names, or beside this script."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, cpu in MODULES.items():
        compile_module(directory / name, cpu)


if __name__ == "__main__":
    main()
