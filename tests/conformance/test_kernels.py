"""One suite for every kernel: each op on each implementation that this machine runs, against the same vectors."""

import mmap
import random
from functools import cache
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_vectors import (
    BITS,
    CASES,
    CRC32C_VECTORS,
    FNV64_VECTORS,
    HAND_VECTORS,
    MIDWAY,
    Kernel,
    noise,
    prefixes,
    reference,
)

from packetfs_compute import kernels

EACH = [pytest.param(Kernel(*case), id="-".join(case)) for case in CASES]
every_kernel = pytest.mark.parametrize("kernel", EACH)
every_kernel_in_c = pytest.mark.parametrize("kernel", [each for each in EACH if not str(each.id).endswith("python")])

# Around what a kernel may treat apart: vectors, turns before a counter of bytes is full (128 of 64 bytes, 255 of 128 and
# of 256), the CRC's blocks, blocks of the fused pass and of the fallback.
TURNS = [128 * 64, 255 * 128, 255 * 256, 2 * 255 * 256]
CRC_BLOCKS = [1352, 16_072, 16_072 + 1352, 4096, 16_000, 20_096, 8128, 21_248, 29_376]
EDGES = [
    256,
    3 * 256,
    1024,
    6 * 1024,
    3 * 4096,
    6 * 4096,
    7 * 4096,
    *TURNS,
    *CRC_BLOCKS,
    64 << 10,
    128 << 10,
    192 << 10,
]
LENGTHS = sorted({edge + near for edge in EDGES for near in range(-9, 10)})
LONG = (1 << 20) + 3


def lengths_for(kernel: Kernel) -> list[int]:
    return LENGTHS[::7] if kernel.implementation == "python" else LENGTHS  # it is slow, and has one edge only


@cache
def every_prefix(op: str) -> dict[int, int]:
    return prefixes(op, noise(5000, seed=3), 0x2A, MIDWAY[op], range(5001))


@cache
def small_prefixes(op: str, imm: int) -> dict[int, int]:
    return prefixes(op, noise(300), imm, MIDWAY[op], range(301))


@cache
def edge_prefixes(op: str) -> dict[int, int]:
    return prefixes(op, noise(LONG), 0x0A, None, [*LENGTHS, LONG])


@cache
def run_prefixes(op: str, byte: int, imm: int) -> dict[int, int]:
    return prefixes(op, bytes([byte]) * LENGTHS[-1], imm, None, LENGTHS)


@cache
def past_the_caches() -> memoryview:
    return memoryview(random.Random(7).randbytes(129 << 20))[7:-77]  # at no alignment, and a multiple of nothing


@cache
def portably(op: str, length: int) -> int:
    return Kernel(op, "portable")(past_the_caches()[:length], 0x0A)


@every_kernel
def test_published_and_hand_made_vectors(kernel):
    cases = [("crc32c", 0, *case) for case in CRC32C_VECTORS] + [("fnv64", 0, *case) for case in FNV64_VECTORS]
    cases = [case for case in cases + HAND_VECTORS if case[0] == kernel.op]
    assert cases
    for op, imm, data, value in cases:
        assert reference(op, data, imm) == value, "the reference itself is wrong"
        assert kernel(data, imm) == value


@pytest.mark.integration  # seconds; the edges are among the fast ones
@every_kernel
def test_every_length_at_every_alignment(kernel):
    data = noise(300)
    alignments = 4 if kernel.implementation == "python" else 64  # Python does not see alignment
    wanted = small_prefixes(kernel.op, 0x2A)
    with mmap.mmap(-1, 4096) as page, memoryview(page) as view:  # a page, so that the offset is the alignment
        for offset in range(alignments):
            page[offset : offset + 300] = data
            page[:offset] = b"\x2a" * offset  # what stands beside the data must not count
            page[offset + 300 :] = b"\x2a" * (4096 - 300 - offset)
            for length, value in wanted.items():
                got = kernel(view[offset : offset + length], 0x2A, MIDWAY[kernel.op])
                assert got == value, (offset, length)


@pytest.mark.integration  # seconds; the edges are among the fast ones
@every_kernel
def test_every_length(kernel):
    """Past a turn of every kernel's vectors, and whatever may be left of one."""
    lengths = every_prefix(kernel.op).items()
    for offset in (0, 7, 33):
        data = memoryview(bytes(offset) + noise(5000, seed=3))[offset:]
        for length, value in list(lengths)[:: 50 if kernel.implementation == "python" else 1]:
            assert kernel(data[:length], 0x2A, MIDWAY[kernel.op]) == value, (offset, length)


