"""HTTP/1.1 answers as h11 parsed them, and what we refuse although h11 takes it. Pure.

h11 reads heads, chunks and trailers strictly by RFC 9112, and h11 must agree with us on where a body ends. Where it
repairs or prefers, and an honest server gives no reason to, an answer is refused here instead: an HTTP version other
than 1.x (h11 takes any two digits), Content-Length twice (h11 folds equal ones) or beside Transfer-Encoding (h11
prefers the latter), a length past 2**53, and chunks from HTTP/1.0.
"""

import re
from dataclasses import dataclass
from typing import Final

import h11

from packetfs_compute.errors import SourceFailed
from packetfs_compute.names import MAX_INTEGER
from packetfs_compute.validation import show

__all__ = ["CHUNKED", "UNTIL_CLOSE", "Framing", "Head", "framing", "head_of", "keeps_alive"]

_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_LENGTH_LINE: Final = re.compile(rb"(?im)^content-length:[ \t]*([^\r\n]*)")


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


def head_of(response: h11.Response, sent: bytes) -> Head:
    """Return the head that h11 parsed from the bytes ``sent``; raise :class:`SourceFailed` when it is not HTTP/1.

    h11 folds equal Content-Lengths into one, as RFC 9112, section 6.3 lets it: here they stand as they were sent, for
    :func:`framing` to judge. (A line that continues another begins with a blank, so none is taken for a field.)
    """
    if not response.http_version.startswith(b"1."):
        raise SourceFailed(f"the source does not speak HTTP/1.1: it answered in HTTP/{response.http_version.decode()}")
    fields = [(name, value) for name, value in response.headers if name != b"content-length"]
    fields += [(b"content-length", value.rstrip(b" \t")) for value in _LENGTH_LINE.findall(sent)]
    text = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in fields)
    return Head(response.status_code, int(response.http_version[2:]), text)


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
