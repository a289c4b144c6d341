"""The short version of ``make chaos-scan``: a sparse object is scanned right, in bounded memory, whatever dies meanwhile."""

import random
import subprocess
import sys
from pathlib import Path

import crc32c as crc32c_package
import pytest

from chaos.long_scan import CHAIN, SparseObject
from packetfs_compute import kernels

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

MIB = 1 << 20


def test_what_is_expected_is_what_the_bytes_give(tmp_path: Path) -> None:
    made = SparseObject.sprinkled(5 * MIB + 1, random.Random(4))
    made.write(tmp_path / "object")
    data = (tmp_path / "object").read_bytes()
    assert len(data) == made.size
    assert data.count(0) < made.size - 10_000
    fnv64, *others = kernels.fused(data, CHAIN, [kernels.FNV64_OFFSET, 0, 0, 0, 0])
    assert made.values(CHAIN) == [f"{fnv64:016x}", *others]
    assert others[0] == crc32c_package.crc32c(data)


def test_a_long_scan_outlives_what_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [sys.executable, "-m", "chaos.long_scan", "--size", "2GiB", "--window", "16MiB", "--seed", "5"]
    done = subprocess.run(
        [*argv, "--give-up-s", "120"], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=280
    )
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    for killed in ("the worker at", "the other place at", "the coordinator at"):
        assert killed in done.stdout
