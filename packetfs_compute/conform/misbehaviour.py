"""Servers that break HTTP's rules, each in its own way, with what must come of each: the right bytes, or a typed error.

The table is one for all readers. Our own reader, which parses HTTP itself, is held to every word of it
(``tests/unit/sources/test_misbehaving_servers.py``). A reader on a platform's ``fetch`` sees only what that lets through:
what it may have repaired unseen is marked ``repairable``, and there the right value is taken too; never another one.
"""

import gzip
from dataclasses import dataclass
from typing import Final

from packetfs_compute.conform.origin import Exchange, Script, answer, honest, says
from packetfs_compute.errors import (
    AttemptTimeout,
    ForbiddenSource,
    JobError,
    RangeNotSatisfiable,
    SourceChanged,
    SourceFailed,
    SourceNotFound,
)

__all__ = ["CASES", "DATA", "DEFAULT_MAX_SKIP", "Case", "silent_after"]

DATA: Final = bytes(at * at % 251 for at in range(1000))
"""The object, as an honest server would give it."""
DEFAULT_MAX_SKIP: Final = 1 << 20

PART = DATA[100:150]
RANGE = "Content-Range: bytes 100-149/1000"
LENGTH = "Content-Length: 50"
CHUNKED = "Transfer-Encoding: chunked"
TAG = 'ETag: "v1"'
P206 = "206 Partial Content"
P416 = "416 Range Not Satisfiable"