@every_kernel
def test_any_running_value(kernel):
    data, values = noise(700), noise(8 * 64, seed=5)
    for i in range(64):
        value = int.from_bytes(values[8 * i : 8 * i + 8], "little") % (1 << (BITS[kernel.op] - 1))
        length = 11 * i
        assert kernel(data[:length], i, value) == reference(kernel.op, data[:length], i, value), i


@every_kernel_in_c
def test_any_running_value_before_many_chunks(kernel):
    """Some kernels are another's up to a few chunks of theirs."""
    data, portable = noise(8 * 4096 + 21), Kernel(kernel.op, "portable")
    for low in range(256):
        value = (0x0123456789ABCD << 8 | low) % (1 << (BITS[kernel.op] - 1))
        length = len(data) - 31 * low
        assert kernel(data[:length], low, value) == portable(data[:length], low, value), low


@every_kernel_in_c
def test_past_the_caches(kernel):
    """Where a kernel may go another way over memory: from 4, 16, 32 and 128 MiB, and with the most behind its parts."""
    data = past_the_caches()
    near, far = [4 << 20, (4 << 20) + 1, (16 << 20) + 1], [(33 << 20) + 77, 128 << 20, len(data) - (1 << 14), len(data)]
    for length in near + far:
        assert kernel(data[:length], 0x0A) == portably(kernel.op, length), length


@every_kernel
def test_every_imm(kernel):
    data = noise(777)
    for imm in range(256):
        assert kernel(data, imm) == reference(kernel.op, data, imm)


@every_kernel
def test_every_byte_value_in_every_place_of_a_block(kernel):
    for byte in (0x00, 0x01, 0x7F, 0x80, 0xFF):
        for place in range(130):
            data = bytearray(b"\x55" * 130)
            data[place] = byte
            assert kernel(data, byte) == reference(kernel.op, data, byte), (byte, place)


@every_kernel
def test_lengths_around_every_edge(kernel):
    data = memoryview(noise(LONG))
    for length in [*lengths_for(kernel), LONG]:
        assert kernel(data[:length], 0x0A) == edge_prefixes(kernel.op)[length], length


@every_kernel
@pytest.mark.parametrize(("byte", "imm"), [(0x00, 0x00), (0xFF, 0xFF), (0xFF, 0x00), (0xFF, 0x01), (0x80, 0x80)])
def test_long_runs_of_one_byte(kernel, byte, imm):
    """Where a narrow counter inside a kernel would overflow first."""
    data = memoryview(bytes([byte]) * LENGTHS[-1])
    for length in lengths_for(kernel):
        assert kernel(data[:length], imm) == run_prefixes(kernel.op, byte, imm)[length], length


@every_kernel
def test_the_value_of_nothing_is_the_running_value(kernel):
    assert kernel(b"") == reference(kernel.op, b"")
    for value in {0, 1, MIDWAY[kernel.op], (1 << BITS[kernel.op]) - 1}:
        assert kernel(b"", 0xFF, value) == value


bytes_of_any_size = st.builds(
    lambda piece, repeats, more: piece * repeats + more,
    st.binary(max_size=300),
    st.integers(0, 90),
    st.binary(max_size=9),
)
imms = st.integers(0, 255)


@every_kernel
@settings(max_examples=40, deadline=None)
@given(data=bytes_of_any_size, imm=imms, cuts=st.lists(st.integers(0, 30_000), max_size=4))
def test_where_a_stream_is_cut_does_not_matter(kernel, data, imm, cuts):
    bounds = sorted(min(cut, len(data)) for cut in [0, *cuts, len(data)])
    value = reference(kernel.op, b"")
    for start, stop in pairwise(bounds):
        value = kernel(memoryview(data)[start:stop], imm, value)
    assert value == kernel(data, imm) == reference(kernel.op, data, imm)


implementations = pytest.mark.parametrize("name", sorted({name for _, name in CASES}))


@implementations
@settings(max_examples=40, deadline=None)
@given(
    data=bytes_of_any_size,
    ops=st.lists(st.tuples(st.sampled_from(["counteq", "crc32c", "fnv64", "xor", "add"]), imms), max_size=20),
)
def test_fused_is_each_op_alone(name, data, ops):
    values = [MIDWAY[op] for op, _ in ops]
    wanted = [Kernel(op, name)(data, imm, MIDWAY[op]) for op, imm in ops]
    assert kernels.using(name).plan(tuple(ops)).run(data, values) == wanted


