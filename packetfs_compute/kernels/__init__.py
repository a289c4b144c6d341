"""The five byte kernels: ``counteq``, ``crc32c``, ``fnv64``, ``xor``, ``add``, alone or fused into one pass.

Each is used as ``zlib.crc32`` is: it takes any C-contiguous bytes-like object (bytes, mmap, a numpy array of any shape)
without copying it, and the running value of the bytes before, so that a stream is a chain of calls::

    value = 0
    for chunk in stream:
        value = crc32c(chunk, value)

From 8 KiB on the GIL is let go, so that threads run side by side. Each op has one or more *implementations*: in C
``portable`` and one an instruction set, and ``python``, which needs no compiled code. The best that the CPU and the OS
support is used, or the one that ``PACKETFS_FORCE_KERNEL`` names and, for an op that has none of that name, the best of
those below it; the variable is read once, when a kernel is first used.

Wrong arguments raise ``TypeError`` (not bytes-like, not an integer), ``ValueError`` (an integer out of its range;
nothing is masked) or ``BufferError`` (data that is not contiguous). ``counteq`` and ``add`` raise ``OverflowError``
where their value passes ``2**64 - 1``, which from 0 takes 64 PiB at least.

The C code is in ``csrc/``, whose README says where a new kernel goes.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.kernels import _fallback
from packetfs_compute.names import ENV_PREFIX, FNV64_OFFSET, OPS, OPS_WITH_IMM

_native_error: str | None = None
try:
    from packetfs_compute.kernels._native import Kernels as _NativeKernels
    from packetfs_compute.kernels._native import implementations as _native_implementations
except ModuleNotFoundError as error:
    _native_error = f"the C extension is not built: {error}"
except ImportError as error:
    _native_error = f"the C extension cannot be loaded: {error}"

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "FNV64_OFFSET",
    "Kernels",
    "OpSpec",
    "Plan",
    "active",
    "add",
    "counteq",
    "crc32c",
    "crc32c_combine",
    "fnv64",
    "fused",
    "implementations",
    "native_error",
    "plan",
    "using",
    "xor",
]

OpSpec = str | tuple[str, int | None] | Mapping[str, Any]
"""An op for :func:`fused`: ``"crc32c"``, ``("counteq", 10)`` or, as on the wire, ``{"op": "counteq", "imm": 10}``."""

_VARIABLE: Final = ENV_PREFIX + "FORCE_KERNEL"
_OP_FIELDS: Final = frozenset({"op", "imm", "seed"})


class Plan(Protocol):
    """Several ops made ready, once, to run over chunk after chunk. Immutable, so threads may share it."""

    def run(self, data: "Buffer", values: Sequence[int], /) -> list[int]:
        """Return the values over ``data`` too, given those over the bytes before, both in the order of the ops.

        Raises as :func:`fused` does.
        """


class Kernels(Protocol):
    """Every op bound to one implementation. Immutable, so threads may share it.

    The methods are the functions of this module with positional arguments only.
    """

    @property
    def active(self) -> dict[str, str]:
        """A new dict of each op's name to the name of the implementation that these kernels run it on."""

    def counteq(self, data: "Buffer", imm: int, value: int = 0, /) -> int:
        """As :func:`packetfs_compute.kernels.counteq`."""

    def crc32c(self, data: "Buffer", value: int = 0, /) -> int:
        """As :func:`packetfs_compute.kernels.crc32c`."""

    def fnv64(self, data: "Buffer", value: int = FNV64_OFFSET, /) -> int:
        """As :func:`packetfs_compute.kernels.fnv64`."""

    def xor(self, data: "Buffer", imm: int, value: int = 0, /) -> int:
        """As :func:`packetfs_compute.kernels.xor`."""

    def add(self, data: "Buffer", imm: int, value: int = 0, /) -> int:
        """As :func:`packetfs_compute.kernels.add`."""

    def crc32c_combine(self, a: int, b: int, len_b: int, /) -> int:
        """As :func:`packetfs_compute.kernels.crc32c_combine`."""

    def plan(self, ops: tuple[tuple[str, int], ...], /) -> Plan:
        """Make a :class:`Plan`; every op is a pair here, its ``imm`` 0 where it takes none."""

    def plan_plain(self, ops: tuple[object, ...], /) -> Plan | None:
        """Make a :class:`Plan` of plain names and pairs, which C checks by itself; ``None``, and no error, for others."""


def counteq(data: "Buffer", imm: int, value: int = 0) -> int:
    """Return ``value`` plus the number of bytes of ``data`` equal to ``imm`` (0..255)."""
    return _kernels().counteq(data, imm, value)


def crc32c(data: "Buffer", value: int = 0) -> int:
    """Return the CRC-32C (RFC 3720, section 12.1; Castagnoli) of the bytes whose CRC is ``value``, then ``data``."""
    return _kernels().crc32c(data, value)


def fnv64(data: "Buffer", value: int = FNV64_OFFSET) -> int:
    """Return the FNV-1a 64 (draft-eastlake-fnv) of the bytes whose hash is ``value``, then ``data``, as an integer."""
    return _kernels().fnv64(data, value)


