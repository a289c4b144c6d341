"""One connection to one vetted address, on which nothing waits longer than the deadline.

A socket's own timeout bounds each ``recv``; a source that sends one byte a second never meets it. So before *every*
call the timeout is set anew to what is left of the deadline, or to the longest silence that settings allow, whichever
is shorter. That holds for drips of body and head alike and needs no watchdog. (In TLS, CPython's timeout already
spans the whole call.)
"""

import socket
import ssl
from collections.abc import Sequence
from typing import Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import AttemptTimeout, SourceFailed
from packetfs_compute.settings import Settings
from packetfs_compute.sources.guard import Address, Target
from packetfs_compute.sources.http1 import Head, parse_field, parse_status_line
from packetfs_compute.validation import show

__all__ = ["Connection", "Dropped"]

_BUFFER: Final = 1 << 16
_MAX_HEAD: Final = 1 << 16
"""Most bytes of all heads of one answer, interim ones included."""
_MAX_INTERIM: Final = 8


class Dropped(SourceFailed):
    """The connection ended before the answer's first byte: on a kept connection, no fault of the source's."""


class Connection:
    """A connection, and the bytes that have arrived on it but are not yet read. For one thread at a time."""

    def __init__(self, sock: socket.socket, stall_timeout_s: float, deadline: Deadline) -> None:
        self.reused = False
        self.deadline = deadline
        self._sock = sock
        self._stall_s = stall_timeout_s
        self._bytes = bytearray(_BUFFER)
        self._buffer = memoryview(self._bytes)
        self._start = self._end = 0

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
    def buffered(self) -> int:
        """Bytes that have arrived and are not read."""
        return self._end - self._start

    @property
    def quiet(self) -> bool:
        """Whether it is open and nothing has come unasked, so that it may carry another request."""
        if self.buffered:
            return False
        self._start = self._end = 0
        try:
            # A timeout of 0 makes TLS sockets non-blocking as well; MSG_PEEK is not open to them.
            self._sock.settimeout(0)
            self._end = self._sock.recv_into(self._buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
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

    def read_head(self) -> Head:
        """Return the final answer's head; interim ones (1xx) are skipped (RFC 9110, section 15.2)."""
        left = _MAX_HEAD
        for interim in range(_MAX_INTERIM + 1):
            if interim == 0 and not self.buffered and not self._fill_first():
                raise Dropped("the source closed the connection without an answer")
            head, left = self._read_one_head(left)
            if head.status >= 200:
                return head
            if head.status == 101:
                raise SourceFailed("the source switched to another protocol (101), which was not asked for")
        raise SourceFailed("the source sends interim answers (1xx) without end")

    def read_line(self, limit: int, where: str) -> bytes:
        """Return the next line without its CRLF; ``where`` says for an error what it is a line of."""
        line = bytearray()
        while True:
            at = self._bytes.find(b"\n", self._start, self._end)
            stop = self._end if at < 0 else at + 1
            line += self._buffer[self._start : stop]
            self._start = stop
            if len(line) > limit:
                raise SourceFailed(f"the source's {where} is too long")
            if at >= 0:
                # A lone LF may end a line (RFC 9112, section 2.2).
                return bytes(line[:-2] if line.endswith(b"\r\n") else line[:-1])
            if not self._fill():
                raise SourceFailed(f"the source cut its answer in the middle of the {where}")

    def readinto(self, view: memoryview) -> int:
        """Read some bytes into ``view``, which is not empty; 0 is the connection's end."""
        if not self.buffered:
            if len(view) >= _BUFFER:
                return self._recv_into(view)
            if not self._fill():
                return 0
        count = min(len(view), self.buffered)
        view[:count] = self._buffer[self._start : self._start + count]
        self._start += count
        return count

    def _read_one_head(self, left: int) -> tuple[Head, int]:
        line = self.read_line(left, "head")
        left -= len(line)
        status, minor = parse_status_line(line)
        fields: list[tuple[str, str]] = []
        while line := self.read_line(left, "head"):
            left -= len(line)
            if line[:1] in b" \t" and fields:
                # Obsolete folding: a user agent replaces it with a space (RFC 9112, section 5.2).
                name, value = fields.pop()
                line = f"{name}: {value} ".encode("latin-1") + line.strip(b" \t")
            fields.append(parse_field(line))
        return Head(status, minor, tuple(fields)), left

    def _fill_first(self) -> bool:
        try:
            return self._fill()
        except SourceFailed as error:
            if isinstance(error.__cause__, ConnectionError):
                raise Dropped(error.message) from error.__cause__
            raise

    def _fill(self) -> bool:
        self._start = self._end = 0
        self._end = self._recv_into(self._buffer)
        return self._end > 0

    def _recv_into(self, view: memoryview) -> int:
        limited = self._arm()
        try:
            return self._sock.recv_into(view)
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
            return _overdue(self.deadline)
        return SourceFailed(f"the source stalled: it {what} for {self._stall_s:g} s")


def _connect(target: Target, addresses: Sequence[Address], deadline: Deadline, timeout_s: float) -> socket.socket:
    """Try each address in turn; a silent one may use only its share of what is left, so that the next has some."""
    limited = deadline.remaining_s() <= timeout_s
    budget = Deadline.after(min(timeout_s, deadline.remaining_s()), deadline.clock)
    failure: OSError | None = None
    for tried, address in enumerate(addresses):
        left_s = deadline.remaining_s()
        share_s = min(left_s, max(budget.at_s - deadline.clock(), 0.001) / (len(addresses) - tried))
        sock: socket.socket | None = None
        try:
            sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
            sock.settimeout(share_s)
            sock.connect((str(address), target.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            if sock is not None:
                sock.close()
            failure = error
        else:
            return sock
    if limited and isinstance(failure, TimeoutError):
        raise _overdue(deadline) from failure
    reason = _reason(failure) if failure else "it has no address"
    raise SourceFailed(f"no connection to {target.host} port {target.port}: {reason}") from failure


def _secure(
    sock: socket.socket, target: Target, deadline: Deadline, timeout_s: float, tls: ssl.SSLContext
) -> socket.socket:
    """Do the TLS handshake; the certificate must be for the host's name, whatever address was connected to."""
    left_s = deadline.remaining_s()
    try:
        sock.settimeout(min(left_s, timeout_s))
        return tls.wrap_socket(sock, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        message = f"the source's certificate is not valid for {target.host}: {error.verify_message}"
        raise SourceFailed(message, {"retryable": False}) from error
    except TimeoutError as error:
        if left_s <= timeout_s:
            raise _overdue(deadline) from error
        raise SourceFailed(f"the source did not end the TLS handshake within {timeout_s:g} s") from error
    except (OSError, ValueError) as error:
        raise SourceFailed(f"no TLS with {target.host}: {_reason(error)}") from error
    finally:
        # wrap_socket has detached the descriptor when it succeeded; otherwise this is what closes it.
        sock.close()


def _overdue(deadline: Deadline) -> AttemptTimeout:
    return AttemptTimeout(f"the attempt did not end within its {deadline.budget_s:g} s")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return getattr(error, "strerror", None) or show(str(error))
