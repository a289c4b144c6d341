"""One connection, on which nothing waits longer than the deadline.

A socket's own timeout bounds each ``recv``; a source that sends one byte a second never meets it. So before *every*
call the timeout is set anew to what is left of the deadline, or to the longest silence that settings allow, whichever
is shorter. That holds for drips of body and head alike and needs no watchdog. (In TLS, CPython's timeout already
spans the whole call.)
"""

import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, SourceFailed
from packetfs_compute.validation import show

__all__ = ["Connection", "Dropped", "reason"]


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
        self._timeout_s = sock.gettimeout()
        self._quiet = True

    def close(self) -> None:
        """Close it; closing twice is harmless."""
        self._sock.close()

    @property
    def quiet(self) -> bool:
        """Whether it is open and nothing has come unasked, so that it may carry another request."""
        if self._quiet:
            try:
                # A timeout of 0 makes TLS sockets non-blocking as well; MSG_PEEK is not open to them.
                self._set_timeout(0)
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
            raise Dropped(f"the source broke the connection: {reason(error)}") from error

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
            raise SourceFailed(f"the source broke the connection: {reason(error)}") from error

    def _arm(self) -> bool:
        """Set the timeout of the next call; return whether it is the deadline that limits it."""
        left_s = self.deadline.remaining_s()
        self._set_timeout(min(left_s, self._stall_s))
        return left_s <= self._stall_s

    def _set_timeout(self, timeout_s: float) -> None:
        """Set the socket's timeout where it differs: CPython makes a system call of it each time."""
        if timeout_s != self._timeout_s:
            self._sock.settimeout(timeout_s)
            self._timeout_s = timeout_s

    def _late(self, limited: bool, what: str) -> SourceFailed | AttemptTimeout:
        if limited:
            return self.deadline.overdue()
        return SourceFailed(f"the source stalled: it {what} for {self._stall_s:g} s")


def reason(error: Exception) -> str:
    """Return why a system or TLS call failed, in few and safe words."""
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return getattr(error, "strerror", None) or show(str(error))
