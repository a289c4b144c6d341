"""What is to be computed: a byte range of one object, and the operations to run over it.

A :class:`Program` can only be built valid. :func:`parse_program` turns untrusted JSON into one or raises
:class:`~packetfs_compute.errors.BadProgram`, naming the field and the fix. Its rules are those of
``remote/contract/request.schema.json``; a test holds the two together. Three of them are worth a word:

- An unknown field is refused. A misspelt ``lenght`` that is ignored would give the checksum of other bytes than
  the caller meant.
- A whole number may be written ``1`` or ``1.0``: JSON has one number type (RFC 8259, section 6), JavaScript cannot
  tell them apart, and every substrate must answer alike. ``true`` is not a number.
- An ``etag`` must be strong. A weak one promises equal meaning, not equal bytes (RFC 9110, section 8.8.1).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from packetfs_compute.names import (
    FNV64_OFFSET,
    MAX_ETAG_CHARS,
    MAX_INTEGER,
    MAX_OPS,
    MAX_RANGE_BYTES,
    MAX_URL_CHARS,
    OPS,
    OPS_WITH_IMM,
    OPS_WITH_SEED,
)
from packetfs_compute.validation import STRONG_ETAG, bad, integer, require_object, show

__all__ = ["BYTES_FIELDS", "Op", "Program", "parse_op", "parse_program", "reparsed"]

_SEED: Final = re.compile(r"[0-9a-f]{16}")
_PROGRAM_FIELDS: Final = frozenset({"data_url", "offset", "length", "ops", "op", "imm", "seed", "etag"})
_OP_FIELDS: Final = frozenset({"op", "imm", "seed"})
BYTES_FIELDS: Final = frozenset({"data_url", "offset", "length"})
"""Of a program's fields those that say over which bytes it is."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: its name, its immediate where it takes one, and for ``fnv64`` the running value to start from."""

    name: str
    imm: int | None = None
    seed: int | None = None

    @property
    def identity(self) -> int:
        """The value over no bytes at all (DESIGN, section 2); for ``fnv64`` the seed."""
        if self.name == "fnv64":
            return FNV64_OFFSET if self.seed is None else self.seed
        return 0

    def to_wire(self) -> dict[str, Any]:
        """Return the operation as it stands in a request's ``ops``."""
        wire: dict[str, Any] = {"op": self.name}
        if self.imm is not None:
            wire["imm"] = self.imm
        if self.seed is not None:
            wire["seed"] = f"{self.seed:016x}"
        return wire

    def render(self, value: int) -> dict[str, Any]:
        """Return one entry of a response's ``results``: ``fnv64`` as 16 hex digits, every other value an integer."""
        result: dict[str, Any] = {"op": self.name}
        if self.imm is not None:
            result["imm"] = self.imm
        result["value"] = f"{value:016x}" if self.name == "fnv64" else value
        return result


