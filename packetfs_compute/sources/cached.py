"""HTTP sources with a cache of blocks in front: the source is always asked, but only for the bytes that are not here.

What is kept is never trusted to be current: each range is opened at the source, which says with its answer that we may
read the object, and which version it is now. Theory of operation::

    nothing of the range is here ──> the very request                       MISS; whole blocks are kept as they pass
    some of it is                ──> ask for the first run that is missing  PARTIAL; later runs are asked for, pinned
    all of it is                 ──> ask for its first byte                 HIT

    the answer names another ETag or size, or no range at all ──> the very request instead

So an object that changed, is gone or may not be read any more ends as it would without a cache, and no more bytes leave
the source than without one. A version is a strong ETag and a size; an answer that lacks either passes through.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import ConfigurationError, RangeNotSatisfiable
from packetfs_compute.presigned import canonical_url
from packetfs_compute.settings import Settings
from packetfs_compute.sources.base import ByteStream, RangeRequest, Source
from packetfs_compute.sources.blocks import BLOCK, BlockStore, Version
from packetfs_compute.sources.http import HttpSource

__all__ = ["CachedSource", "CachedStream"]

_NONE_KEPT: Final = array("Q")


class CachedSource:
    """Objects at http:// and https:// URLs, by way of ``settings.cache_dir``. Safe to share between threads."""

    def __init__(self, settings: Settings, source: Source | None = None, store: BlockStore | None = None) -> None:
        if settings.cache_dir is None:
            raise ConfigurationError("there is no cache without a directory", {"field": "PACKETFS_CACHE_DIR"})
        self._source = source or HttpSource(settings)
        self._store = store or BlockStore(settings.cache_dir, settings.cache_bytes)

    def open(self, request: RangeRequest, deadline: Deadline) -> ByteStream:
        """Open a range; see :class:`~packetfs_compute.sources.base.Source`."""
        if request.length == 0:
            return self._source.open(request, deadline)
        url = canonical_url(request.url)
        version = self._store.newest(url, request.etag)
        known = version and self._open_known(request, version, deadline)
        return known or self._open_new(request, url, deadline)

    def _open_known(self, request: RangeRequest, version: Version, deadline: Deadline) -> "CachedStream | None":
        """Open a range of which some is here; ``None`` when nothing is, or the source has another version now."""
        stop = version.size if request.stop is None else request.stop
        if not request.offset < stop <= version.size:
            return None
        kept = self._store.numbers(version)
        missing = _missing(kept, request.offset, stop)
        if missing == (request.offset, stop):
            return None
        start, end = missing or (request.offset, request.offset + 1)
        try:
            answer = self._source.open(replace(request, offset=start, length=end - start), deadline)
        except RangeNotSatisfiable:  # it is shorter now; what that means for the range, the very request will say
            return None
        if (answer.etag, answer.object_size) != (version.etag, version.size):
            answer.close()
            return None
        self._store.touch(version)
        if missing is None:
            for _ in answer:  # all of its one byte, so that the connection can be kept
                pass
        opened = None if missing is None else _Opened(start, answer)
        return CachedStream(self._source, self._store, version, request, deadline, kept, opened)

    def _open_new(self, request: RangeRequest, url: str, deadline: Deadline) -> ByteStream:
        answer = self._source.open(request, deadline)
        if answer.etag is None or answer.object_size is None or answer.object_size == request.offset:
            return answer
        version, opened = Version(url, answer.etag, answer.object_size), _Opened(request.offset, answer)
        return CachedStream(self._source, self._store, version, request, deadline, _NONE_KEPT, opened)


@dataclass(frozen=True, slots=True)
class _Opened:
    """An answer of the source that gives the bytes from ``start`` on."""

    start: int
    answer: ByteStream


