"""The server: uvicorn with every bound set, from a socket that listens already until SIGTERM."""

import asyncio
import socket
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from packetfs_compute.errors import ConfigurationError

__all__ = ["Server", "listen", "serve"]

_MAX_HEAD: Final = 1 << 14
_HEAD_TIMEOUT_S: Final = 10.0
"""For a request's head to be here whole."""
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 512
_MAX_CONNECTIONS: Final = 2048
_GRACE_S: Final = 10


class _Protocol(H11Protocol):
    """uvicorn's, which waits for ever for the head of a request of which something has come, or nothing yet."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._head is None:
            self._await_head()

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        # uvicorn keeps this timer, and with it all of the connection, when it was the client that reset it.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Server(uvicorn.Server):
    """uvicorn's, which tells the application when it is to end, so that answers that are kept open do."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            access_log=False, server_header=False, http=_Protocol, ws="none", loop="asyncio", lifespan="on",
            log_level="error", proxy_headers=False, h11_max_incomplete_event_size=_MAX_HEAD,
            timeout_keep_alive=_KEEP_ALIVE_S, backlog=_BACKLOG, limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        )  # fmt: skip
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._app.state.context.stopping = True
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise :class:`ConfigurationError` where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        details = {"field": "gateway_port", "hint": "choose another with --port, or --port 0 for any that is free"}
        raise ConfigurationError(f"{host} port {port} cannot be listened on: {error.strerror}", details) from error
    # Each connection takes it over. asyncio sets it only where the socket names its protocol, which this one does not;
    # without it the second write of an answer waits 40 ms for the first one's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then requests have a few seconds to end."""
    Server(app).run(sockets=[listening])
