"""Values of windows combine to exactly what the kernels give over the whole."""

from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute import kernels
from packetfs_compute.names import OPS, OPS_WITH_IMM
from packetfs_compute.program import Op
from packetfs_compute.scanning.combine import combined, joined

ops_of = st.lists(
    st.sampled_from(OPS).flatmap(
        lambda name: st.builds(
            Op,
            st.just(name),
            st.integers(0, 255) if name in OPS_WITH_IMM else st.none(),
            st.integers(0, 2**64 - 1) if name == "fnv64" else st.none(),
        )
    ),
    min_size=1,
    max_size=6,
)


def run(ops: list[Op], data: bytes, start: list[int]) -> list[int]:
    return kernels.plan([(op.name, op.imm) for op in ops]).run(data, start)


@patient
@given(ops_of, st.lists(st.binary(max_size=300), max_size=8))
def test_parts_make_the_whole(ops: list[Op], pieces: list[bytes]) -> None:
    parts: list[tuple[list[int], int]] = []
    chain = [op.identity for op in ops]
    for piece in pieces:  # each from nothing, but for what can only be chained
        start = [before if op.name == "fnv64" else op.identity for op, before in zip(ops, chain, strict=True)]
        chain = run(ops, piece, start)
        parts.append((chain, len(piece)))
    assert combined(ops, parts) == run(ops, b"".join(pieces), [op.identity for op in ops])


def test_of_nothing_there_is_the_identity() -> None:
    ops = [Op("crc32c"), Op("fnv64", seed=7), Op("fnv64"), Op("add", 3)]
    assert combined(ops, []) == [0, 7, kernels.FNV64_OFFSET, 0]


@patient
@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=64))
def test_it_does_not_matter_where_it_is_begun(a: bytes, b: bytes, c: bytes) -> None:
    ops = [Op("crc32c"), Op("xor", 9), Op("counteq", 0), Op("add", 255)]
    va, vb, vc = (run(ops, part, [0] * 4) for part in (a, b, c))
    left = joined(ops, joined(ops, va, vb, len(b)), vc, len(c))
    assert left == joined(ops, va, joined(ops, vb, vc, len(c)), len(b) + len(c))
