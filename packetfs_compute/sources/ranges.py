"""HTTP's byte ranges (RFC 9110, sections 13 to 15), decided purely: what to ask, and what an answer means.

The one module that knows HTTP's inclusive form; everywhere else a range is ``[offset, stop)``. Theory of operation::

    ask RANGE ──206, exactly as asked──> read it
        │ ├──200──> skip to the offset, read, stop            (the source ignores Range)
        │ └──416──> the object ends before: empty, or an error that names its size
        └──416 that names no size, or no version while one is pinned──> ask PROBE (bytes=0-0)
    ask PROBE ──206──> its size and version decide            (also the first ask for an empty range: HTTP has no such)
        └──416 again──> ask WHOLE (no Range): only its 200 with no bytes proves that the object is empty

An answer is taken only when it proves which bytes follow. ``Content-Range`` must name exactly the bytes asked for; a
range that the source cut at the object's end is :class:`RangeNotSatisfiable`, because a checksum of fewer bytes than
asked for is never given. A pinned version must be proven by a strong ETag in the answer itself: a source may ignore
``If-Match``. HEAD is never sent, since a presigned S3 URL is signed for GET alone.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from packetfs_compute import __version__
from packetfs_compute.errors import JobError, RangeNotSatisfiable, SourceChanged, SourceFailed, SourceNotFound
from packetfs_compute.names import MAX_ETAG_CHARS
from packetfs_compute.retry_after import retry_after_s
from packetfs_compute.sources.base import RangeRequest
from packetfs_compute.sources.http1 import Framing, Head, framing
from packetfs_compute.validation import STRONG_ETAG, show

__all__ = ["Ask", "Plan", "beyond", "decide", "fields", "first_ask"]

_CONTENT_RANGE: Final = re.compile(r"bytes +([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)", re.IGNORECASE)
_UNSATISFIED: Final = re.compile(r"bytes +\*/([0-9]{1,16})", re.IGNORECASE)

_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Ask(Enum):
    """What one request asks for."""

    RANGE = "range"
    PROBE = "probe"
    WHOLE = "whole"


_NEXT: Final = {Ask.RANGE: Ask.PROBE, Ask.PROBE: Ask.WHOLE}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read the answer's body: throw ``skip`` bytes away, then take ``take`` (``None``: all the rest).

    ``exact`` says that the body must end there. ``object_size`` and ``etag`` are what the answer proves of the object;
    ``framing`` is how its body ends.
    """

    skip: int
    take: int | None
    exact: bool
    object_size: int | None
    etag: str | None
    framing: Framing

    @property
    def empty(self) -> bool:
        """Whether nothing need be read."""
        return self.skip == 0 and self.take == 0


def first_ask(request: RangeRequest) -> Ask:
    """Return what to ask first: HTTP cannot ask for an empty range, so one is proven to lie within the object."""
    return Ask.PROBE if request.length == 0 else Ask.RANGE


def fields(ask: Ask, request: RangeRequest) -> list[tuple[str, str]]:
    """Return the request's header fields (``Host`` and the connection's own excepted)."""
    result = [
        ("User-Agent", f"packetfs-compute/{__version__}"),
        ("Accept", "*/*"),
        # A coded body would be other bytes than the object's, and may be a bomb (RFC 9110, section 12.5.3).
        ("Accept-Encoding", "identity"),
    ]
    if ask is Ask.PROBE:
        result.append(("Range", "bytes=0-0"))
    elif ask is Ask.RANGE:
        last = "" if request.stop is None else request.stop - 1
        result.append(("Range", f"bytes={request.offset}-{last}"))
    if request.etag is not None:
        result.append(("If-Match", request.etag))
    return result


def decide(head: Head, ask: Ask, request: RangeRequest, max_skip: int, now_s: float) -> Plan | Ask:
    """Return how to read the answer ``head`` to ``ask``, or what to ask next.

    ``now_s`` is Unix time, for a Retry-After that is a date. Raises the :class:`JobError` that the answer amounts to.
    """
    if head.status == 206:
        return _partial(_Answer(head, request), ask)
    if head.status == 200:
        return _whole(_Answer(head, request), max_skip)
    if head.status == 416:
        return _unsatisfied(head, ask, request)
    raise _refusal(head, request, now_s)


def beyond(request: RangeRequest, size: int) -> RangeNotSatisfiable:
    """Return the error for a range that reaches past the end of an object of ``size`` bytes."""
    stop = "" if request.stop is None else request.stop
    return RangeNotSatisfiable(
        f"the range [{request.offset}, {stop}) reaches past the object's end ({size} bytes)",
        {"object_size": size, "field": "program.length" if request.offset <= size else "program.offset"},
    )


class _Answer:
    """A 200 or 206 whose version and coding are checked."""

    def __init__(self, head: Head, request: RangeRequest) -> None:
        self.head = head
        self.request = request
        self.etag = _strong_etag(head)
        _check_version(head, request)
        coding = head.tokens("content-encoding")
        if coding not in ([], ["identity"]):
            raise _failed(f"the source sent Content-Encoding {show(', '.join(coding))}, though identity was asked for")
        self.framing = framing(head)

    def plan(self, skip: int, take: int | None, exact: bool, size: int | None) -> Plan:
        return Plan(skip, take, exact, size, self.etag, self.framing)


