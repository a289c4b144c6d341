"""HTTP/1.1 answers as text: the head, the framing of the body, a chunk's size. Pure; the strict half of RFC 9112.

The standard library's client is lenient where being lenient gives wrong bytes: it takes the end of the connection
inside a head for the head's end, ``-5`` and ``1_0`` for chunk sizes, any two bytes for a chunk's CRLF, and a
Content-Length that is no number for none at all. Here each of these is an error by name.
"""

import re
from dataclasses import dataclass
from typing import Final

from packetfs_compute.errors import SourceFailed
from packetfs_compute.names import MAX_INTEGER
from packetfs_compute.validation import show

__all__ = ["CHUNKED", "UNTIL_CLOSE", "Framing", "Head", "framing", "keeps_alive", "parse_chunk_size", "parse_field",
           "parse_status_line"]  # fmt: skip

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9]{2})(?: [^\x00\r\n]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,13})[ \t]*(?:;[^\x00\r\n]*)?")
_DIGITS: Final = re.compile(r"[0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Head:
    """Status and fields of one answer; field names are in lower case, ``minor`` is HTTP's minor version."""

    status: int
    minor: int
    fields: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Return every value of the field ``name``, in order."""
        return [value for key, value in self.fields if key == name]

    def one(self, name: str) -> str | None:
        """Return the value of a field that may stand once; ``None`` when it is missing, or ambiguous."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None

    def tokens(self, name: str) -> list[str]:
        """Return the items of a comma-separated field in lower case."""
        return [item.strip().lower() for value in self.all(name) for item in value.split(",") if item.strip()]


@dataclass(frozen=True, slots=True)
class Framing:
    """How the body ends (RFC 9112, section 6.3): after ``length`` bytes, by its last chunk, or with the connection."""

    kind: str
    length: int | None = None


CHUNKED: Final = Framing("chunked")
UNTIL_CLOSE: Final = Framing("close")


def parse_status_line(line: bytes) -> tuple[int, int]:
    """Return (status, minor version) of an answer's first line; raise :class:`SourceFailed` when it is not HTTP/1."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise SourceFailed(f"the source does not speak HTTP/1.1: it said {show(line)}")
    return int(match[2]), int(match[1])


def parse_field(line: bytes) -> tuple[str, str]:
    """Return (lower-case name, value) of one field line; raise :class:`SourceFailed` when it is none."""
    match = _FIELD.fullmatch(line)
    if match is None:
        raise SourceFailed(f"the source sent the header line {show(line)}")
    return match[1].decode("ascii").lower(), match[2].rstrip(b" \t").decode("latin-1")


def parse_chunk_size(line: bytes) -> int:
    """Return the size in one chunk's first line (RFC 9112, section 7.1); extensions are ignored."""
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise SourceFailed(f"the source sent the chunk size {show(line)}")
    return int(match[1], 16)


def framing(head: Head) -> Framing:
    """Return how the body of ``head`` ends; raise :class:`SourceFailed` when that is not beyond doubt.

    Content-Length beside Transfer-Encoding, two lengths, and codings other than ``chunked`` are how one answer is made
    to look like another to the next reader (RFC 9112, sections 6.1 to 6.3 and 11.2): they are refused, not repaired.
    """
    codings, lengths = head.tokens("transfer-encoding"), head.all("content-length")
    if codings and lengths:
        raise SourceFailed("the source sent both Content-Length and Transfer-Encoding")
    if codings:
        if codings != ["chunked"] or head.minor == 0:
            raise SourceFailed(f"the source sent Transfer-Encoding {show(', '.join(codings))}")
        return CHUNKED
    if len(lengths) > 1:
        raise SourceFailed("the source sent more than one Content-Length")
    if not lengths:
        return UNTIL_CLOSE
    if not _DIGITS.fullmatch(lengths[0]) or int(lengths[0]) > MAX_INTEGER:
        raise SourceFailed(f"the source sent Content-Length {show(lengths[0])}")
    return Framing("length", int(lengths[0]))


def keeps_alive(head: Head) -> bool:
    """Return whether the connection may carry another request afterwards (RFC 9112, section 9.3)."""
    options = head.tokens("connection")
    return "close" not in options and (head.minor > 0 or "keep-alive" in options)
