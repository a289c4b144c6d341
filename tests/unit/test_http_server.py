"""uvicorn with our protocol: what it does with connections that do not ask, and with those that are reset."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from support.processes import wait_until
from websockets.sync.client import connect

from packetfs_compute.http_server import BoundedProtocol

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD_TIMEOUT_S = 0.2


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request, and say back what comes over a WebSocket."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (said := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": said["text"]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    monkeypatch.setattr("packetfs_compute.http_server._HEAD_TIMEOUT_S", HEAD_TIMEOUT_S)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            app, http=BoundedProtocol, ws="websockets-sansio", loop="asyncio", lifespan="off", log_level="critical"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started, "it serves")
        server.port = listening.getsockname()[1]  # type: ignore[attr-defined]
        yield server
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def talk(server: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
        yield plain


def exchange(plain: socket.socket, ask: bytes = ASK) -> None:
    plain.sendall(ask)
    told = b""
    while not told.endswith(b"\r\n\r\nok"):
        more = plain.recv(1 << 16)
        assert more, "it hung up"
        told += more


@pytest.mark.parametrize(
    ("before", "begun"),
    [(False, b""), (False, ASK[:10]), (True, ASK[:10])],
    ids=["nothing", "half a head", "half a head after a request"],
)
def test_a_head_that_does_not_come_is_given_up(server: uvicorn.Server, before: bool, begun: bytes) -> None:
    with talk(server) as plain:
        if before:
            exchange(plain)
        plain.sendall(begun)
        assert plain.recv(1) == b""


def test_a_connection_that_is_kept_serves_on(server: uvicorn.Server) -> None:
    with talk(server) as plain:
        for _ in range(2):
            exchange(plain)
            time.sleep(1.5 * HEAD_TIMEOUT_S)


def test_a_head_may_come_in_two_parts(server: uvicorn.Server) -> None:
    with talk(server) as plain:
        for _ in range(2):
            plain.sendall(ASK[:10])
            time.sleep(HEAD_TIMEOUT_S / 4)
            exchange(plain, ASK[10:])


def test_a_websocket_is_not_taken_for_a_head_that_is_late(server: Any) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/") as held:
        time.sleep(1.5 * HEAD_TIMEOUT_S)
        held.send("still here")
        assert held.recv(10) == "still here"


def test_one_that_is_reset_leaves_nothing_behind(server: uvicorn.Server) -> None:
    """The timer of a connection is what holds it; seen on the very object, since it would be gone in some seconds."""
    with talk(server) as plain:
        exchange(plain)
        (held,) = server.server_state.connections
        wait_until(lambda: held.timeout_keep_alive_task, "it is kept")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: not server.server_state.connections, "the reset is noticed")
    wait_until(lambda: held.timeout_keep_alive_task is None, "its timer is let go of", 2)
