"""The independent values that the demo checks its answers against, themselves checked against the kernels."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.untrusted import ops, patient

from packetfs_compute import kernels
from packetfs_compute.cli.reference import reference
from packetfs_compute.program import Op


def kernel(op: Op, data: bytes) -> int:
    return kernels.fused(data, [(op.name, op.imm)], [op.identity])[0]


@patient
@given(ops, st.binary(max_size=300))
@example(Op("xor", 255), b"\x01" * 17)
@example(Op("xor", 255), b"\x01" * 16)
def test_any_operation_over_any_bytes(op: Op, data: bytes) -> None:
    assert reference(op, data) == kernel(op, data)


@pytest.mark.parametrize("length", [0, 1, 2, 15, 16, 17, 31, 33, 255, 1023, 65_535, 65_536, 65_537])
@pytest.mark.parametrize(
    "op",
    [Op("counteq", 7), Op("crc32c"), Op("fnv64"), Op("fnv64", seed=1), Op("xor", 0), Op("xor", 165), Op("add", 255)],
    ids=str,
)
def test_lengths_at_which_a_mistake_would_show(op: Op, length: int) -> None:
    data = bytes(at * at % 251 for at in range(length))
    assert reference(op, data) == kernel(op, data)


@pytest.mark.parametrize(
    ("op", "data", "value"),
    [
        (Op("counteq", 10), b"a\nb\n", 2),
        (Op("crc32c"), b"123456789", 0xE3069283),
        (Op("fnv64"), b"foobar", 0x85944171F73967E8),
        (Op("xor", 8), b"\x01\x02\x04", 15),
        (Op("add", 1), b"\xff\x01", 2),
    ],
)
def test_values_from_the_definitions(op: Op, data: bytes, value: int) -> None:
    assert reference(op, data) == value
