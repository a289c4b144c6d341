"""HTTP to an endpoint of ours: one request, one answer, within one deadline.

urllib3 pools and connects, but its timeouts bound each ``recv``, so that an answer of one byte a second never ends. Here
every socket sets its timeout anew, before *every* call, to what is left of the deadline of the exchange that it is used
in: for connecting, the TLS handshake, sending, and for drips of head and body alike. Which exchange that is, the thread
knows, since a connection is used by one thread at a time. Where its work can be cancelled, an answer is waited for in
turns that the deadline bounds; a cancelled exchange resets its connection, which is how the other side learns of it.

No proxy of the environment is used, no redirect followed, no cookie kept. A request is sent again in one case only: it
went out on a kept connection that ended before any byte of an answer, which is what a server does that had just closed it
(RFC 9112, section 9.3.1). Then a new connection is made, once.
"""

import ipaddress
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Late
from urllib3.util.connection import create_connection

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import Cancelled, Internal, SourceFailed
from packetfs_compute.sources.connection import reason
from packetfs_compute.sources.guard import Target
from packetfs_compute.sources.resolve import BoundedResolver
from packetfs_compute.sources.tls import settled

if TYPE_CHECKING:
    from typing_extensions import Buffer
    from urllib3 import BaseHTTPResponse
    from urllib3._base_connection import BaseHTTPConnection

__all__ = ["MAX_ANSWER", "Reply", "Transport"]

MAX_ANSWER: Final = 1 << 20
"""Most bytes of an answer's body."""
_RESET: Final = struct.pack("ii", 1, 0)
"""``struct linger``: to close is to wait for nothing, and to say so (socket(7))."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that came whole. Names of ``fields`` are in any case."""

    status: int
    fields: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Exchange:
    """The request that a thread is making."""

    deadline: Deadline
    connect_timeout_s: float
    resolver: BoundedResolver
    only_new: bool = False
    """Whether it must not go out on a kept connection."""
    dialled: bool = False
    received: int = 0

    @property
    def dropped(self) -> bool:
        """Whether it went out on a kept connection, and nothing came back."""
        return not self.dialled and self.received == 0


class _Current(threading.local):
    exchange: _Exchange


_current: Final = _Current()


