"""The body of one answer, by its framing: exactly its bytes, or an error; never a part of it taken for the whole."""

from typing import Final

from packetfs_compute.errors import SourceFailed
from packetfs_compute.sources.connection import Connection
from packetfs_compute.sources.http1 import Framing, parse_chunk_size

__all__ = ["Body"]

_MAX_CHUNK_LINE: Final = 1 << 12
_MAX_TRAILER: Final = 1 << 14


class Body:
    """Reads a body off ``connection``; ``complete`` turns true when its framing has ended properly."""

    def __init__(self, connection: Connection, framing: Framing) -> None:
        self._connection = connection
        self._kind = framing.kind
        self._left = framing.length or 0
        """Bytes left in the body, or in the current chunk."""
        self._between_chunks = False
        self.complete = framing.length == 0

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; fewer bytes than fit in it are the body's last ones.

        Raises :class:`SourceFailed` when the connection ends before the framing does.
        """
        done = 0
        while done < len(view) and not self.complete:
            if self._kind == "chunked" and self._left == 0 and not self._next_chunk():
                break
            room = view[done:] if self._kind == "close" else view[done : done + self._left]
            count = self._connection.readinto(room)
            done += count
            if count == 0:
                self._ended()
            elif self._kind != "close":
                self._left -= count
                self.complete = self._kind == "length" and self._left == 0
        return done

    def _ended(self) -> None:
        if self._kind != "close":
            raise SourceFailed("the source cut its answer: the connection ended in the middle of the body")
        self.complete = True

    def _next_chunk(self) -> bool:
        """Read the line before a chunk; return whether there is one (RFC 9112, section 7.1)."""
        if self._between_chunks and self._connection.read_line(2, "chunk's end"):
            raise SourceFailed("the source sent a chunk longer than its size")
        self._left = parse_chunk_size(self._connection.read_line(_MAX_CHUNK_LINE, "chunk size"))
        self._between_chunks = True
        if self._left > 0:
            return True
        left = _MAX_TRAILER
        while line := self._connection.read_line(left, "trailer"):
            left -= len(line)
        self.complete = True
        return False
