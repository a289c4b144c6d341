"""Which implementation runs: what there is, the environment's word, and life without the C extension."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from packetfs_compute import kernels
from packetfs_compute.kernels import _fallback
from packetfs_compute.names import OPS

WITHOUT_EXTENSION = os.environ.get("PACKETFS_NO_EXTENSION") == "1"
NATIVE = "packetfs_compute.kernels._native"
REPOSITORY = Path(__file__).parents[3]

needs_c = pytest.mark.skipif(WITHOUT_EXTENSION, reason="PACKETFS_NO_EXTENSION=1")

REPORT = """
import json
from packetfs_compute import kernels
from packetfs_compute.errors import ConfigurationError
report = {"implementations": kernels.implementations(), "native_error": kernels.native_error()}
try:
    report["crc32c"] = kernels.crc32c(b"123456789")
    report["fnv64"] = kernels.fnv64(b"foobar")
    report["fused"] = kernels.fused(b"a\\nb", [("counteq", 10), "crc32c"], [0, 0])
    report["active"] = kernels.active()
except ConfigurationError as error:
    report["error"], report["details"] = error.message, error.details
print(json.dumps(report))
"""
BLOCK_IMPORT = "import sys\nsys.modules[{name!r}] = None\n"
BREAK_IMPORT = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "packetfs_compute.kernels._native":
            raise ImportError("undefined symbol: something")
sys.meta_path.insert(0, Broken())
"""


def report(force: str | None = None, before: str = "") -> dict:
    environment = {key: value for key, value in os.environ.items() if key != "PACKETFS_FORCE_KERNEL"}
    if force is not None:
        environment["PACKETFS_FORCE_KERNEL"] = force
    done = subprocess.run(
        [sys.executable, "-c", before + REPORT],
        env=environment,
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def assert_right(found: dict) -> None:
    assert found["crc32c"] == 0xE3069283
    assert found["fnv64"] == 0x85944171F73967E8
    assert found["fused"] == [1, kernels.crc32c(b"a\nb")]


@needs_c
def test_the_extension_is_built():
    assert kernels.native_error() is None, "build it: python setup.py build_ext --inplace"


@needs_c
def test_every_op_has_portable_and_python_last():
    for op in OPS:
        assert kernels.implementations()[op][-2:] == ("portable", "python")


@needs_c
def test_dispatch_sees_what_the_kernel_of_the_os_sees():
    flags = Path("/proc/cpuinfo").read_text("utf-8").split() if Path("/proc/cpuinfo").exists() else []
    machine, here = platform.machine().lower(), kernels.implementations()["crc32c"]
    if machine in {"x86_64", "amd64"} and flags:
        avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}  # Linux leaves out what it does not save
        assert ("sse42" in here) == ({"sse4_2", "pclmulqdq"} <= set(flags))
        assert ("avx2" in here) == ({"avx2", "vpclmulqdq", "sse4_2", "pclmulqdq"} <= set(flags))
        assert ("avx512" in here) == ({*avx512, "vpclmulqdq", "sse4_2", "pclmulqdq"} <= set(flags))
        assert ("avx2" in kernels.implementations()["add"]) == ("avx2" in flags)
        assert ("avx512" in kernels.implementations()["add"]) == (avx512 <= set(flags))
    elif machine in {"aarch64", "arm64"} and flags:
        assert ("arm64" in here) == ("crc32" in flags)
    else:
        pytest.skip(f"no list of the CPU's features to compare with on {sys.platform} {machine}")


@needs_c
def test_by_default_each_op_runs_on_its_best():
    found = report()
    assert_right(found)
    assert found["active"] == {op: names[0] for op, names in found["implementations"].items()}
    assert report(force="  ")["active"] == found["active"]


LADDER = ["avx512gfni", "avx512vnni", "avx512", "avx2", "sse42", "ssse3", "sse2", "arm64", "neon", "portable", "python"]
"""Every name, best first."""


def test_every_op_has_its_implementations_in_the_order_of_the_ladder():
    for names in kernels.implementations().values():
        assert sorted(names, key=LADDER.index) == list(names)


@needs_c
def test_the_extension_itself_refuses_a_name_that_no_op_has_here():
    from packetfs_compute.kernels import _native

    here = {name for names in _native.implementations().values() for name in names}
    for name in {*LADDER, "nonsense"} - here:
        with pytest.raises(ValueError, match=f"^no op has an implementation '{name}' here$"):
            _native.Kernels(name)


@pytest.mark.parametrize("name", sorted({name for names in kernels.implementations().values() for name in names}))
def test_the_environment_forces_one_and_for_an_op_that_lacks_it_the_next_below(name):
    found = report(force=name)
    assert_right(found)
    for op, names in kernels.implementations().items():
        below = [each for each in names if LADDER.index(each) >= LADDER.index(name)]
        assert found["active"][op] == below[0], op


def test_a_name_that_nothing_has_is_an_error_at_first_use_and_not_at_import():
    found = report(force="nonsense")
    assert found["implementations"]
    assert found["error"].startswith("PACKETFS_FORCE_KERNEL: no kernel is called 'nonsense' here: known are ")
    for names in kernels.implementations().values():
        assert all(name in found["error"] for name in names)
    assert found["details"]["field"] == "PACKETFS_FORCE_KERNEL"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (BLOCK_IMPORT.format(name=NATIVE), "the C extension is not built: "),
        (BREAK_IMPORT, "the C extension cannot be loaded: undefined symbol: something"),
    ],
    ids=["missing", "broken"],
)
def test_without_the_extension_everything_runs_in_python(before, reason):
    found = report(before=before)
    assert_right(found)
    assert found["implementations"] == {op: ["python"] for op in OPS}
    assert found["active"] == dict.fromkeys(OPS, "python")
    assert found["native_error"].startswith(reason)


def test_without_the_extension_its_kernels_are_not_known():
    found = report(force="portable", before=BLOCK_IMPORT.format(name=NATIVE))
    assert found["error"] == "PACKETFS_FORCE_KERNEL: no kernel is called 'portable' here: known are python"


def test_without_the_crc32c_package_too():
    found = report(before=BLOCK_IMPORT.format(name=NATIVE) + BLOCK_IMPORT.format(name="crc32c"))
    assert_right(found)


def test_crc32c_by_table_is_the_same():
    data = bytes(range(256)) * 3
    for length in range(0, len(data), 7):
        value = _fallback._crc32c_table(data[:length], 0x12345678)
        assert value == kernels.crc32c(data[:length], 0x12345678)
    assert _fallback._crc32c_table(b"123456789", 0) == 0xE3069283


def test_using_one_that_is_not_there():
    with pytest.raises(ValueError, match=r"^no kernel is called 'avx9000' here: known are "):
        kernels.using("avx9000")


def test_using_does_not_change_what_others_run_on():
    before = kernels.active()
    kernels.using("python").crc32c(b"123456789")
    assert kernels.active() == before