class Transport:
    """Requests to the server at ``url``, on at most ``connections`` kept connections. For many threads, across forks.

    ``tls`` returns whom to trust; it is called when the first connection is made.
    """

    def __init__(
        self,
        url: str,
        connections: int,
        connect_timeout_s: float,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._url = urlsplit(url)
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._resolver = BoundedResolver()
        self._lock = threading.Lock()
        self._pool: HTTPConnectionPool | None = None
        self._pid = -1

    def exchange(self, method: str, path: str, body: bytes, fields: Mapping[str, str], deadline: Deadline) -> Reply:
        """Send a request and return its answer, of any status.

        Raises :class:`AttemptTimeout` at the deadline, :class:`Cancelled` when nobody waits for it any more,
        :class:`Internal` for every other way not to get one.
        """
        first = _Exchange(deadline, self._connect_timeout_s, self._resolver)
        try:
            return self._send(first, method, path, body, fields)
        except Internal:
            if not first.dropped:
                raise
        again = _Exchange(deadline, self._connect_timeout_s, self._resolver, only_new=True)
        return self._send(again, method, path, body, fields)

    def close(self) -> None:
        """Close the idle connections; it may still be used."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _send(self, exchange: _Exchange, method: str, path: str, body: bytes, fields: Mapping[str, str]) -> Reply:
        _current.exchange = exchange
        try:
            answer = self._current_pool().urlopen(
                method,
                path,
                body,
                fields,
                retries=False,
                redirect=False,
                timeout=exchange.deadline.remaining_s(),
                preload_content=False,
                decode_content=False,
            )
            return Reply(answer.status, answer.headers, _body_of(answer))
        except (Late, TimeoutError) as error:
            raise exchange.deadline.overdue() from error
        except (HTTPError, OSError) as error:
            raise Internal(f"the substrate did not answer: {_why(error)}") from error
        finally:
            del _current.exchange

    def _current_pool(self) -> HTTPConnectionPool:
        if self._pid != os.getpid():
            # In a child after fork, whose parent may have held the lock: the parent's connections are not ours to use.
            self._lock, self._pool, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._pool is None:
                host, port = self._url.hostname or "", self._url.port
                if self._url.scheme == "https":
                    self._pool = _SecurePool(host, port, maxsize=self._connections, ssl_context=_bounded(self._tls()))
                else:
                    self._pool = _PlainPool(host, port, maxsize=self._connections)
            return self._pool


class _Socket(socket.socket):
    """A socket on which nothing waits longer than the deadline of the thread's exchange."""

    def recv_into(self, buffer: "Buffer", nbytes: int = 0, flags: int = 0) -> int:
        return _received(self, super().recv_into, buffer, nbytes, flags)

    def sendall(self, data: "Buffer", flags: int = 0) -> None:
        self.settimeout(_current.exchange.deadline.remaining_s())  # it spans all of the call
        super().sendall(data, flags)


class _TlsSocket(ssl.SSLSocket):
    """The same over TLS; a handshake's timeout spans all of it."""

    def recv_into(self, buffer: "Buffer", nbytes: int | None = None, flags: int = 0) -> int:
        return _received(self, super().recv_into, buffer, nbytes, flags)

    def send(self, data: "Buffer", flags: int = 0) -> int:
        self.settimeout(_current.exchange.deadline.remaining_s())  # sendall calls it for each part
        return super().send(data, flags)


def _received(sock: socket.socket, receive: Callable[..., int], *into: object) -> int:
    """Receive in turns, as long as there is time and somebody waits for the answer."""
    exchange = _current.exchange
    while True:
        try:
            left_s = exchange.deadline.remaining_s()
        except Cancelled:
            # Closed by a reset: of a mere end, a server that is computing may learn only when it answers (workerd does).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise
        turn_s = min(left_s, exchange.deadline.turn_s)
        sock.settimeout(turn_s)
        try:
            count = receive(*into)
        except TimeoutError:
            if turn_s == left_s:
                raise
        else:
            exchange.received += count
            return count


class _PlainConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _dial("http", self.host, self.port)


class _SecureConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _dial("https", self.host, self.port or 443)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection

    def _get_conn(self, timeout: float | None = None) -> "BaseHTTPConnection":
        return self._new_conn() if _current.exchange.only_new else super()._get_conn(timeout)


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection

    def _get_conn(self, timeout: float | None = None) -> "BaseHTTPConnection":
        return self._new_conn() if _current.exchange.only_new else super()._get_conn(timeout)


def _dial(scheme: str, host: str, port: int) -> socket.socket:
    """Connect to the first of the host's addresses that answers; each has its share of the time."""
    exchange = _current.exchange
    exchange.dialled = True
    deadline, timeout_s = exchange.deadline, exchange.connect_timeout_s
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    target = Target("", scheme, host, port, "/", address, None)
    try:
        addresses = exchange.resolver.addresses(target, deadline, timeout_s)
    except SourceFailed as error:
        raise Internal(error.message) from error
    failure: Exception | None = None
    for tried, found in enumerate(addresses):
        share_s = min(deadline.remaining_s(), timeout_s) / (len(addresses) - tried)
        try:
            sock = create_connection((str(found), port), share_s, socket_options=HTTPConnection.default_socket_options)
        except OSError as error:
            failure = error
        else:
            bounded = _Socket(fileno=sock.detach())
            bounded.settimeout(deadline.remaining_s())  # what the TLS handshake may take
            return bounded
    deadline.remaining_s()
    why = reason(failure) if failure else "it has no address"
    raise Internal(f"no connection to {host} port {port}: {why}") from failure


def _body_of(answer: "BaseHTTPResponse") -> bytes:
    body = b""
    while chunk := answer.read(MAX_ANSWER + 1 - len(body)):  # only its last, empty reading tells a cut from an end
        body += chunk
        if len(body) > MAX_ANSWER:
            answer.close()
            raise Internal(f"the substrate's answer is longer than {MAX_ANSWER} bytes")
    return body


def _why(error: Exception) -> str:
    """Return why, in few and safe words: what urllib3 wraps is in its errors' arguments."""
    cause: Exception | None = error
    while cause is not None:
        error, cause = cause, next((arg for arg in cause.args if isinstance(arg, Exception)), None)
    return reason(error)


def _bounded(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return ``context``, whose sockets keep the deadline."""
    context.sslsocket_class = _TlsSocket
    return settled(context)
