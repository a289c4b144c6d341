"""Values of ranges end to end, made the value of the whole, exactly, by the algebra of each operation.

============ ================================================================================================
counteq, add a + b
xor          a ^ b
crc32c       combined by the length of b (x^(8 len) modulo the polynomial)
fnv64        b: it was computed from a on, since FNV-1a has no way to join two hashes (DESIGN, section 2)
============ ================================================================================================
"""

from collections.abc import Iterable, Sequence
from functools import reduce

from packetfs_compute import kernels
from packetfs_compute.program import Op

__all__ = ["combined", "joined"]


def joined(ops: Sequence[Op], left: Sequence[int], right: Sequence[int], right_bytes: int) -> list[int]:
    """Return each op's value over a range and the one after it, of ``right_bytes``, given both."""
    return [_join(op.name, a, b, right_bytes) for op, a, b in zip(ops, left, right, strict=True)]


def combined(ops: Sequence[Op], parts: Iterable[tuple[Sequence[int], int]]) -> list[int]:
    """Return each op's value over all ``parts`` in order, each its values and its bytes; of none, the identities."""
    return reduce(lambda left, part: joined(ops, left, *part), parts, [op.identity for op in ops])


def _join(name: str, a: int, b: int, b_bytes: int) -> int:
    if name == "crc32c":
        return kernels.crc32c_combine(a, b, b_bytes)
    if name == "fnv64":
        return b
    return a ^ b if name == "xor" else a + b