@implementations
def test_fused_over_many_blocks(name):
    data, ops = noise(LONG), ("counteq", "crc32c", "fnv64", "xor", "add")
    values = [reference(op, b"") for op in ops]
    got = kernels.using(name).plan(tuple((op, 0x0A) for op in ops)).run(data, values)
    assert got == [edge_prefixes(op)[LONG] for op in ops]


@implementations
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128, 129, 1000, 32_639, 32_640, 32_641, 65_279, 65_536 + 97])
def test_fused_of_the_three_that_a_kernel_runs_together(name, length):
    """In every order, and where one of them is there twice; over what fills counters of a byte, and what does not."""
    orders = [*permutations((("counteq", 0xFF), ("xor", 3), ("add", 5)))]
    orders += [(("counteq", 1), *orders[0], ("xor", 9), ("fnv64", 0)), (("add", 255), ("crc32c", 0), *orders[0])]
    for data in (memoryview(b"\xff" * (length + 1))[1:], memoryview(noise(length + 3))[3:]):
        alone = {(op, imm): Kernel(op, name)(data, imm, MIDWAY[op]) for order in orders for op, imm in order}
        for order in orders:
            got = kernels.using(name).plan(order).run(data, [MIDWAY[op] for op, _ in order])
            assert got == [alone[step] for step in order]


@implementations
@settings(max_examples=60, deadline=None)
@given(a=st.binary(max_size=600), b=st.binary(max_size=600), c=st.binary(max_size=600))
def test_combine_is_the_crc_of_the_concatenation(name, a, b, c):
    k = kernels.using(name)
    crc_a, crc_b, crc_c = (reference("crc32c", data) for data in (a, b, c))
    crc_ab, crc_bc = reference("crc32c", a + b), reference("crc32c", b + c)
    assert k.crc32c_combine(crc_a, crc_b, len(b)) == crc_ab
    assert k.crc32c_combine(crc_a, crc_bc, len(b + c)) == k.crc32c_combine(crc_ab, crc_c, len(c))
    assert k.crc32c_combine(crc_a, 0, 0) == crc_a
    assert k.crc32c_combine(0, crc_b, len(b)) == crc_b


@implementations
@settings(max_examples=60, deadline=None)
@given(crc=st.integers(0, (1 << 32) - 1), lengths=st.tuples(*[st.integers(0, (1 << 62) - 1)] * 2))
def test_combine_with_ranges_too_long_to_read(name, crc, lengths):
    """Zero bytes after a CRC of 0 stay 0, so combining with 0 is only the shift, and shifts add up."""
    shift = kernels.using(name).crc32c_combine
    first, second = lengths
    assert shift(shift(crc, 0, first), 0, second) == shift(crc, 0, first + second)


@implementations
def test_combine_at_every_power_of_two(name):
    """Each by doubling from one byte, whose shift is eight steps of the bitwise definition."""
    shift = kernels.using(name).crc32c_combine
    wanted = _shifts_by_powers_of_two(0x12345678)
    assert [shift(0x12345678, 0, 1 << k) for k in range(63)] == wanted


@implementations
def test_combine_at_every_length_of_ones(name):
    """Where a sum of the length's parts carries furthest: one byte more is a power of two."""
    shift = kernels.using(name).crc32c_combine
    wanted = _shifts_by_powers_of_two(0x12345678)
    assert [shift(shift(0x12345678, 0, (1 << k) - 1), 0, 1) for k in range(63)] == wanted
    assert shift(shift(0x12345678, 0, (1 << 63) - 1), 0, 1) == shift(wanted[62], 0, 1 << 62)


def _shifts_by_powers_of_two(crc: int) -> list[int]:
    """Apply the linear map of one zero byte, as its 32 columns, squared again and again."""
    columns = [_one_zero_byte(1 << bit) for bit in range(32)]
    found = []
    for _ in range(63):
        found.append(_apply(columns, crc))
        columns = [_apply(columns, column) for column in columns]
    return found


def _one_zero_byte(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ 0x82F63B78 if register & 1 else register >> 1
    return register


def _apply(columns: list[int], vector: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if vector >> bit & 1:
            result ^= column
    return result
