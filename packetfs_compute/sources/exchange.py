"""One request and its answer on a connection: h11 says what the bytes mean, ``connection.py`` waits for them.

An h11 connection carries one exchange and is dropped with it; a kept socket gets a new one.
"""

from collections.abc import Sequence
from typing import Final

import h11

from packetfs_compute.errors import SourceFailed
from packetfs_compute.sources.connection import Connection, Dropped
from packetfs_compute.sources.http1 import Framing, Head, head_of
from packetfs_compute.validation import show

__all__ = ["Answer", "Body", "ask"]

_RECV: Final = 1 << 16
_MAX_HEAD: Final = 1 << 16
"""Most bytes of all heads of one answer, interim ones included; also of one chunk's first line and of a trailer."""
_MAX_INTERIM: Final = 8
_TOO_LONG: Final = 431
"""What h11 would have a server answer when it has buffered ``_MAX_HEAD`` bytes that make no event."""


class Answer:
    """The answer's head, and what is needed to read its body."""

    def __init__(self, connection: Connection, head: Head, parser: h11.Connection) -> None:
        self.connection = connection
        self.head = head
        self.parser = parser

    @property
    def surplus(self) -> bytes:
        """What has arrived beyond what is parsed: after the head, or later after the body."""
        return self.parser.trailing_data[0]


def ask(connection: Connection, path: str, fields: Sequence[tuple[str, str]]) -> Answer:
    """Send a GET and return its final answer; interim ones (1xx) are skipped (RFC 9110, section 15.2).

    Raises :class:`Dropped` when the connection ends before an answer begins, :class:`SourceFailed` for no HTTP/1.
    """
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    try:
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
        request = parser.send(h11.Request(method=b"GET", target=path.encode("ascii"), headers=headers))
        parser.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise SourceFailed(f"the request cannot be sent: {show(str(error))}", {"retryable": False}) from error
    connection.send(request)
    data = _first(connection)
    heads, begin, interim = bytearray(), 0, 0
    while True:
        heads += data
        parser.receive_data(data)
        while (event := _head_event(parser, heads, begin)) is not h11.NEED_DATA:
            end = len(heads) - len(parser.trailing_data[0])
            if end > _MAX_HEAD:
                raise SourceFailed("the source's head is too long")
            if isinstance(event, h11.Response):
                return Answer(connection, head_of(event, bytes(heads[begin:end])), parser)
            begin, interim = end, interim + 1
            if interim > _MAX_INTERIM:
                raise SourceFailed("the source sends interim answers (1xx) without end")
        data = connection.recv(_RECV)


class Body:
    """Reads the body of ``answer``: exactly its bytes, or an error; never a part of it taken for the whole."""

    def __init__(self, answer: Answer, framing: Framing) -> None:
        self._connection = answer.connection
        self._parser = answer.parser
        self._kind = framing.kind
        self._left = framing.length or 0
        """Bytes left of a body whose length is known."""
        self._ready = memoryview(answer.surplus if framing.kind == "length" else b"")
        """Bytes that have arrived and are not yet handed out."""
        self.complete = framing.length == 0
        """Whether the framing has ended properly."""

    @property
    def clean(self) -> bool:
        """Whether it is complete and nothing came after it, so that the connection may carry another request."""
        if self._kind == "length":
            return self.complete and not self._ready
        return self.complete and self._kind == "chunked" and not self._parser.trailing_data[0]

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; fewer bytes than fit in it are the body's last ones.

        Raises :class:`SourceFailed` when the connection ends before the framing does.
        """
        some = self._counted if self._kind == "length" else self._parsed
        done = 0
        while done < len(view) and not self.complete:
            done += some(view[done:])
        return done

    def _counted(self, view: memoryview) -> int:
        """Read from the socket itself: within a known length there is nothing to parse, only bytes to count.

        h11 would copy each byte three times and hand it out in its own buffers: over loopback 1.2 GB/s instead of
        2.4, for three times the CPU.
        """
        room = view[: self._left]
        count = self._hand_out(room) if self._ready else self._connection.recv_into(room)
        if count == 0:
            raise _cut()
        self._left -= count
        self.complete = self._left == 0
        return count

    def _parsed(self, view: memoryview) -> int:
        """Read through h11, which finds the chunks' and the body's end."""
        while not self._ready:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise self._broken(error) from error
            if isinstance(event, h11.Data):
                self._ready = memoryview(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
                return 0
            else:
                self._parser.receive_data(self._connection.recv(_RECV))
        return self._hand_out(view)

    def _hand_out(self, room: memoryview) -> int:
        count = min(len(room), len(self._ready))
        room[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _broken(self, error: h11.RemoteProtocolError) -> SourceFailed:
        if error.error_status_hint == _TOO_LONG:
            return SourceFailed("the source's chunk size line or trailer is too long")
        if self._parser.trailing_data[1]:
            return _cut()
        return SourceFailed(f"the source broke the chunked coding: {show(str(error))}")


def _cut() -> SourceFailed:
    return SourceFailed("the source cut its answer: the connection ended in the middle of the body")


def _first(connection: Connection) -> bytes:
    """Receive the first bytes of an answer; that there is none is told apart from every later end."""
    try:
        data = connection.recv(_RECV)
    except SourceFailed as error:
        if isinstance(error.__cause__, ConnectionError):
            raise Dropped(error.message) from error.__cause__
        raise
    if not data:
        raise Dropped("the source closed the connection without an answer")
    return data


def _head_event(parser: h11.Connection, heads: bytearray, begin: int) -> object:
    """Return h11's next event; ``heads[begin:]`` is what of this head has arrived, to quote it in an error."""
    try:
        return parser.next_event()
    except h11.RemoteProtocolError as error:
        head = bytes(heads[begin:])
        line = show(head.partition(b"\n")[0].rstrip(b"\r"))
        if not head.startswith(b"HTTP/1."):
            message = f"the source does not speak HTTP/1.1: it said {line}"
        elif error.error_status_hint == _TOO_LONG:
            message = "the source's head is too long"
        elif parser.trailing_data[1]:
            message = "the source cut its answer in the middle of the head"
        else:
            message = f"the source broke HTTP/1.1 after {line}: {show(str(error))}"
        raise SourceFailed(message) from error
