"""Memory stays flat whatever the range's length: 1 GiB from a real nginx, through the running system's worker."""

import os

import pytest
from support.processes import peak_memory_mib

from tasks import program

pytestmark = pytest.mark.integration

SIZE = 1 << 30
LIMIT_MIB = 150
PATCH, AT = b"\x00\x0a\xff not only zeros", (1 << 29) + 12_345


def test_a_gibibyte_of_a_sparse_file_fits_in_150_mib(system, nginx):
    sparse = nginx.www / "sparse.bin"
    with sparse.open("wb") as file:
        os.truncate(file.fileno(), SIZE)
        file.seek(AT)
        file.write(PATCH)
    ops = [{"op": "counteq", "imm": 0}, {"op": "xor", "imm": 0}, {"op": "add", "imm": 0}, {"op": "crc32c"}]
    result = program.delay(nginx.url("sparse.bin"), ops=ops).get(timeout=60)
    values = {entry["op"]: entry["value"] for entry in result["results"]}
    assert result["bytes_processed"] == result["object_size"] == SIZE
    assert values["counteq"] == SIZE - len(PATCH) + PATCH.count(0)
    assert values["add"] == sum(PATCH)
    folded = 0
    for byte in PATCH:
        folded ^= byte
    assert values["xor"] == folded
    peaks = {pid: peak_memory_mib(pid) for pid in system.worker_pids()}
    print(f"peak resident memory of the worker's processes: {sorted(peaks.values())} MiB")
    assert max(peaks.values()) < LIMIT_MIB
