"""The kernels in Python, for where the C extension was not built, and to test it against.

The same face, values and errors as ``_native``. Each op works on blocks of 64 KiB, so that memory stays flat, and on a
block with what CPython does in C: ``bytes.count``, ``bytes.translate``, arithmetic on one huge integer. Only ``fnv64``
is a loop over bytes, because each step needs the one before; ``crc32c`` comes from the PyPI package of that name where
it can be imported.
"""

import operator
from collections.abc import Callable, Sequence
from functools import cache
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Final

from packetfs_compute.names import FNV64_OFFSET, OPS

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAX_VALUE", "Kernels", "Plan", "implementations", "integer"]

MAX_VALUE: Final = {
    "counteq": (1 << 64) - 1,
    "crc32c": (1 << 32) - 1,
    "fnv64": (1 << 64) - 1,
    "xor": 255,
    "add": (1 << 64) - 1,
}
"""Each op's largest running value."""

_BLOCK: Final = 64 << 10
_FNV64_PRIME: Final = 0x100000001B3
_CRC32C_POLY: Final = 0x82F63B78
_ALL_BYTES: Final = bytes(range(256))


def implementations() -> dict[str, tuple[str, ...]]:
    """Return what this module can run each op on: itself."""
    return dict.fromkeys(OPS, ("python",))


class Kernels:
    """Every op in Python; see :class:`packetfs_compute.kernels.Kernels`."""

    __slots__ = ()

    @property
    def active(self) -> dict[str, str]:
        """A new dict of each op's name to the name of its implementation here."""
        return dict.fromkeys(OPS, "python")

    def counteq(self, data: "Buffer", imm: int, value: int = 0, /) -> int:
        """Return ``value`` plus the number of bytes equal to ``imm``."""
        return self._one("counteq", data, imm, value)

    def crc32c(self, data: "Buffer", value: int = 0, /) -> int:
        """Return the CRC-32C (RFC 3720) of ``data`` after bytes whose CRC is ``value``."""
        return self._one("crc32c", data, 0, value)

    def fnv64(self, data: "Buffer", value: int = FNV64_OFFSET, /) -> int:
        """Return the FNV-1a 64 of ``data``, going on from ``value``."""
        return self._one("fnv64", data, 0, value)

    def xor(self, data: "Buffer", imm: int, value: int = 0, /) -> int:
        """Return ``value`` XOR each byte XOR ``imm``, 0..255."""
        return self._one("xor", data, imm, value)

    def add(self, data: "Buffer", imm: int, value: int = 0, /) -> int:
        """Return ``value`` plus the sum of ``(byte + imm) mod 256``."""
        return self._one("add", data, imm, value)

    def crc32c_combine(self, a: int, b: int, len_b: int, /) -> int:
        """Return the CRC-32C of two ranges from theirs; ``len_b`` in bytes."""
        a, b = integer(a, "a", MAX_VALUE["crc32c"]), integer(b, "b", MAX_VALUE["crc32c"])
        exponent = 8 * integer(len_b, "len_b", (1 << 63) - 1) % ((1 << 31) - 1)  # the order of x mod P
        for k in range(exponent.bit_length()):
            if exponent >> k & 1:
                a = _multiply(a, _powers()[k])
        return a ^ b

    def plan(self, ops: tuple[tuple[str, int], ...], /) -> "Plan":
        """Return a :class:`Plan` that runs ``ops`` in one pass."""
        return Plan(tuple((op, integer(imm, "imm", 255)) for op, imm in ops))

    def plan_plain(self, ops: tuple[object, ...], /) -> None:
        """Leave every form to :meth:`plan`: here the parsing is not what takes the time."""

    def _one(self, op: str, data: "Buffer", imm: int, value: int) -> int:
        imm = integer(imm, "imm", 255)
        return _run(((op, imm),), [integer(value, "value", MAX_VALUE[op])], data)[0]


class Plan:
    """Several ops made ready to run over chunk after chunk."""

    __slots__ = ("_ops",)

    def __init__(self, ops: tuple[tuple[str, int], ...]) -> None:
        for op, _ in ops:
            if op not in MAX_VALUE:
                raise ValueError(f"{op!r} is not an op")
        self._ops = ops

    def run(self, data: "Buffer", values: Sequence[int], /) -> list[int]:
        """Return the new values, in the order of the ops."""
        given = _as_list(values)
        if len(given) != len(self._ops):
            raise ValueError(f"values must have one entry for each op: {len(self._ops)}, not {len(given)}")
        checked = [
            integer(value, f"values[{i}]", MAX_VALUE[op])
            for i, ((op, _), value) in enumerate(zip(self._ops, given, strict=True))
        ]
        return _run(self._ops, checked, data)


