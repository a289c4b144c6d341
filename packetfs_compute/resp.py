"""A Redis client for a command that says three things and ends: one blocking connection that speaks RESP2.

redis-py is the client everywhere else. To load it takes a seventh of a second: it brings asyncio, TLS and its cluster along,
whatever of it is used. What it does that is not done here (TLS, options in the URL, retries) is its own to do:
:func:`address_of` knows which URLs need it.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from packetfs_compute.parsers import split_url

__all__ = ["Address", "Refused", "RespConnection", "address_of"]

_PORT: Final = 6379
_CHUNK: Final = 1 << 16
_MAX_BYTES: Final = 64 << 20
"""Of one string in an answer."""
_MAX_ITEMS: Final = 1 << 16
_MAX_DEPTH: Final = 4
_SHOWN: Final = 40
_Part = str | bytes | float


class Refused(Exception):
    """What the server said is an error, or no answer at all."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and as whom and on which database it is spoken to. With a ``path``, on a Unix socket."""

    host: str = "localhost"
    port: int = _PORT
    path: str | None = None
    user: str | None = None
    password: str | None = None
    database: int = 0


def address_of(url: str) -> Address | None:
    """Return the address that a URL names, or ``None`` for one that redis-py alone understands."""
    parts = split_url(url)
    try:
        if parts is None or parts.query or (parts.username and not parts.password):
            return None
        user, password = unquote(parts.username or "") or None, unquote(parts.password or "") or None
        if parts.scheme == "unix":
            return Address(path=unquote(parts.path), user=user, password=password) if parts.path else None
        number = parts.path.strip("/")
        if parts.scheme != "redis" or not (number.isdecimal() or not number):
            return None
        host = unquote(parts.hostname or "") or "localhost"
        return Address(host, parts.port or _PORT, None, user, password, int(number or 0))
    except ValueError:  # a port that is none
        return None


class RespConnection:
    """A connection. Every method raises :class:`OSError` where it is lost, :class:`Refused` where the server says no."""

    def __init__(self, address: Address, connect_s: float, silence_s: float) -> None:
        self._address, self._connect_s, self._silence_s = address, connect_s, silence_s
        self._socket: socket.socket | None = None
        self._read = bytearray()

    def open(self) -> None:
        """Connect, and say who we are."""
        where = self._address
        if where.path is None:
            self._socket = socket.create_connection((where.host, where.port), self._connect_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(self._connect_s)
            self._socket.connect(where.path)
        self._socket.settimeout(self._silence_s)
        if where.password is not None:
            self.ask(("AUTH", *([] if where.user is None else [where.user]), where.password))
        if where.database:
            self.ask(("SELECT", where.database))

    def close(self) -> None:
        """Let go of it."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def ask(self, *commands: Sequence[_Part]) -> list[Any]:
        """Send commands together and return their answers: ``bytes``, ``int``, ``None``, lists of these."""
        self._open_socket().sendall(b"".join(map(_encoded, commands)))
        return [self._answer() for _ in commands]

    def hear(self, seconds: float) -> None:
        """Wait until a channel that was subscribed to says anything, which is thrown away; ``seconds`` at the most."""
        give_up_s = time.monotonic() + seconds
        wire = self._open_socket()
        try:
            wire.settimeout(max(seconds, 0.001))
            if not wire.recv(_CHUNK):
                raise ConnectionResetError
        except TimeoutError:
            pass
        except OSError:  # who waits looks for himself afterwards, and no oftener for that
            time.sleep(max(0.0, give_up_s - time.monotonic()))

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the connection is not open")
        return self._socket

    def _answer(self, depth: int = 0) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise Refused(rest.decode("utf-8", "replace"))
        try:
            number = int(rest)
        except ValueError:
            raise Refused(f"an answer that is none: {line[:_SHOWN]!r}") from None
        if kind == b":":
            return number
        if number == -1 and kind in b"$*":
            return None
        if kind == b"$" and 0 <= number <= _MAX_BYTES:
            return self._bytes(number)
        if kind == b"*" and 0 <= number <= _MAX_ITEMS and depth < _MAX_DEPTH:
            return [self._answer(depth + 1) for _ in range(number)]
        raise Refused(f"an answer that is none: {line[:_SHOWN]!r}")

    def _line(self) -> bytes:
        while (end := self._read.find(b"\r\n")) < 0:
            if len(self._read) > _CHUNK:
                raise Refused("an answer without an end")
            self._more()
        line = bytes(self._read[:end])
        del self._read[: end + 2]
        return line

    def _bytes(self, count: int) -> bytes:
        while len(self._read) < count + 2:
            self._more()
        value = bytes(self._read[:count])
        del self._read[: count + 2]
        return value

    def _more(self) -> None:
        came = self._open_socket().recv(_CHUNK)
        if not came:
            raise ConnectionResetError("the server closed the connection")
        self._read += came


def _encoded(command: Sequence[_Part]) -> bytes:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
