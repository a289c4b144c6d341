"""One connection to one vetted address, on which nothing waits longer than the deadline.

urllib3 connects and does TLS: SNI, the certificate, and that it is for the URL's host. From it we take the socket and
read that ourselves, because its reader (http.client's) takes the connection's end inside a head for the head's end.

A socket's own timeout bounds each ``recv``; a source that sends one byte a second never meets it. So before *every*
call the timeout is set anew to what is left of the deadline, or to the longest silence that settings allow, whichever
is shorter. That holds for drips of body and head alike and needs no watchdog. (In TLS, CPython's timeout already
spans the whole call.)
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, SourceFailed
from packetfs_compute.settings import Settings
from packetfs_compute.sources.guard import Address, Target
from packetfs_compute.validation import show

__all__ = ["Connection", "Dropped", "settled"]


_A = TypeVar("_A")
_T = TypeVar("_T")


class Dropped(SourceFailed):
    """The connection ended before the answer's first byte: on a kept connection, no fault of the source's."""


class Connection:
    """A connection. For one thread at a time."""

    def __init__(self, sock: socket.socket, stall_timeout_s: float, deadline: Deadline) -> None:
        self.deadline = deadline
        self._sock = sock
        self._stall_s = stall_timeout_s
        self._quiet = True

    @classmethod
    def open(
        cls,
        target: Target,
        addresses: Sequence[Address],
        deadline: Deadline,
        settings: Settings,
        tls: ssl.SSLContext | None,
    ) -> "Connection":
        """Connect to the first of ``addresses`` that answers; with ``tls``, have it prove that it is ``target.host``."""
        sock = _connect(target, addresses, deadline, settings.connect_timeout_s)
        if tls is not None:
            sock = _secure(sock, target, deadline, settings.connect_timeout_s, tls)
        return cls(sock, settings.stall_timeout_s, deadline)

    def close(self) -> None:
        """Close it; closing twice is harmless."""
        self._sock.close()

    @property
    def quiet(self) -> bool:
        """Whether it is open and nothing has come unasked, so that it may carry another request."""
        if self._quiet:
            try:
                # A timeout of 0 makes TLS sockets non-blocking as well; MSG_PEEK is not open to them.
                self._sock.settimeout(0)
                self._sock.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            except OSError:
                pass
            # What was read is lost, so never again.
            self._quiet = False
        return False

    def send(self, data: bytes) -> None:
        """Send a request; raises :class:`Dropped` when the other side has gone."""
        limited = self._arm()
        try:
            self._sock.sendall(data)
        except TimeoutError as error:
            raise self._late(limited, "took nothing") from error
        except OSError as error:
            raise Dropped(f"the source broke the connection: {_reason(error)}") from error

    def recv(self, limit: int) -> bytes:
        """Return some bytes, at most ``limit``; none is the connection's end."""
        return self._wait(self._sock.recv, limit)

    def recv_into(self, view: memoryview) -> int:
        """Read some bytes into ``view``, which is not empty; 0 is the connection's end."""
        return self._wait(self._sock.recv_into, view)

    def _wait(self, receive: Callable[[_A], _T], into: _A) -> _T:
        limited = self._arm()
        try:
            return receive(into)
        except TimeoutError as error:
            raise self._late(limited, "sent nothing") from error
        except OSError as error:
            raise SourceFailed(f"the source broke the connection: {_reason(error)}") from error

    def _arm(self) -> bool:
        """Set the timeout of the next call; return whether it is the deadline that limits it."""
        left_s = self.deadline.remaining_s()
        self._sock.settimeout(min(left_s, self._stall_s))
        return left_s <= self._stall_s

    def _late(self, limited: bool, what: str) -> SourceFailed | AttemptTimeout:
        if limited:
            return self.deadline.overdue()
        return SourceFailed(f"the source stalled: it {what} for {self._stall_s:g} s")


class _Tls(HTTPSConnection):
    """urllib3's TLS over a socket that is connected already: to a vetted address, not to what the name gives now.

    ``assert_hostname`` is left out on purpose: with it urllib3 turns the context's own check of the name off, for all
    that share the context, and matches by its own code.
    """

    def __init__(self, sock: socket.socket, target: Target, context: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port, ssl_context=context, server_hostname=target.host)
        self._connected = sock

    def _new_conn(self) -> socket.socket:
        return self._connected


def settled(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return ``context`` with its ALPN set once and for all.

    urllib3 sets it again for each connection. While another thread connects with the same context, that is a use after
    free in OpenSSL (python/cpython#141012; seen here as a ClientHello with garbage for ALPN).
    """
    context.set_alpn_protocols(["http/1.1"])
    context.set_alpn_protocols = _leave_as_it_is  # type: ignore[method-assign]
    return context


def _leave_as_it_is(alpn_protocols: object) -> None:
    pass


def _connect(target: Target, addresses: Sequence[Address], deadline: Deadline, timeout_s: float) -> socket.socket:
    """Try each address in turn; a silent one may use only its share of what is left, so that the next has some."""
    limited = deadline.remaining_s() <= timeout_s
    budget = Deadline.after(min(timeout_s, deadline.remaining_s()), deadline.clock)
    failure: OSError | None = None
    for tried, address in enumerate(addresses):
        left_s = deadline.remaining_s()
        share_s = min(left_s, max(budget.at_s - deadline.clock(), 0.001) / (len(addresses) - tried))
        try:
            # Given a numeric address, getaddrinfo looks nothing up. The option is TCP_NODELAY.
            return create_connection(
                (str(address), target.port), share_s, socket_options=HTTPSConnection.default_socket_options
            )
        except OSError as error:
            failure = error
    if limited and isinstance(failure, TimeoutError):
        raise deadline.overdue() from failure
    reason = _reason(failure) if failure else "it has no address"
    raise SourceFailed(f"no connection to {target.host} port {target.port}: {reason}") from failure


def _secure(
    sock: socket.socket, target: Target, deadline: Deadline, timeout_s: float, tls: ssl.SSLContext
) -> socket.socket:
    """Do the TLS handshake; the certificate must be for the host's name, whatever address was connected to."""
    left_s = deadline.remaining_s()
    connection = _Tls(sock, target, tls)
    try:
        sock.settimeout(min(left_s, timeout_s))
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        message = f"the source's certificate is not valid for {target.host}: {error.verify_message}"
        raise SourceFailed(message, {"retryable": False}) from error
    except TimeoutError as error:
        if left_s <= timeout_s:
            raise deadline.overdue() from error
        raise SourceFailed(f"the source did not end the TLS handshake within {timeout_s:g} s") from error
    except (OSError, ValueError, HTTPError) as error:
        raise SourceFailed(f"no TLS with {target.host}: {_reason(error)}") from error
    else:
        return connection.sock
    finally:
        # The TLS socket has taken the descriptor over when it succeeded; otherwise this is what closes it.
        sock.close()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return getattr(error, "strerror", None) or show(str(error))