def chunks(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + last


@dataclass(frozen=True)
class Case:
    """A server, what is asked of it, and what must come of it: bytes, or an error with these details.

    ``retryable``, ``details``, ``says`` (a part of the message), ``stall_s`` and ``max_skip`` (settings of the reader) are
    for our own reader alone.
    """

    name: str
    script: Script
    want: bytes | type[JobError] = SourceFailed
    offset: int = 100
    length: int | None = 50
    etag: str | None = None
    retryable: bool | None = None
    details: dict[str, object] | None = None
    says: str = ""
    budget_s: float = 5.0
    stall_s: float = 5.0
    max_skip: int = DEFAULT_MAX_SKIP
    repairable: bool = False


def drip(before: bytes, byte: bytes) -> Script:
    def script(x: Exchange) -> None:
        x.send(before)
        while not x.wait(0.02):
            x.send(byte)

    return script


def endless(before: bytes, block: bytes) -> Script:
    def script(x: Exchange) -> None:
        x.send(before)
        while not x.server.closing.is_set():
            x.send(block)

    return script


def silent_after(before: bytes) -> Script:
    """Return the script that sends ``before`` and then nothing more."""

    def script(x: Exchange) -> None:
        x.send(before)
        x.wait(10)

    return script


def reset_after(before: bytes) -> Script:
    def script(x: Exchange) -> None:
        x.send(before)
        x.wait(0.05)
        x.reset()

    return script


def first_then(first: bytes, then: Script) -> Script:
    def script(x: Exchange) -> object:
        if x.number == 0:
            x.send(first)
            return False
        return then(x)

    return script


def only_without_range(x: Exchange) -> None:
    """Refuses every range and names no size; the whole object it does give."""
    if x.range is None:
        x.send(answer("200 OK", "Content-Length: 1000", TAG, body=DATA))
    else:
        x.send(answer(P416, "Content-Length: 0"))


def circle(x: Exchange) -> None:
    x.send(answer("302 Found", f"Location: {'object' if x.path.endswith('/a') else 'a'}", "Content-Length: 0"))


def ever_further(x: Exchange) -> None:
    x.send(answer("307 Temporary Redirect", f"Location: {x.path}x", "Content-Length: 0"))


WHOLE = answer("200 OK", "Content-Length: 1000", TAG, body=DATA)
GOOD = answer(P206, RANGE, LENGTH, TAG, body=PART)

CASES = [
    # 200 where a part was asked for.
    Case("200 with a length", says(WHOLE), PART),
    Case("200 to the end", says(WHOLE), DATA[100:], length=None),
    Case("200 past the skip cap", says(WHOLE), retryable=False, max_skip=99, says="ignores Range"),
    Case("200 chunked", says(answer("200 OK", CHUNKED, body=chunks(DATA[:130], DATA[130:]))), PART),
    Case("200 chunked to the end", says(answer("200 OK", CHUNKED, body=chunks(DATA))), DATA[100:], length=None),
    Case("200 too short", says(WHOLE), RangeNotSatisfiable, offset=990, details={"object_size": 1000}),
    Case(
        "200 chunked, too short",
        says(answer("200 OK", CHUNKED, body=chunks(DATA))),
        RangeNotSatisfiable,
        offset=990,
        details={"object_size": 1000},
    ),
    Case(
        "200 chunked, ends while skipping",
        says(answer("200 OK", CHUNKED, body=chunks(DATA))),
        RangeNotSatisfiable,
        offset=1001,
        length=None,
        details={"object_size": 1000},
    ),
    Case("200 chunked, cut in a chunk", says(answer("200 OK", CHUNKED, body=chunks(DATA)[:140])), retryable=True),
    Case(
        "200 chunked, cut in a chunk, to the end",
        says(answer("200 OK", CHUNKED, body=chunks(DATA)[:-9])),
        length=None,
        retryable=True,
        says="cut",
    ),
    Case(
        "200 chunked, no last chunk, to the end",
        says(answer("200 OK", CHUNKED, body=chunks(DATA, last=b""))),
        length=None,
        retryable=True,
        says="cut",
    ),
    Case("200 with a length, cut", says(WHOLE[:-9]), length=None, retryable=True, says="cut"),
    Case("200 until close", says(answer("200 OK", body=DATA)), PART),
    Case("200 until close, cut", says(answer("200 OK", body=DATA[:140])), retryable=True),
    Case("200 until close, to the end", says(answer("200 OK", body=DATA)), length=None, retryable=False),
    Case("203 from a meddling proxy", says(answer("203 Non-Authoritative", "Content-Length: 1000", body=DATA))),
    # Content-Range.
    Case("206 without Content-Range", says(answer(P206, LENGTH, body=PART))),
    Case("garbled", says(answer(P206, "Content-Range: bytes 100-x/1000", LENGTH, body=PART))),
    Case("another unit", says(answer(P206, "Content-Range: items 100-149/1000", LENGTH, body=PART))),
    Case("shifted", says(answer(P206, "Content-Range: bytes 101-150/1000", LENGTH, body=DATA[101:151]))),
    Case("reversed", says(answer(P206, "Content-Range: bytes 149-100/1000", LENGTH, body=PART))),
    Case("wider", says(answer(P206, "Content-Range: bytes 100-199/1000", "Content-Length: 100", body=DATA[100:200]))),
    Case("narrower", says(answer(P206, "Content-Range: bytes 100-139/1000", "Content-Length: 40", body=PART[:40]))),
    Case(
        "clamped at the end",
        says(answer(P206, "Content-Range: bytes 990-999/1000", "Content-Length: 10", body=DATA[990:])),
        RangeNotSatisfiable,
        offset=990,
        details={"object_size": 1000},
        says="[990, 1040) reaches past the object's end (1000 bytes)",
    ),
    Case("past its own total", says(answer(P206, "Content-Range: bytes 100-149/120", LENGTH, body=PART))),
    Case("total unknown", says(answer(P206, "Content-Range: bytes 100-149/*", LENGTH, body=PART)), PART),
    Case(
        "total unknown, to the end",
        says(answer(P206, "Content-Range: bytes 100-999/*", "Content-Length: 900", body=DATA[100:])),
        length=None,
    ),
    Case("open range cut short", says(GOOD), length=None),
    Case("two Content-Ranges", says(answer(P206, RANGE, RANGE, LENGTH, body=PART))),
    Case(
        "multipart for one range",
        says(answer(P206, "Content-Type: multipart/byteranges; boundary=x", RANGE, LENGTH, body=PART)),
        says="multipart",
    ),
    # The body and its framing.
    Case("short body with a length", says(answer(P206, RANGE, LENGTH, body=PART[:30])), retryable=True, says="cut"),
    Case("short body until close", says(answer(P206, RANGE, body=PART[:30])), retryable=True, says="cut"),
    Case(
        "Content-Length too large",
        says(answer(P206, RANGE, "Content-Length: 60", body=PART + PART[:10])),
        says="for a range of",
    ),
    Case("Content-Length too small", says(answer(P206, RANGE, "Content-Length: 40", body=PART)), says="for a range of"),
    Case("extra bytes after the length", says(GOOD, b"extra"), PART),
    Case("extra bytes until close", says(answer(P206, RANGE, body=PART + b"extra")), retryable=True),
    Case("chunked", says(answer(P206, RANGE, CHUNKED, body=chunks(PART[:7], PART[7:]))), PART),
    Case("chunked cut in a chunk", says(answer(P206, RANGE, CHUNKED, body=chunks(PART)[:30])), retryable=True),
    Case("chunked cut in a size", says(answer(P206, RANGE, CHUNKED, body=chunks(PART[:9], last=b"2"))), retryable=True),
    Case("chunked, no last chunk", says(answer(P206, RANGE, CHUNKED, body=chunks(PART, last=b""))), retryable=True),
    Case(
        "chunked, trailer cut",
        says(answer(P206, RANGE, CHUNKED, body=chunks(PART, last=b"0\r\n"))),
        retryable=True,
        repairable=True,
    ),
    Case("chunked, too many bytes", says(answer(P206, RANGE, CHUNKED, body=chunks(PART, b"more")))),
    Case("chunked, too few bytes", says(answer(P206, RANGE, CHUNKED, body=chunks(PART[:40])))),
    Case(
        "chunk size negative",
        says(answer(P206, RANGE, CHUNKED, body=b"-32\r\n" + PART + b"\r\n0\r\n\r\n")),
        repairable=True,
    ),
    Case(
        "chunk size with underscore",
        says(answer(P206, RANGE, CHUNKED, body=b"3_2\r\n" + PART + b"\r\n0\r\n\r\n")),
        repairable=True,
    ),
    Case(
        "chunk longer than its size",
        says(answer(P206, RANGE, CHUNKED, body=b"1f\r\n" + PART + b"\r\n0\r\n\r\n")),
        repairable=True,
    ),
    Case(
        "chunk ended by a lone LF",
        says(answer(P206, RANGE, CHUNKED, body=b"32\r\n" + PART + b"\n0\r\n\r\n")),
        repairable=True,
    ),
    Case(
        "chunks from HTTP/1.0",
        says(answer(P206, RANGE, CHUNKED, body=chunks(PART)).replace(b"1.1", b"1.0", 1)),
        repairable=True,
    ),
    Case("length and chunked", says(answer(P206, RANGE, LENGTH, CHUNKED, body=chunks(PART))), repairable=True),
    Case("two lengths", says(answer(P206, RANGE, LENGTH, "Content-Length: 40", body=PART)), repairable=True),
    Case("two equal lengths", says(answer(P206, RANGE, LENGTH, LENGTH, body=PART)), repairable=True),
    Case("a list of lengths", says(answer(P206, RANGE, "Content-Length: 50, 50", body=PART)), repairable=True),
    Case("length negative", says(answer(P206, RANGE, "Content-Length: -50", body=PART)), repairable=True),
    Case("length no number", says(answer(P206, RANGE, "Content-Length: 5_0", body=PART)), repairable=True),
    Case("length huge", says(answer("200 OK", "Content-Length: 99999999999999999999", body=DATA)), repairable=True),
    Case(
        "another transfer coding",
        says(answer(P206, RANGE, "Transfer-Encoding: gzip, chunked", body=chunks(PART))),
        repairable=True,
    ),
    Case(
        "gzip, though identity was asked for",
        says(answer(P206, RANGE, LENGTH, "Content-Encoding: gzip", body=gzip.compress(PART).ljust(50))),
        retryable=False,
        says="gzip",
    ),
    Case(
        "a bomb",
        says(answer("200 OK", "Content-Encoding: gzip", body=gzip.compress(bytes(1 << 24)))),
        offset=0,
        length=1 << 24,
    ),
    # 416 and empty objects.
    Case("416 at the end", says(answer(P416, "Content-Range: bytes */1000")), b"", offset=1000, length=None),
    Case(
        "416 past the end",
        says(answer(P416, "Content-Range: bytes */1000")),
        RangeNotSatisfiable,
        offset=1001,
        details={"object_size": 1000},
    ),
    Case(
        "416 without a total",
        first_then(answer(P416), honest(DATA)),
        RangeNotSatisfiable,
        offset=2000,
        details={"object_size": 1000},
    ),
    Case("416 without a total, at the end", first_then(answer(P416), honest(DATA)), b"", offset=1000, length=None),
    Case("416 to every range", only_without_range, PART),
    Case("416 to everything", says(answer(P416)), offset=0, length=None),
    Case("416 within the object", says(answer(P416, "Content-Range: bytes */1000")), says="within"),
    Case("416 without a total, within", first_then(answer(P416), honest(DATA)), says="within"),
    Case("empty object, 416", says(answer(P416, "Content-Range: bytes */0")), b"", offset=0, length=None),
    Case("empty object, 200", says(answer("200 OK", "Content-Length: 0")), b"", offset=0, length=None),
    Case("empty object, bare 416", first_then(answer(P416), honest(b"")), b"", offset=0, length=None),
    # Other statuses.
    Case("204", says(answer("204 No Content"))),
    Case("304 to no condition", says(answer("304 Not Modified"))),
    Case("404 with a page", says(answer("404 Not Found", "Content-Length: 5", body=b"sorry")), SourceNotFound),
    Case("410", says(answer("410 Gone")), SourceNotFound, retryable=False),
    Case("403 with a page", says(answer("403 Forbidden", "Content-Length: 5", body=b"sorry")), retryable=False),
    Case("418", says(answer("418 I'm a teapot")), retryable=False),
    Case("500", says(answer("500 Oops")), retryable=True),
    Case("503, later", says(answer("503 Busy", "Retry-After: 7")), retryable=True, details={"retry_after_s": 7.0}),
    Case(
        "503, at a time",
        says(answer("503 Busy", "Retry-After: Thu, 01 Jan 1970 00:01:40 GMT")),
        retryable=True,
        details={"retry_after_s": 40.0},
    ),
    Case("429, much later", says(answer("429 Slow down", "Retry-After: 86400")), details={"retry_after_s": 300.0}),
    # The pinned version.
    Case("412", says(answer("412 Precondition Failed")), SourceChanged, etag='"v1"'),
    Case("If-Match ignored, changed", says(GOOD), SourceChanged, etag='"v0"'),
    Case("pinned, weak", says(answer(P206, RANGE, LENGTH, 'ETag: W/"v1"', body=PART)), SourceChanged, etag='"v1"'),
    Case("pinned, no ETag", says(answer(P206, RANGE, LENGTH, body=PART)), SourceChanged, etag='"v1"'),
    Case("pinned, two ETags", says(answer(P206, RANGE, LENGTH, TAG, TAG, body=PART)), SourceChanged, etag='"v1"'),
    Case(
        "changed, and shorter",
        says(answer(P416, "Content-Range: bytes */10", 'ETag: "v2"')),
        SourceChanged,
        etag='"v1"',
    ),
    # Redirects.
    Case("redirects in a circle", circle, retryable=False, says="circle"),
    Case("redirects without end", ever_further, retryable=False, says="more than 5"),
    Case("redirect to nowhere", says(answer("301 Moved")), retryable=False, says="nowhere"),
    Case("redirect to nonsense", says(answer("302 Found", "Location: http://[::1/")), says="no usable URL"),
    Case("redirect inside", says(answer("302 Found", "Location: http://169.254.169.254/")), ForbiddenSource),
    # Time.
    Case("drip of body", drip(answer(P206, RANGE, LENGTH), b"x"), AttemptTimeout, budget_s=0.4),
    Case("drip of head", drip(b"HTTP/1.1 200 OK\r\n", b"X"), AttemptTimeout, budget_s=0.4),
    Case("drip of status line", drip(b"", b"H"), AttemptTimeout, budget_s=0.4),
    Case("drip of interim answers", drip(b"HTTP/1.1 100 C", b"o"), AttemptTimeout, budget_s=0.4),
    Case("drip of chunks", drip(answer(P206, RANGE, CHUNKED), b"1\r\nx\r\n"), AttemptTimeout, budget_s=0.4),
    Case("silence", silent_after(b""), says="stalled", stall_s=0.2),
    Case("silence until the deadline", silent_after(b""), AttemptTimeout, budget_s=0.3),
    Case("silence in the head", silent_after(b"HTTP/1.1 200 OK\r\n"), says="stalled", stall_s=0.2),
    Case("silence in the body", silent_after(answer(P206, RANGE, LENGTH, body=PART[:9])), says="stalled", stall_s=0.2),
    Case(
        "silence where the end belongs",
        silent_after(answer(P206, RANGE, body=PART)),
        says="stalled",
        stall_s=0.2,
        repairable=True,
    ),
    Case(
        "endless body",
        endless(answer("200 OK", CHUNKED), chunks(bytes(4096), last=b"")),
        AttemptTimeout,
        length=None,
        budget_s=0.4,
    ),
    Case("endless interim answers", endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), says="1xx", repairable=True),
    Case(
        "endless fields",
        endless(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1000 + b"\r\n"),
        says="head is too long",
    ),
    Case("endless line", endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000), says="too long"),
    Case("endless chunk extension", endless(answer(P206, RANGE, CHUNKED, body=b"1;"), b"x" * 1000), says="chunk size"),
    Case(
        "endless trailer",
        endless(answer(P206, RANGE, CHUNKED, body=chunks(PART)[:-2]), b"X: y\r\n"),
        says="trailer",
        repairable=True,
    ),
    # Not HTTP, and broken connections.
    Case(
        "interim answers", says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", GOOD), PART
    ),
    Case("101", says(answer("101 Switching Protocols", "Upgrade: h2c")), says="101"),
    Case("not HTTP", says(b"SSH-2.0-OpenSSH_9.2\r\n"), says="HTTP/1.1"),
    Case("not HTTP and no line", endless(b"", bytes(4096))),
    Case("HTTP/2", says(b"HTTP/2 200\r\n\r\n" + PART), repairable=True),
    Case("HTTP/2.0", says(GOOD.replace(b"1.1", b"2.0", 1)), says="does not speak HTTP/1.1", repairable=True),
    Case("lines ended by a lone LF", says(answer(P206, RANGE, LENGTH).replace(b"\r\n", b"\n"), PART), PART),
    Case("HTTP/0.9", says(PART + b"\n")),
    Case("status out of range", says(answer("999 Odd"))),
    Case("NUL in a field", says(answer(P206, RANGE, LENGTH, "X: a\0b", body=PART)), repairable=True),
    Case("space before the colon", says(answer(P206, RANGE, "Content-Length : 50", body=PART)), repairable=True),
    Case("folded length", says(answer(P206, RANGE, "Content-Length: 5\r\n 0", body=PART)), repairable=True),
    Case("folded field", says(answer(P206, "X: a\r\n b", RANGE, LENGTH, body=PART)), PART),
    Case("closed at once", says(b""), retryable=True, says="without an answer"),
    Case("cut in the head", says(answer(P206, RANGE, LENGTH)[:-2]), retryable=True, says="head"),
    Case("reset at once", reset_after(b""), retryable=True),
    Case("reset in the head", reset_after(b"HTTP/1.1 206 P"), retryable=True),
    Case("reset in the body", reset_after(answer(P206, RANGE, LENGTH, body=PART[:9])), retryable=True),
]