def _partial(answer: _Answer, ask: Ask) -> Plan:
    """A 206 (RFC 9110, section 15.3.7): exactly the one range that was asked for."""
    first, last, size = _content_range(answer.head)
    request = answer.request
    if ask is Ask.WHOLE:
        raise _failed("the source sent a part (206) where the whole object was asked for")
    start, stop = (0, 1) if ask is Ask.PROBE else (request.offset, request.stop)
    sent = last + 1 - first
    if answer.framing.kind == "length" and answer.framing.length != sent:
        raise _failed(f"the source sent Content-Length {answer.framing.length} for a range of {sent} bytes", True)
    if first == start and size is not None and last + 1 == size and stop is not None and size < stop:
        raise beyond(request, size)
    if first != start or last + 1 != (size if stop is None else stop):
        raise _failed(f"the source sent the range {show(answer.head.one('content-range'))}, which was not asked for")
    if ask is Ask.PROBE:
        return _probed(answer, size)
    return answer.plan(0, sent, True, size)


def _probed(answer: _Answer, size: int | None) -> Plan:
    """What ``bytes=0-0`` tells of the range that is really wanted: an empty one, or one that was refused (416)."""
    request = answer.request
    if request.length == 0:
        if size is None and request.offset > 1:
            raise _failed("the source does not tell the object's size")
        if size is not None and request.offset > size:
            raise beyond(request, size)
        return answer.plan(0, 0, False, size)
    if size is None:
        raise _failed("the source refuses the range (416) and does not tell the object's size")
    if request.offset < size and (request.stop or 0) <= size:
        raise _failed(f"the source refuses (416) a range that lies within the object ({size} bytes)", True)
    if request.length is None and request.offset == size:
        return answer.plan(0, 0, False, size)
    raise beyond(request, size)


def _whole(answer: _Answer, max_skip: int) -> Plan:
    """A 200: the whole object, because the source ignores Range (RFC 9110, section 14.2) or was asked without one."""
    request, size = answer.request, answer.framing.length
    if size is not None and (request.offset > size or (request.stop or 0) > size):
        raise beyond(request, size)
    if request.length is None and answer.framing.kind == "close":
        # The end of the connection is also what a cut looks like.
        raise _failed("the source ignores Range and does not tell where the object ends")
    if request.length == 0 and size is not None:
        return answer.plan(0, 0, False, size)
    if request.offset > max_skip:
        raise SourceFailed(
            f"the source ignores Range, and {request.offset} bytes would have to be skipped",
            {"retryable": False, "hint": f"PACKETFS_MAX_SKIP_BYTES is {max_skip}"},
        )
    take = request.length if size is None or request.length is not None else size - request.offset
    return answer.plan(request.offset, take, request.length is None, size)


def _unsatisfied(head: Head, ask: Ask, request: RangeRequest) -> Plan | Ask:
    """A 416 (RFC 9110, section 15.5.17): past the end, or just at it, which for us is an empty range."""
    if head.all("etag"):
        _check_version(head, request)
    match = _UNSATISFIED.fullmatch(head.one("content-range") or "")
    unproven = request.etag is not None and not head.all("etag")
    if match is None or unproven or (ask is Ask.PROBE and match[1] != "0"):
        if ask in _NEXT:
            return _NEXT[ask]
        raise _failed("the source refuses (416) even the whole object")
    size = int(match[1])
    if request.offset > size or (request.stop or 0) > size:
        raise beyond(request, size)
    if request.offset < size:
        raise _failed(f"the source refuses (416) a range that lies within the object ({size} bytes)", True)
    return Plan(0, 0, False, size, _strong_etag(head), framing(head))


def _content_range(head: Head) -> tuple[int, int, int | None]:
    """Return (first, last, size) of a 206, inclusive as HTTP has them, after checking that they make sense."""
    kind = (head.one("content-type") or "").lower()
    if kind.startswith("multipart/byteranges"):
        raise _failed("the source sent several parts (multipart/byteranges) for one range")
    value = head.one("content-range")
    match = _CONTENT_RANGE.fullmatch(value or "")
    if match is None:
        raise _failed(f"the source sent a part (206) with Content-Range {show(value)}")
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if last < first or (size is not None and last >= size):
        raise _failed(f"the source sent the impossible Content-Range {show(value)}")
    return first, last, size


def _check_version(head: Head, request: RangeRequest) -> None:
    if request.etag is None:
        return
    etag = _strong_etag(head)
    if etag is None:
        raise SourceChanged("the source does not prove the pinned version: its answer has no strong ETag")
    if etag != request.etag:
        raise SourceChanged(f"the object is now {show(etag)}, not the pinned {show(request.etag)}", {"etag": etag})


def _strong_etag(head: Head) -> str | None:
    """Return the answer's ETag; ``None`` for a weak one, which promises no equal bytes (RFC 9110, section 8.8.1)."""
    etag = head.one("etag")
    return etag if etag and len(etag) <= MAX_ETAG_CHARS and STRONG_ETAG.fullmatch(etag) else None


def _refusal(head: Head, request: RangeRequest, now_s: float) -> JobError:
    """Return the error for every other status."""
    status = head.status
    details: dict[str, str | float] = {"http_status": status, "retryable": status in _RETRYABLE}
    if status in (404, 410):
        return SourceNotFound(f"the source has no such object ({status})", details)
    if status == 412 and request.etag is not None:
        return SourceChanged(f"the object is no longer {show(request.etag)} (412)", details)
    if status in (401, 403):
        hint = (
            "check the URL's signature and that it has not expired; use s3:// or a presigned URL for a private object"
        )
        return SourceFailed(f"the source refuses access ({status})", details | {"hint": hint})
    if status in _RETRYABLE:
        retry_after = retry_after_s(head.one("retry-after"), now_s)
        if retry_after is not None:
            details |= {"retry_after_s": retry_after}
    return SourceFailed(f"the source answered with status {status}", details)


def _failed(message: str, retryable: bool = False) -> SourceFailed:
    return SourceFailed(message, {"retryable": retryable})
