"""The constants of CRC-32C in the C sources, each computed anew: powers of x, from the polynomial that RFC 3720 names."""

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[3] / "packetfs_compute/kernels/csrc"
P = 0x11EDC6F41
"""x**32 + x**28 + … + 1, bit n for x**n."""
ORDER = (1 << 31) - 1
VECTOR_BYTES = {"sse42": 16, "avx2": 32, "avx512": 64}


def times(a: int, b: int) -> int:
    """Return ``a * b mod P`` of polynomials with bit n for x**n."""
    product = 0
    for bit in range(32):
        product ^= a << bit if b >> bit & 1 else 0
    for bit in range(63, 31, -1):
        product ^= P << bit - 32 if product >> bit & 1 else 0
    return product


def x(exponent: int) -> int:
    """Return x**exponent mod P, bit-reflected as the sources have it; a negative exponent divides."""
    result, power, left = 1, 2, exponent % ORDER
    while left:
        result = times(result, power) if left & 1 else result
        power, left = times(power, power), left >> 1
    return int(f"{result:032b}"[::-1], 2)


def numbers(name: str, start: str, stop: str) -> list[int]:
    """Return the integers of a file between two texts."""
    text = (CSRC / name).read_text("utf-8")
    assert text.count(start) == 1, f"{name}: {start}"
    return [
        int(found, 0) for found in re.findall(r"\b0x[0-9a-f]+|\b\d+\b", text.partition(start)[2].partition(stop)[0])
    ]


def test_the_order_of_x():
    assert x(ORDER) == x(0) == 1 << 31
    assert x(1) == 1 << 30
    assert times(int(f"{x(-1):032b}"[::-1], 2), 2) == 1


def test_the_ways_to_the_end():
    wanted = [power for i in range(16) for power in (x(128 * (15 - i) + 63), x(128 * (15 - i) - 1))]
    assert numbers("crc32c_fold.h", "TO_THE_END[16][4] = {", "};") == wanted


@pytest.mark.parametrize("name", VECTOR_BYTES)
def test_a_stride_ahead(name):
    bits = 8 * 4 * VECTOR_BYTES[name]
    assert numbers(f"crc32c_{name}.c", "#define AHEAD PAIR(", ")") == [x(bits + 63), x(bits - 1)]


@pytest.mark.parametrize("size", ["LONG", "SHORT"])
@pytest.mark.parametrize("name", VECTOR_BYTES)
def test_the_joints_of_a_block(name, size):
    (steps,) = numbers(f"crc32c_{name}.c", "#define STEPS ", "\n")
    strides, *powers = numbers(f"crc32c_{name}.c", f"#define {size} {{", "}")
    stream = 8 * steps * (strides - 1)
    block = 4 * VECTOR_BYTES[name] * strides + 3 * stream
    assert powers == [x(8 * bytes_ - 33) for bytes_ in (block, 3 * stream, 2 * stream, stream)]


def test_the_powers_of_each_digit_of_a_length():
    wanted = [x(8 * digit * 16**place) for place in range(8) for digit in range(16)]
    assert numbers("crc32c_combine.c", "pfs_crc32c_x8n[8][16] = {", "};") == wanted
    assert numbers("crc32c_sse42.c", "LAST_DIGIT[8] = {", "};") == [x(8 * digit * 16**7 - 136) for digit in range(8)]