def integer(number: object, name: str, maximum: int) -> int:
    """Return ``number`` as an int in ``0..maximum``; raise ``TypeError`` or ``ValueError`` naming ``name``."""
    try:
        value = operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, not '{type(number).__name__}'") from None
    if not 0 <= value <= maximum:
        bits = value.bit_length()
        shown = str(value) if bits <= 64 else f"an integer of {bits} bits"
        raise ValueError(f"{name} must be from 0 to {maximum}, not {shown}")
    return value


def _as_list(values: object) -> list[object]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"values must be a sequence of integers, not '{type(values).__name__}'")
    return list(values)


def _run(ops: tuple[tuple[str, int], ...], values: list[int], data: "Buffer") -> list[int]:
    view = _bytes(data)
    for start in range(0, len(view), _BLOCK):
        block = bytes(view[start : start + _BLOCK])
        values = [_OPS[op](block, imm, value) for (op, imm), value in zip(ops, values, strict=True)]
    if any(value >> 64 for value in values):
        raise OverflowError("the value does not fit in 64 bits")
    return values


def _bytes(data: "Buffer") -> memoryview:
    """Return a flat view of the bytes of ``data``, without a copy."""
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"data must be a bytes-like object, not '{type(data).__name__}'") from None
    if not view.c_contiguous:
        raise BufferError(
            "data must be C-contiguous: make it so first, e.g. with numpy.ascontiguousarray(data) or bytes(data)"
        )
    return PickleBuffer(view).raw()  # memoryview.cast() refuses empty arrays and formats such as ">i4"


def _counteq(block: bytes, imm: int, value: int) -> int:
    return value + block.count(imm)


def _xor(block: bytes, imm: int, value: int) -> int:
    """Fold one huge integer onto its own half until the low byte holds the XOR of all."""
    folded = int.from_bytes(block, "little")
    bits = 8 * _BLOCK
    while bits > 8:
        bits //= 2
        folded ^= folded >> bits
    return value ^ (folded & 255) ^ (imm if len(block) % 2 else 0)


def _add(block: bytes, imm: int, value: int) -> int:
    """Add neighbours in lanes of 8, 16, then 32 bits, and then halves: a block's sum fits a lane of 32."""
    total = int.from_bytes(block.translate(_ALL_BYTES[imm:] + _ALL_BYTES[:imm]), "little")
    for lane, mask in _lane_masks():
        total = (total & mask) + (total >> lane & mask)
    bits = 8 * _BLOCK
    while bits > 32:
        bits //= 2
        total = (total & ((1 << bits) - 1)) + (total >> bits)
    return value + total


@cache
def _lane_masks() -> tuple[tuple[int, int], ...]:
    return tuple(
        (lane, int.from_bytes((b"\xff" * (lane // 8) + b"\0" * (lane // 8)) * (_BLOCK * 4 // lane), "little"))
        for lane in (8, 16)
    )


def _fnv64(block: bytes, _imm: int, value: int) -> int:
    for byte in block:
        value = (value ^ byte) * _FNV64_PRIME & 0xFFFFFFFFFFFFFFFF
    return value


def _crc32c(block: bytes, _imm: int, value: int) -> int:
    return _best_crc32c()(block, value)


@cache
def _best_crc32c() -> Callable[[bytes, int], int]:
    """Return the PyPI package's function where it is installed; imported late, for most never need it."""
    try:
        import crc32c  # noqa: PLC0415
    except ImportError:
        return _crc32c_table
    return crc32c.crc32c


def _crc32c_table(block: bytes, value: int) -> int:
    table = _table()
    crc = value ^ 0xFFFFFFFF
    for byte in block:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    """Return the register after each byte: ``byte(x) * x**32 mod P``, where bit 7 of the byte is its ``x**0``."""
    return tuple(_multiply(byte << 24, _powers()[5]) for byte in _ALL_BYTES)


@cache
def _powers() -> tuple[int, ...]:
    """Return ``x**(2**k) mod P`` for k = 0..30."""
    powers = [1 << 30]
    while len(powers) < 31:
        powers.append(_multiply(powers[-1], powers[-1]))
    return tuple(powers)


def _multiply(a: int, b: int) -> int:
    """Return ``a * b mod P``, polynomials with bit 31 for ``x**0``, by Horner's rule from the highest power down."""
    product = 0
    for i in range(32):
        product = product >> 1 ^ (_CRC32C_POLY if product & 1 else 0)
        if b >> i & 1:
            product ^= a
    return product


_OPS: Final[dict[str, Callable[[bytes, int, int], int]]] = {
    "counteq": _counteq,
    "crc32c": _crc32c,
    "fnv64": _fnv64,
    "xor": _xor,
    "add": _add,
}
