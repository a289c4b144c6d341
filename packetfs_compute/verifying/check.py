"""What a check is, what came of one, and how the first is read from fields: pure."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from packetfs_compute.names import MAX_INTEGER, MAX_URL_CHARS
from packetfs_compute.validation import show

__all__ = ["FIELDS", "Check", "Kind", "Row", "Status", "Wrong", "parse_check", "row_of"]

Kind = Literal["crc32c", "fnv64", "against", "declared"]
Status = Literal["match", "mismatch", "undeclared", "failed"]
"""``undeclared``: the store declares nothing to compare with, so that nothing is verified."""

FIELDS: Final = ("source", "crc32c", "fnv64", "against", "size")
"""What a line of a manifest may hold; with none of the middle three, the check is against what the store declares."""

_HEX: Final = {"crc32c": re.compile(r"[0-9a-f]{8}"), "fnv64": re.compile(r"[0-9a-f]{16}")}
_SOURCE: Final = re.compile(r"(?:(?:https?|s3|file)://|/).+", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0-9]{1,16}")


class Wrong(ValueError):
    """A field of a check that cannot be used: which, what is wrong with it, and what would be right."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        self.field = field
        self.problem = problem
        self.fix = fix
        super().__init__(f"{field} {problem}; {fix}")


@dataclass(frozen=True, slots=True)
class Check:
    """One object, and what it should be.

    ``expected`` is the checksum in lower-case hexadecimal, or the other source; empty for what the store declares.
    ``size`` is bytes, where that too is expected.
    """

    source: str
    kind: Kind
    expected: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a check; a line of a report. Checksums are hexadecimal, with the operation's name before them.

    ``found`` and ``found_size`` are the source's, ``wanted`` and ``wanted_size`` what they were compared with; what is
    ``None`` was not needed, or could not be had.
    """

    source: str
    kind: Kind
    expected: str
    size: int | None
    status: Status
    found: str | None = None
    wanted: str | None = None
    found_size: int | None = None
    wanted_size: int | None = None
    etag: str | None = None
    cost_usd: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    """Of a check that failed: the error's type."""
    message: str | None = None
    """In a line for a person: why it did, or why there is nothing to compare."""

    @property
    def check(self) -> Check:
        """The check that it is of."""
        return Check(self.source, self.kind, self.expected, self.size)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def parse_check(raw: Mapping[str, Any]) -> Check:
    """Return the check that the fields of ``raw`` make; raise :class:`Wrong` naming the first that cannot be used.

    A field that is ``None`` or empty is as good as absent, since a CSV file cannot leave one out.
    """
    for name in raw:
        if name not in FIELDS:
            shown = name if isinstance(name, str) and len(name) <= 32 and name.isprintable() else show(name)
            raise Wrong(shown, "is not a known field", f"known are {', '.join(FIELDS)}")
    given = {name: value for name, value in raw.items() if value is not None and value != ""}
    source = _source(given.get("source"), "source")
    kinds: list[Kind] = [kind for kind in get_args(Kind) if kind in given]
    if len(kinds) > 1:
        raise Wrong(kinds[1], f"stands beside {kinds[0]}", "give one of them a line")
    size = _size(given.get("size"))
    if not kinds:
        return Check(source, "declared", "", size)
    return Check(source, kinds[0], _expected(kinds[0], given[kinds[0]]), size)


def row_of(raw: Mapping[str, Any]) -> Row:
    """Return the row of a report in ``raw``, whose values may be text; raise :class:`ValueError` for what is none."""
    if set(raw) != {field.name for field in fields(Row)}:
        raise ValueError("not the fields of a report")
    given: dict[str, Any] = {name: None if value == "" else value for name, value in raw.items()}
    if given["kind"] not in get_args(Kind) or given["status"] not in get_args(Status) or not given["source"]:
        raise ValueError("not the values of a report")
    for name in ("size", "found_size", "wanted_size"):
        given[name] = None if given[name] is None else int(given[name])
    for name in ("cost_usd", "seconds"):
        given[name] = float(given[name])
    return Row(**{**given, "expected": given["expected"] or ""})


def _source(raw: Any, field: str) -> str:
    if not isinstance(raw, str) or not _SOURCE.fullmatch(raw):
        raise Wrong(field, f"is {show(raw)}", "give a URL (http, https, s3, file) or an absolute path, on one line")
    if len(raw) > MAX_URL_CHARS:
        raise Wrong(field, f"has {len(raw)} characters", f"use at most {MAX_URL_CHARS}")
    return raw


def _expected(kind: Kind, raw: Any) -> str:
    if kind == "against":
        return _source(raw, kind)
    digits = raw.strip().lower().removeprefix("0x") if isinstance(raw, str) else ""
    if not _HEX[kind].fullmatch(digits):
        raise Wrong(kind, f"is {show(raw)}", f"give {8 if kind == 'crc32c' else 16} hexadecimal digits")
    return digits


def _size(raw: Any) -> int | None:
    if raw is None:
        return None
    size = int(raw) if isinstance(raw, str) and _DIGITS.fullmatch(raw.strip()) else raw
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_INTEGER:
        raise Wrong("size", f"is {show(raw)}", "give the object's size in bytes")
    return size
