"""Make the function's zip: the handler, what it imports of the package, three wheels, and the kernels for its CPU.

    python remote/aws_lambda/build.py --arch arm64 --python 3.13

- Of ``packetfs_compute`` goes in what the handler imports, found by reading the imports, and all of ``sources``, whose
  modules are loaded by name; so no task system, no Redis, no boto3.
- The wheels are the ones that ``requirements/dev.txt`` pins, checked against its hashes. They are kept in
  ``build/lambda/wheels``; pip downloads what is not there.
- The C extension is compiled by zig (PyPI ``ziglang``), which holds a compiler and every glibc's symbols, so that any
  machine builds for either CPU. It is bound to the Python version of the function's runtime, whose headers are needed:
  of the interpreter that runs this, of a ``python3.x`` on PATH, or of ``--headers``.
- The same input gives the same bytes: entries are sorted, and have one time and one mode.
"""

import argparse
import ast
import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["ARCHITECTURES", "BuildError", "build", "main"]

ROOT: Final = Path(__file__).resolve().parents[2]
ARCHITECTURES: Final = {"arm64": "aarch64", "x86_64": "x86_64"}
"""Lambda's name of each to the compiler's and Python's."""
DEFAULT_PYTHON: Final = "3.13"

_PACKAGE: Final = "packetfs_compute"
_HANDLER: Final = ROOT / "remote" / "aws_lambda" / "handler.py"
_WHEELS: Final = ("h11", "platformdirs", "urllib3")
_LOCK: Final = ROOT / "requirements" / "dev.txt"
_KEPT: Final = ROOT / "build" / "lambda" / "wheels"
_CSRC: Final = ROOT / _PACKAGE / "kernels" / "csrc"
_GLIBC: Final = "2.26"
"""The oldest that a runtime of Lambda had (Amazon Linux 2); today's have 2.34."""
_FLAGS: Final = (
    "-std=c11",
    "-O3",
    "-g0",
    "-fPIC",
    "-shared",
    "-s",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--build-id=none",
)
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip can hold."""
_MODE: Final = 0o100644 << 16


class BuildError(Exception):
    """The zip cannot be made; the message says what is missing."""


def build(arch: str, python: str, output: Path, headers: Path | None = None) -> Path:
    """Write the zip for one of :data:`ARCHITECTURES` and a Python version such as ``3.13`` to ``output``."""
    if arch not in ARCHITECTURES:
        raise BuildError(f"there is no architecture {arch!r}: use one of {', '.join(ARCHITECTURES)}")
    if not re.fullmatch(r"3\.[1-9][0-9]", python):
        raise BuildError(f"there is no runtime {python!r}: give one such as {DEFAULT_PYTHON}")
    entries = {"handler.py": _HANDLER.read_bytes()}
    entries |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in _modules()}
    tag = f"cpython-{python.replace('.', '')}-{ARCHITECTURES[arch]}-linux-gnu"
    entries[f"{_PACKAGE}/kernels/_native.{tag}.so"] = _extension(arch, headers or _headers(python))
    for wheel in _wheels():
        with zipfile.ZipFile(wheel) as archive:
            entries |= {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(_zipped(entries))
    return output


def _modules() -> list[Path]:
    """Return the files of the package that the handler needs: what it imports, and what that imports, and so on."""
    todo = [_HANDLER, *(ROOT / _PACKAGE / "sources").glob("*.py")]
    found: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imported(path)
    return sorted(found - {_HANDLER})


def _imported(path: Path) -> Iterator[Path]:
    """Yield the files of the package that the one at ``path`` imports, wherever in it, the packages around them too."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == _PACKAGE:
                for depth in range(1, len(parts) + 1):
                    base = ROOT.joinpath(*parts[:depth])
                    yield from (file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file())


def _headers(python: str) -> Path:
    """Return where ``Python.h`` of this version is."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = sys.executable if python == running else shutil.which(f"python{python}")
    hint = f"Python {python}'s headers are needed: install it, or name their directory with --headers"
    if interpreter is None:
        raise BuildError(hint)
    asked = [interpreter, "-I", "-c", "import sysconfig; print(sysconfig.get_path('include'))"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603  (found, not given)
    found = Path(done.stdout.strip())
    if done.returncode or not (found / "Python.h").is_file():
        raise BuildError(hint)
    return found


def _extension(arch: str, headers: Path) -> bytes:
    """Return the C extension, compiled for this architecture's Lambda."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "_native.so"
        target = f"{ARCHITECTURES[arch]}-linux-gnu.{_GLIBC}"
        command = [*_zig(), "cc", "-target", target, *_FLAGS, f"-I{headers}", "-o", str(library)]
        sources = sorted(str(path) for path in _CSRC.glob("*.c"))
        done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False, cwd=folder)  # noqa: S603
        if done.returncode:
            raise BuildError(f"the kernels do not compile for {target}:\n{done.stderr}")
        return library.read_bytes()


def _zig() -> list[str]:
    kit = ROOT / ".tools" / "bin" / "python"
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang"]
    if kit.is_file():
        return [str(kit), "-m", "ziglang"]
    raise BuildError("there is no zig: pip install ziglang, or make .tools/.installed")


def _wheels() -> list[Path]:
    """Return the pinned wheels, each with one of the hashes of its pin."""
    lock = _LOCK.read_text("utf-8")
    pins = {}
    for name in _WHEELS:
        match = re.search(rf"^{name}==([^ ;\\]+).*\n(?:[ ].*\n?)*", lock, re.MULTILINE)
        if match is None:
            raise BuildError(f"{_LOCK} does not pin {name}")
        pins[f"{name}-{match[1]}-"] = match[0]
    if any(_kept(prefix, pin) is None for prefix, pin in pins.items()):
        _download("".join(pins.values()))
    found = [_kept(prefix, pin) for prefix, pin in pins.items()]
    if None in found:
        raise BuildError(f"a wheel is missing in {_KEPT}, or is none of {_LOCK}")
    return [path for path in found if path is not None]


def _kept(prefix: str, pin: str) -> Path | None:
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", pin))
    wheels = sorted(_KEPT.glob(f"{prefix}*.whl"))
    return next((path for path in wheels if hashlib.sha256(path.read_bytes()).hexdigest() in hashes), None)


def _download(pins: str) -> None:
    _KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_KEPT) as folder:
        (Path(folder) / "pins.txt").write_text(pins, "utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", "--require-hashes", "--requirement", "pins.txt", "--dest", "."],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise BuildError(f"the wheels cannot be downloaded:\n{done.stderr}")
        for wheel in Path(folder).glob("*.whl"):
            wheel.replace(_KEPT / wheel.name)  # at once, for another build at the same time


def _zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.create_system, info.compress_type = _MODE, 3, zipfile.ZIP_DEFLATED
            archive.writestr(info, entries[name])
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says, and print the zip's path, size and hash."""
    parser = argparse.ArgumentParser(description="Make the zip of the Lambda function.", prog="build.py")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="arm64", help="default: %(default)s")
    parser.add_argument("--python", default=DEFAULT_PYTHON, help="the runtime's version; default: %(default)s")
    parser.add_argument("--headers", type=Path, help="where that version's Python.h is")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "lambda" / "function.zip")
    options = parser.parse_args(arguments)
    try:
        output = build(options.arch, options.python, options.output, options.headers)
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    data = output.read_bytes()
    with zipfile.ZipFile(output) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = f"{len(data)} bytes ({unpacked} unpacked)"
    sys.stdout.write(f"{output}: {size}, sha256 {hashlib.sha256(data).hexdigest()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
