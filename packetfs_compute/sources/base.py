"""What a source is: a place that gives the bytes of a range as a stream, or a typed error.

The contract is two small protocols. Whoever implements them promises:

- The stream gives exactly the bytes ``[offset, stop)`` of one version of the object, or raises a
  :class:`~packetfs_compute.errors.JobError`: never fewer, never more, never others.
- Memory stays flat whatever the range's length, and everything ends by the deadline.
- No other exception leaves: errors of libraries are translated where they occur, with ``from``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from packetfs_compute.deadline import Deadline

__all__ = ["ByteStream", "RangeRequest", "Source"]


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """The bytes ``[offset, offset + length)`` of the object at ``url``; ``length`` ``None`` is to its end.

    ``etag`` pins the version: any other is :class:`~packetfs_compute.errors.SourceChanged`.
    """

    url: str
    offset: int = 0
    length: int | None = None
    etag: str | None = None

    @property
    def stop(self) -> int | None:
        """One past the last byte wanted, or ``None`` for the object's end."""
        return None if self.length is None else self.offset + self.length


class ByteStream(Protocol):
    """An opened range. A chunk is valid until the next one is asked for. Use it as a context manager."""

    object_size: int | None
    """Size in bytes of the whole object; ``None`` when the source does not tell it, or not before the last chunk."""
    etag: str | None
    """The version that is being read: its strong ETag, ``None`` when the source gives none."""
    cache: str | None = None
    """After the last chunk: ``HIT`` if a cache gave all bytes, ``PARTIAL`` some, ``MISS`` none; ``None`` is no cache."""

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the range's bytes in order, in chunks of any positive length."""

    def fill(self, buffer: memoryview) -> int:
        """Read the whole range into ``buffer``, instead of iterating; return how many bytes it has.

        Raises ``ValueError`` for a range that has more than fit.
        """
        at = 0
        for chunk in self:
            buffer[at : at + len(chunk)] = chunk
            at += len(chunk)
        return at

    def close(self) -> None:
        """Give up what is not yet read; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Source(Protocol):
    """A family of places, by URL scheme."""

    def open(self, request: RangeRequest, deadline: Deadline) -> ByteStream:
        """Open a range. The version, and that the range lies within the object, are checked before the first chunk."""