def xor(data: "Buffer", imm: int, value: int = 0) -> int:
    """Return ``value`` XOR ``byte ^ imm`` for each byte of ``data``; ``imm``, ``value`` and the result are 0..255."""
    return _kernels().xor(data, imm, value)


def add(data: "Buffer", imm: int, value: int = 0) -> int:
    """Return ``value`` plus the sum of ``(byte + imm) mod 256`` over the bytes of ``data``; ``imm`` is 0..255."""
    return _kernels().add(data, imm, value)


def crc32c_combine(a: int, b: int, len_b: int) -> int:
    """Return the CRC-32C of two ranges end to end: ``a`` is the first's, ``b`` the second's, of ``len_b`` bytes.

    Takes tens of nanoseconds in C whatever the length, up to ``2**63 - 1``. The method is that of zlib's
    ``crc32_combine``.
    """
    return _kernels().crc32c_combine(a, b, len_b)


def fused(data: "Buffer", ops: Sequence[OpSpec], values: Sequence[int]) -> list[int]:
    """Return the new value of each op, in order, in one pass over memory.

    ``values`` holds the running value of each op. ``data`` is walked in blocks that stay in the CPU's cache while each
    op runs over them, and the GIL is let go once for all of it. Raises as the single kernels do, naming the index in
    ``ops`` or ``values``. For many chunks, :func:`plan` parses ``ops`` only once.
    """
    return plan(ops).run(data, values)


def plan(ops: Sequence[OpSpec]) -> Plan:
    """Return ``ops`` made ready, for a caller that feeds chunk after chunk to :meth:`Plan.run`.

    A mapping's ``seed`` is ignored: running values are given to ``run``. Raises ``TypeError`` or ``ValueError`` naming
    the index of the op at fault.
    """
    # The exact types first: asking whether a list is a Mapping takes longer than making its plan.
    listed = type(ops) in (list, tuple)
    if not listed and (isinstance(ops, (str, bytes, Mapping)) or not isinstance(ops, Iterable)):
        raise TypeError(f"ops must be a sequence of ops, not '{type(ops).__name__}'")
    kernels, given = _kernels(), tuple(ops)
    plain = kernels.plan_plain(given)
    return plain if plain is not None else kernels.plan(tuple(_step(op, f"ops[{i}]") for i, op in enumerate(given)))


def implementations() -> dict[str, tuple[str, ...]]:
    """Return, for each op, the names of the implementations that run on this machine, best first."""
    python = _fallback.implementations()
    if _native_error is not None:
        return python
    native = _native_implementations()
    return {op: native[op] + python[op] for op in OPS}


def active() -> dict[str, str]:
    """Return, for each op, the name of the implementation in use.

    Raises :class:`~packetfs_compute.errors.ConfigurationError` where ``PACKETFS_FORCE_KERNEL`` names none there is.
    """
    return _kernels().active


def native_error() -> str | None:
    """Return why the C extension is not in use, or ``None`` where it was loaded."""
    return _native_error


def using(implementation: str | None = None) -> Kernels:
    """Return kernels bound to the implementation of this name, or each op's best; the environment is not asked.

    Ops that have none of this name run on the best of their own that stands below it: with ``avx2`` that may be ``sse42``,
    and in the end ``portable``. Raises ``ValueError`` where no op has one.
    """
    known = sorted({name for names in implementations().values() for name in names})
    if implementation is not None and implementation not in known:
        raise ValueError(f"no kernel is called {implementation!r} here: known are {', '.join(known)}")
    if implementation == "python" or _native_error is not None:
        return _fallback.Kernels()
    return _NativeKernels(implementation)


@cache
def _kernels() -> Kernels:
    """Return the kernels that this process runs on, chosen at the first call."""
    name = os.environ.get(_VARIABLE, "").strip() or None
    try:
        return using(name)
    except ValueError as error:
        hint = "unset it to run each op on the best there is"
        raise ConfigurationError(f"{_VARIABLE}: {error}", {"field": _VARIABLE, "hint": hint}) from None


def _step(op: object, where: str) -> tuple[str, int]:
    """Return an :data:`OpSpec` as a name and an immediate; ``where`` is for the error."""
    name, imm = _fields(op, where)
    if not isinstance(name, str):
        raise TypeError(f"{where}: the name must be a string, not '{type(name).__name__}'")
    if name not in OPS:
        raise ValueError(f"{where} is {name[:64]!r}: known are {', '.join(OPS)}")
    if name not in OPS_WITH_IMM:
        if imm is not None:
            raise ValueError(f"{where}: {name} takes no imm")
        return name, 0
    if imm is None:
        raise ValueError(f"{where}: {name} needs an imm from 0 to 255")
    return name, _fallback.integer(imm, f"{where}: imm", 255)


def _fields(op: object, where: str) -> tuple[object, object]:
    if isinstance(op, str):
        return op, None
    if isinstance(op, Mapping):
        unknown = sorted(str(key) for key in op if key not in _OP_FIELDS)
        if unknown:
            raise ValueError(f"{where}: {unknown[0]} is not a known field")
        return op.get("op"), op.get("imm")
    if isinstance(op, (tuple, list)) and len(op) == 2:
        return op[0], op[1]
    raise TypeError(f"{where} must be a name, a (name, imm) pair or a mapping, not '{type(op).__name__}'")
