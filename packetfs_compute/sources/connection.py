"""One connection, on which nothing waits longer than the deadline.

A socket's own timeout bounds each ``recv``; a source that sends one byte a second never meets it. So before *every*
call the timeout is set anew to what is left of the deadline, or to the longest silence that settings allow, whichever
is shorter. That holds for drips of body and head alike and needs no watchdog. (In TLS, CPython's timeout already
spans the whole call.) Where the work can be cancelled, a wait is made in turns that the deadline bounds.
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
        left_s = self.deadline.remaining_s()
        # In one turn: nobody knows how much a sendall that timed out has sent.
        self._set_timeout(min(left_s, self._stall_s))
        try:
            self._sock.sendall(data)
        except TimeoutError as error:
            raise self._late(left_s <= self._stall_s, "took nothing") from error
        except OSError as error:
            raise Dropped(f"the source broke the connection: {reason(error)}") from error

    def recv(self, limit: int) -> bytes:
        """Return some bytes, at most ``limit``; none is the connection's end."""
        return self._wait(self._sock.recv, limit)

    def recv_into(self, view: memoryview) -> int:
        """Read some bytes into ``view``, which is not empty; 0 is the connection's end."""
        return self._wait(self._sock.recv_into, view)

    def _wait(self, receive: Callable[[_A], _T], into: _A) -> _T:
        quiet_s = self._stall_s
        while True:
            left_s = self.deadline.remaining_s()
            turn_s = min(left_s, quiet_s, self.deadline.turn_s)
            self._set_timeout(turn_s)
            try:
                return receive(into)
            except TimeoutError as error:
                quiet_s -= turn_s
                if turn_s == left_s or quiet_s <= 0:
                    raise self._late(turn_s == left_s, "sent nothing") from error
            except OSError as error:
                raise SourceFailed(f"the source broke the connection: {reason(error)}") from error

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
