"""The C files by themselves: their self-test, natively, under sanitizers and for arm64; what they link to; setup.py."""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration  # it compiles the kernels anew, and emulates CPUs: many seconds

REPOSITORY = Path(__file__).parents[3]
CSRC = REPOSITORY / "packetfs_compute/kernels/csrc"
SELFTEST = REPOSITORY / "tests/conformance/kernels_selftest.c"
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def need(*tools: str) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have {' and '.join(missing)}: make tools")
    if missing:
        pytest.skip(f"{' and '.join(missing)} not on PATH")


def run(*command: object, **environment: str) -> str:
    # Not under the sanitizer that `make sanitize` loads into Python: in an emulator it takes minutes and 6 GB.
    inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [str(part) for part in command], env={**inherited, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(compiler: str, flags: list[str], out: Path) -> Path:
    """Compile the kernels with their self-test, two files at a time."""
    sources = [SELFTEST, *(path for path in sorted(CSRC.glob("*.c")) if path.name != "module.c")]
    objects = [out.with_name(f"{path.stem}.o") for path in sources]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(run, compiler, *flags, f"-I{CSRC}", "-c", source, "-o", made)
            for source, made in zip(sources, objects, strict=True)
        ]
        for job in jobs:
            job.result()
    run(compiler, *flags, *objects, "-o", out)
    return out


def assert_passed(output: str, *kernels: str) -> None:
    lines = output.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for op in ("counteq", "crc32c", "fnv64", "xor", "add"):
        assert f"ok {op} portable" in lines
    for line in ("combine", "fused", *kernels):
        assert f"ok {line}" in lines


@pytest.fixture(scope="module")
def selftest(tmp_path_factory):
    need("cc")
    return build("cc", STRICT, tmp_path_factory.mktemp("native") / "selftest")


def test_the_selftest_passes(selftest):
    assert_passed(run(selftest))


@pytest.mark.integration  # an emulator takes seconds
@pytest.mark.parametrize(
    ("cpu", "has", "lacks"),
    [
        ("kvm64", ["fnv64 sse2"], ["fnv64 ssse3"]),
        ("core2duo", ["fnv64 ssse3"], ["crc32c sse42"]),
        ("Haswell", ["crc32c sse42", "fnv64 avx2"], ["crc32c avx2", "fnv64 avx512"]),
    ],
)
def test_an_older_cpu_runs_what_it_has_and_nothing_else(selftest, cpu, has, lacks):
    """Were a kernel to use more than it says that it requires, it would end here, on an instruction that there is not."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        pytest.skip("only x86-64 has all these")
    need("qemu-x86_64")
    output = run("qemu-x86_64", "-cpu", cpu, selftest)
    assert_passed(output, *has)
    assert {f"ok {kernel}" for kernel in lacks}.isdisjoint(output.splitlines())


@pytest.mark.integration  # compiling with sanitizers takes seconds
def test_the_selftest_passes_under_sanitizers(tmp_path):
    need("cc")
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # Leaks are not looked for: that needs ptrace, which containers forbid.
    assert_passed(run(build("cc", flags, tmp_path / "selftest"), ASAN_OPTIONS="detect_leaks=0"))


def test_the_selftest_passes_on_arm64(tmp_path):
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    binary = build("aarch64-linux-gnu-gcc", [*STRICT, "-static"], tmp_path / "selftest")
    assert_passed(
        run("qemu-aarch64", binary), "crc32c arm64", *(f"{op} neon" for op in ("counteq", "fnv64", "xor", "add"))
    )


def test_the_portable_files_need_no_libc_but_memcpy(tmp_path):
    """They are also compiled to WebAssembly, where there is none."""
    need("cc", "nm")
    sources = [CSRC / f"{name}.c" for name in ("portable", "crc32c_combine")]
    run("cc", *STRICT, "-r", "-nostdlib", *sources, "-o", tmp_path / "both.o")
    undefined = {line.split()[-1].lstrip("_") for line in run("nm", "-u", tmp_path / "both.o").splitlines()}
    assert undefined <= {"memcpy", "GLOBAL_OFFSET_TABLE_"}


@pytest.fixture
def checkout(tmp_path):
    shutil.copy(REPOSITORY / "setup.py", tmp_path)
    shutil.copytree(CSRC, tmp_path / "packetfs_compute/kernels/csrc")
    return tmp_path


def build_extension(checkout: Path, **environment: str) -> tuple[str, list[Path]]:
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr, list((checkout / "packetfs_compute/kernels").glob("_native*"))


def test_without_a_compiler_the_build_succeeds_and_says_so(checkout):
    warning, built = build_extension(checkout, CC="/nonexistent/cc", PACKETFS_NO_EXTENSION="")
    assert "installed WITHOUT its C kernels (it did not build: " in warning
    assert built == []


def test_the_extension_can_be_left_out_on_purpose(checkout):
    warning, built = build_extension(checkout, PACKETFS_NO_EXTENSION="1")
    assert "installed WITHOUT its C kernels (PACKETFS_NO_EXTENSION=1)" in warning
    assert built == []
