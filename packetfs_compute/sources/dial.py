"""Connecting to a vetted address, and TLS: through urllib3.

Only its socket is taken. Its own way of reading stands on http.client, and takes the connection's end inside a head
for the head's end, ``1_0`` for a chunk's size and any two bytes for a chunk's CRLF: here h11 reads instead.
"""

import socket
import ssl
from collections.abc import Sequence

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import SourceFailed
from packetfs_compute.settings import Settings
from packetfs_compute.sources.connection import Connection, reason
from packetfs_compute.sources.guard import Address, Target

__all__ = ["dial"]


def dial(
    target: Target, addresses: Sequence[Address], deadline: Deadline, settings: Settings, tls: ssl.SSLContext | None
) -> Connection:
    """Connect to the first of ``addresses`` that answers; with ``tls``, have it prove that it is ``target.host``."""
    sock = _connect(target, addresses, deadline, settings.connect_timeout_s)
    if tls is not None:
        sock = _secure(sock, target, deadline, settings.connect_timeout_s, tls)
    return Connection(sock, settings.stall_timeout_s, deadline)


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
    why = reason(failure) if failure else "it has no address"
    raise SourceFailed(f"no connection to {target.host} port {target.port}: {why}") from failure


def _secure(
    sock: socket.socket, target: Target, deadline: Deadline, timeout_s: float, tls: ssl.SSLContext
) -> socket.socket:
    """Do the TLS handshake; the certificate must be for the host's name, whatever address was connected to."""
    left_s = deadline.remaining_s()
    try:
        connection = _Tls(sock, target, tls)
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
        raise SourceFailed(f"no TLS with {target.host}: {reason(error)}") from error
    else:
        return connection.sock
    finally:
        # The TLS socket has taken the descriptor over when it succeeded; otherwise this is what closes it.
        sock.close()
