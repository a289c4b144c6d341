"""Every kernel in C over 1 GiB: zeros that take no memory, with a few other bytes, so that each value is known beforehand.

What is wrong only after so many bytes is a counter or a sum that is too narrow, and a length that was cut to 32 bits
somewhere on the way.
"""

import mmap
from collections.abc import Iterator

import pytest

from packetfs_compute import kernels

pytestmark = pytest.mark.integration

GIB = 1 << 30
BYTES = {0: 0x01, 12_345_678: 0x2A, GIB // 2 + 33: 0xFF, GIB - 1: 0x80}
NATIVE = [(op, name) for op, names in kernels.implementations().items() for name in names if name != "python"]
PRIME, SEED, MASK = 0x100000001B3, kernels.FNV64_OFFSET, (1 << 64) - 1


@pytest.fixture(scope="module")
def data() -> Iterator[memoryview]:
    with mmap.mmap(-1, GIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        for place, byte in BYTES.items():
            pages[place] = byte
        with memoryview(pages) as view:
            yield view


def fnv64() -> int:
    """Return the hash by hand: a zero byte is a multiplication, so a run of them is a power."""
    value, at = SEED, 0
    for place, byte in BYTES.items():
        value = value * pow(PRIME, place - at, 1 << 64) & MASK
        value, at = (value ^ byte) * PRIME & MASK, place + 1
    return value


def crc32c() -> int:
    """Return the CRC by hand: the register is linear, and moves on by a linear map whose squares are quickly made."""
    register, at = 0xFFFFFFFF, 0
    for place, byte in BYTES.items():
        register = over_zeros(register, place - at)
        register, at = over_zeros(register ^ byte, 1), place + 1
    return register ^ 0xFFFFFFFF


def over_zeros(register: int, count: int) -> int:
    columns = [one_zero_byte(1 << bit) for bit in range(32)]
    while count:
        if count & 1:
            register = applied(columns, register)
        columns = [applied(columns, column) for column in columns]
        count >>= 1
    return register


def one_zero_byte(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register


def applied(columns: list[int], vector: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        result ^= column if vector >> bit & 1 else 0
    return result


@pytest.mark.parametrize(("op", "name"), NATIVE)
def test_a_gib(op: str, name: str, data: memoryview) -> None:
    k, n = kernels.using(name), GIB - len(BYTES)
    if op == "counteq":
        assert (k.counteq(data, 0), k.counteq(data, 0xFF, 5)) == (n, 6)
    elif op == "add":
        assert k.add(data, 0xFE, 7) == 7 + 0xFE * n + sum((byte + 0xFE) % 256 for byte in BYTES.values())
    elif op == "xor":
        assert k.xor(data, 0x77) == 0x01 ^ 0x2A ^ 0xFF ^ 0x80
        assert k.xor(data[:-2], 0x77) == 0x01 ^ 0x2A ^ 0xFF
        assert k.xor(data[1:], 0x77) == 0x2A ^ 0xFF ^ 0x80 ^ 0x77
    elif op == "crc32c":
        assert k.crc32c(data) == crc32c()
    else:
        assert k.fnv64(data) == fnv64()


def test_a_gib_fused(data: memoryview) -> None:
    ops = ["crc32c", "fnv64", ("counteq", 0), ("xor", 0), ("add", 0)]
    wanted = [crc32c(), fnv64(), GIB - len(BYTES), 0x01 ^ 0x2A ^ 0xFF ^ 0x80, sum(BYTES.values())]
    assert kernels.fused(data, ops, [0, SEED, 0, 0, 0]) == wanted