@dataclass(frozen=True, slots=True)
class Program:
    """A byte range of the object at ``data_url``, and the operations to run over it in one pass.

    The range is ``[offset, offset + length)`` in bytes; ``length`` ``None`` means to the object's end. ``etag`` pins
    the version.
    """

    data_url: str
    ops: tuple[Op, ...]
    offset: int = 0
    length: int | None = None
    etag: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the program as it stands in a request."""
        wire: dict[str, Any] = {
            "data_url": self.data_url,
            "offset": self.offset,
            "ops": [op.to_wire() for op in self.ops],
        }
        if self.length is not None:
            wire["length"] = self.length
        if self.etag is not None:
            wire["etag"] = self.etag
        return wire


def parse_program(raw: object) -> Program:
    """Return the program in ``raw``, a JSON object as in a request's ``program``.

    Raises :class:`BadProgram` for anything that is not one, with the offending field in ``details["field"]``.
    """
    fields = require_object(raw, "program", _PROGRAM_FIELDS)
    offset, length = _range(fields.get("offset"), fields.get("length"))
    return Program(
        data_url=_url(fields.get("data_url")),
        ops=_ops(fields),
        offset=offset,
        length=length,
        etag=_etag(fields.get("etag")),
    )


def reparsed(program: Program, fields: Mapping[str, Any]) -> Program:
    """Return ``program`` over the bytes that ``fields`` says with :data:`BYTES_FIELDS`, checked as by :func:`parse_program`.

    For many programs that differ in nothing else: what they have in common is not checked again.
    """
    offset, length = _range(fields.get("offset", program.offset), fields.get("length", program.length))
    url = _url(fields["data_url"]) if "data_url" in fields else program.data_url
    return Program(url, program.ops, offset, length, program.etag)


def parse_op(raw: object, field: str = "op") -> Op:
    """Return the operation in ``raw``, ``{"op", "imm"?, "seed"?}``; raise ``BadProgram`` with ``field`` in its name."""
    fields = require_object(raw, field, _OP_FIELDS)
    name = fields.get("op")
    if not isinstance(name, str) or name not in OPS:
        raise bad(f"{field}.op", f"is {show(name)}", f"use one of {', '.join(OPS)}")
    imm, seed = fields.get("imm"), fields.get("seed")
    if name in OPS_WITH_IMM:
        if imm is None:
            raise bad(f"{field}.imm", f"is missing, and {name} needs it", "give an integer from 0 to 255")
        imm = integer(imm, f"{field}.imm", 0, 255)
    elif imm is not None:
        raise bad(f"{field}.imm", f"is given, but {name} takes none", "leave it out")
    if seed is not None:
        if name not in OPS_WITH_SEED:
            raise bad(f"{field}.seed", f"is given, but {name} takes none", "leave it out")
        if not isinstance(seed, str) or not _SEED.fullmatch(seed):
            raise bad(f"{field}.seed", f"is {show(seed)}", "give 16 lowercase hexadecimal digits")
        seed = int(seed, 16)
    return Op(name, imm, seed)


def _range(offset: object, length: object) -> tuple[int, int | None]:
    first = 0 if offset is None else integer(offset, "program.offset", 0, MAX_INTEGER)
    return first, None if length is None else integer(length, "program.length", 0, MAX_RANGE_BYTES)


def _url(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        raise bad("program.data_url", f"is {show(raw)}", "give the object's URL as a string")
    if len(raw) > MAX_URL_CHARS:
        raise bad("program.data_url", f"has {len(raw)} characters", f"use at most {MAX_URL_CHARS}")
    return raw


def _etag(raw: object) -> str | None:
    if raw is None:
        return None
    fix = 'give a strong entity tag in its quotes, such as "\\"abc\\""'
    if not isinstance(raw, str) or len(raw) > MAX_ETAG_CHARS:
        raise bad("program.etag", f"is {show(raw)}", fix)
    if raw.startswith("W/"):
        raise bad("program.etag", f"is weak ({show(raw)}) and cannot pin bytes", fix)
    if not STRONG_ETAG.fullmatch(raw):
        raise bad("program.etag", f"is {show(raw)}", fix)
    return raw


def _ops(fields: Mapping[str, Any]) -> tuple[Op, ...]:
    ops = fields.get("ops")
    if ops is None:
        if fields.get("op") is None:
            raise bad("program.ops", "is missing", "give a list of operations, or one in program.op")
        return (parse_op({key: fields[key] for key in _OP_FIELDS if key in fields}, "program"),)
    for key in sorted(_OP_FIELDS):
        if fields.get(key) is not None:
            raise bad(f"program.{key}", "stands beside program.ops", "put it into the list, or leave the list out")
    if not isinstance(ops, (list, tuple)) or not 1 <= len(ops) <= MAX_OPS:
        raise bad("program.ops", f"is {show(ops)}", f"give a list of 1 to {MAX_OPS} operations")
    return tuple(parse_op(op, f"program.ops[{i}]") for i, op in enumerate(ops))