class CachedStream(ByteStream):
    """The bytes of an opened range, from disk and from the source; see :class:`~packetfs_compute.sources.base.ByteStream`.

    ``kept`` are the numbers of the blocks that were on disk, ``opened`` is what the source is about to send.
    """

    def __init__(
        self,
        source: Source,
        store: BlockStore,
        version: Version,
        request: RangeRequest,
        deadline: Deadline,
        kept: "array[int]",
        opened: _Opened | None,
    ) -> None:
        self.object_size = version.size
        self.etag = version.etag
        self.cache = None
        self._source = source
        self._store = store
        self._version = version
        self._request = request
        self._stop = version.size if request.stop is None else request.stop
        self._deadline = deadline
        self._kept = kept
        self._opened = opened
        self._reading: ByteStream | None = None
        self._from = {"disk": False, "source": False}

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the range's bytes, each chunk in a buffer that is used again."""
        at, buffer = self._request.offset, bytearray(BLOCK)
        try:
            while at < self._stop:
                ready = None if self._opened and self._opened.start == at else self._from_disk(at, buffer)
                for chunk in self._from_source(at) if ready is None else (ready,):
                    at += len(chunk)
                    yield chunk
            self.cache = "MISS" if not self._from["disk"] else "PARTIAL" if self._from["source"] else "HIT"
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is not yet read."""
        if self._reading is not None:
            self._reading.close()
        if self._opened is not None:
            self._opened.answer.close()
        self._reading = self._opened = None

    def _from_disk(self, at: int, buffer: bytearray) -> memoryview | None:
        """Return the bytes from ``at`` to the end of their block, if they are on disk and good."""
        self._deadline.remaining_s()
        number, within = divmod(at, BLOCK)
        after = bisect_left(self._kept, number)
        if after == len(self._kept) or self._kept[after] != number:
            return None
        data = self._store.read(self._version, number, buffer)
        if data is None:
            return None
        self._from["disk"] = True
        return data[within : self._stop - number * BLOCK]

    def _from_source(self, at: int) -> Iterator[memoryview]:
        """Yield a run of bytes from the source, and keep the whole blocks in it."""
        blocks = _Blocks(self._store, self._version, at)
        self._reading = self._answer_from(at)
        self._from["source"] = True
        for chunk in self._reading:
            blocks.add(chunk)
            yield chunk
        self._reading = None

    def _answer_from(self, at: int) -> ByteStream:
        """Return the answer that begins at ``at``: the one under way, or that to one request for all up to what is here."""
        if self._opened is not None and self._opened.start == at:
            answer, self._opened = self._opened.answer, None
            return answer
        stop = _next_kept(self._kept, at, self._stop if self._opened is None else self._opened.start)
        pinned = RangeRequest(self._request.url, at, stop - at, self._version.etag)
        return self._source.open(pinned, self._deadline)


class _Blocks:
    """Puts the whole blocks of a run together, and stores them."""

    def __init__(self, store: BlockStore, version: Version, at: int) -> None:
        self._store = store
        self._version = version
        self._at = at
        self._buffer = memoryview(bytearray(BLOCK))
        self._filled = 0

    def add(self, chunk: memoryview) -> None:
        while chunk:
            number, within = divmod(self._at, BLOCK)
            part, chunk = chunk[: BLOCK - within], chunk[BLOCK - within :]
            self._at += len(part)
            self._add(number, part)
            if self._at % BLOCK == 0:
                self._filled = 0

    def _add(self, number: int, part: memoryview) -> None:
        """Add a part of a block; one that the run begins or ends in the middle of never becomes whole."""
        length = self._version.length_of(number)
        if len(part) == length:
            self._store.write(self._version, number, part)
            return
        self._buffer[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        if self._filled == length:
            self._store.write(self._version, number, self._buffer[:length])


def _missing(kept: "array[int]", start: int, stop: int) -> tuple[int, int] | None:
    """Return the first run of bytes in ``[start, stop)`` that no block in ``kept`` holds."""
    number = start // BLOCK
    at = bisect_left(kept, number)
    while at < len(kept) and kept[at] == number:
        at, number = at + 1, number + 1
    first = max(start, number * BLOCK)
    return (first, _next_kept(kept, first, stop)) if first < stop else None


def _next_kept(kept: "array[int]", at: int, stop: int) -> int:
    """Return where the next block after that of ``at`` begins that is kept; at most ``stop``."""
    after = bisect_left(kept, at // BLOCK + 1)
    return stop if after == len(kept) else min(stop, kept[after] * BLOCK)
