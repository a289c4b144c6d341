"""A proxy in front of a real compute server that passes requests on, until it is told to misbehave."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["FaultyProxy", "Mode", "faulty_proxy"]

Mode = Literal["pass", "500", "429", "garbage", "nothing", "slow", "cut"]

_SLOW_S = 6.0
_SILENT_S = 20.0


class FaultyProxy:
    """A running proxy; ``mode`` may be changed at any time and holds for the next request, on any connection."""

    def __init__(self, upstream: str) -> None:
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        """How far away the server behind is."""
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[tuple[float, str, Mode]] = []
        self.closing = threading.Event()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def computed_since(self, moment: float) -> int:
        """How many jobs were asked of it since ``moment`` (monotonic)."""
        return sum(at >= moment and path == "/compute" for at, path, _ in self.requests)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away here; that is the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FaultyProxy

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = self.owner.mode
        self.owner.requests.append((time.monotonic(), self.path, mode))
        self.owner.closing.wait(self.owner.delay_s)
        if mode == "nothing":
            self.owner.closing.wait(_SILENT_S)
            self.close_connection = True
            return
        if mode == "slow":
            self.owner.closing.wait(_SLOW_S)
        if mode == "500":
            self._answer(500, {}, b"Internal Server Error")
        elif mode == "429":
            self._answer(429, {"Retry-After": "2"}, b"slow down")
        elif mode == "garbage":
            self._answer(200, {"Content-Type": "application/json"}, b'{"success": tru\x00\xff<html>')
        else:
            self._pass_on(body, mode)

    def _pass_on(self, body: bytes, mode: Mode) -> None:
        connection = http.client.HTTPConnection(self.owner.upstream, timeout=30)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            status, given, data = answer.status, dict(answer.getheaders()), answer.read()
        except OSError:
            self.close_connection = True  # the server behind is dead, and so it looks
            return
        finally:
            connection.close()
        if mode == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + data[:20])
            self.close_connection = True
            return
        kept = {key: value for key, value in given.items() if key.lower() in ("content-type", "retry-after")}
        self._answer(status, kept, data)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Print nothing."""
