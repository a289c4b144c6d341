"""What a cache of results is, and under which names values are kept in it.

A value is kept under the object, its version, the range and the operation; nothing else can change it (DESIGN, section 2).
An object is named by its canonical URL, so that every signature of one object finds the same values; by its strong ETag,
which is its version; and, where it is in a store that settings name, by that store. Objects that are local files are not
kept: a path is another file on every host.

Who may submit jobs may ask for any version's values, and is told what is known without a look at the source. That is no
new power where the dispatcher reads with the fleet's own credentials. A presigned URL's values are known to those who know
the object's URL and its ETag; ``policy.cache`` false neither asks for a job's values nor keeps them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from packetfs_compute.presigned import canonical_url
from packetfs_compute.program import Op, Program

__all__ = ["NOTED", "Kept", "Known", "ResultCache", "cache_key", "kept_of", "note_field", "notes_key", "op_key"]

NOTED: Final = "last"


@dataclass(frozen=True, slots=True)
class Kept:
    """One value as it is kept: ``value`` as the kernels give it, and where it was computed.

    ``substrate`` is the places' names with commas between them, where a scan was computed on several.
    """

    value: int
    substrate: str
    region: str

    @property
    def places(self) -> tuple[str, ...]:
        """The names of all places that it came from."""
        return tuple(self.substrate.split(","))

    def to_text(self) -> str:
        """Return it on one line."""
        return f"{self.value} {self.substrate} {self.region}"

    @classmethod
    def from_text(cls, text: str) -> "Kept":
        """Return what was kept; raise :class:`ValueError` for what no cache of this version has written."""
        value, substrate, region = text.split(" ", 2)
        return cls(int(value), substrate, region)


@dataclass(frozen=True, slots=True)
class Known:
    """All values of a program, and the places that computed them, in the order of its ops. Sizes are bytes."""

    program: Program
    object_size: int
    values: tuple[Kept, ...]

    @property
    def places(self) -> frozenset[str]:
        """Return the names of all places that it came from."""
        return frozenset(name for kept in self.values for name in kept.places)

    def answer(self) -> dict[str, Any]:
        """Return it as a successful answer of the wire that took no time."""
        program = self.program
        length = self.object_size - program.offset if program.length is None else program.length
        return {
            "success": True,
            "results": [op.render(kept.value) for op, kept in zip(program.ops, self.values, strict=True)],
            "bytesProcessed": length,
            "objectSize": self.object_size,
            "etag": program.etag,
            "executionTimeMs": 0.0,
            "fetchTimeMs": 0.0,
            "region": self.values[0].region,
        }


class ResultCache(Protocol):
    """Values that were computed. It never raises: what it cannot tell is not known, what it cannot keep is let go.

    Any number of threads may use one.
    """

    def look(self, program: Program) -> Known | None:
        """Return what is known of ``program``: every value of it, or ``None``. One that pins no version is not known."""

    def keep(self, program: Program, answer: Mapping[str, Any], substrate: str, *, sure: bool) -> None:
        """Keep the values of ``answer``, a successful response of the wire that ``substrate`` gave.

        An answer with no strong ETag or no size is let go. ``sure`` values replace what is kept; others only add to it.
        """

    def note(self, program: Program, texts: Sequence[str]) -> None:
        """Note a text for each op of ``program``, in place of what was noted before.

        It is noted of the object whatever its version, and of all ranges with the program's first byte.
        """

    def noted(self, program: Program) -> tuple[str, ...] | None:
        """Return what was noted last for each op of ``program``; ``None`` where that is not known of every one."""


def cache_key(url: str, etag: str, store: str | None = None) -> str | None:
    """Return the name of one version of the object at ``url``: 64 hex digits; ``None`` where nothing is to be kept of it.

    ``store`` is the S3-compatible store that ``s3://`` means, ``None`` for AWS. The name is a digest, since URLs carry
    secrets and have any length. In s3:// URLs nothing is cut away: ``?`` and ``#`` are characters of a key.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "s3":
        name = f"{store or ''} s3{url[2:]}"
    elif scheme in ("http", "https"):
        name = canonical_url(url)
    else:
        return None
    # No ETag has a line break in it, so that no two pairs make one text.
    return hashlib.sha256(f"{name}\n{etag}".encode("utf-8", "surrogatepass")).hexdigest()


def notes_key(url: str, store: str | None = None) -> str | None:
    """Return the name of an object's notes, as :func:`cache_key` does of a version; no ETag is without its quotes."""
    return cache_key(url, "", store)


def note_field(program: Program, op: Op) -> str:
    """Return under which name an op's note is kept: as a value is, with a word in place of the range's length."""
    return f"{program.offset}:{NOTED}:{op_key(op)}"


def op_key(op: Op) -> str:
    """Return the name of an operation: with its immediate, and for ``fnv64`` the value that it starts from."""
    if op.name == "fnv64":
        return f"{op.name}:{op.identity:016x}"
    return op.name if op.imm is None else f"{op.name}:{op.imm}"


def kept_of(program: Program, answer: Mapping[str, Any], substrate: str) -> dict[str, str]:
    """Return the values of ``answer`` as they are kept, each under its range and operation.

    A range to the object's end is kept under its length, which the version fixes.
    """
    before = f"{program.offset}:{answer['bytesProcessed']}:"
    kept = {}
    for op, result in zip(program.ops, answer["results"], strict=True):
        value = int(result["value"], 16) if op.name == "fnv64" else result["value"]
        kept[before + op_key(op)] = Kept(value, substrate, answer["region"]).to_text()
    return kept
