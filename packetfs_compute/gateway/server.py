"""The server: uvicorn with every bound set, from a socket that listens already until SIGTERM."""

import resource
import socket
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from packetfs_compute.gateway.exposure import BACKLOG
from packetfs_compute.http_server import BoundedProtocol
from packetfs_compute.volunteers.frames import MAX_FRAME

__all__ = ["Server", "serve"]

_MAX_HEAD: Final = 1 << 14
_KEEP_ALIVE_S: Final = 75
_MAX_CONNECTIONS: Final = 8192
"""Browsers that lend a hand keep one each."""
_PING_S: Final = 20.0
"""Between two pings of a WebSocket, and for the answer to each."""
_GRACE_S: Final = 10


class Server(uvicorn.Server):
    """uvicorn's, which tells the application when it is to end, so that answers that are kept open do."""

    def __init__(self, app: FastAPI) -> None:
        proxies = [str(network) for network in app.state.context.settings.gateway_proxies]
        config = uvicorn.Config(
            app,
            access_log=False, server_header=False, http=BoundedProtocol, loop="asyncio", lifespan="on", log_level="error",
            ws="websockets-sansio", ws_max_size=MAX_FRAME, ws_per_message_deflate=False,
            ws_ping_interval=_PING_S, ws_ping_timeout=_PING_S,
            proxy_headers=bool(proxies), forwarded_allow_ips=proxies, h11_max_incomplete_event_size=_MAX_HEAD,
            timeout_keep_alive=_KEEP_ALIVE_S, backlog=BACKLOG, limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        )  # fmt: skip
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._app.state.context.stopping = True
        super().handle_exit(sig, frame)


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; then requests have a few seconds to end."""
    _allow_many_files()
    Server(app).run(sockets=[listening])


def _allow_many_files() -> None:
    """Let this process hold as many connections as it accepts, where the system lets it: 1,024 files are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
