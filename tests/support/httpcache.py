"""A cache as workerd asks for one on behalf of the Cache API: a small HTTP server that keeps whole responses."""

import sys
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpCache:
    """What workerd asks for the Cache API: ``PUT`` has a whole response as its body, ``GET`` wants it back.

    It is kept in memory, the last ``limit`` bytes that were put or got.
    """

    def __init__(self, limit: int = 256 << 20) -> None:
        self.entries: OrderedDict[str, bytes] = OrderedDict()
        """Whole responses, by namespace, host and path; the one used last is the last."""
        self._limit, self._bytes = limit, 0
        self._lock = threading.Lock()

        class Handler(_CacheHandler):
            cache = self

        self._server = _CacheServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            if key in self.entries:
                self.entries.move_to_end(key)
            return self.entries.get(key)

    def put(self, key: str, response: bytes) -> None:
        with self._lock:
            self._bytes += len(response) - len(self.entries.pop(key, b""))
            self.entries[key] = response
            while self._bytes > self._limit:
                self._bytes -= len(self.entries.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything, as a cache may at any time."""
        with self._lock:
            self.entries.clear()
            self._bytes = 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _CacheServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle, or is killed, is no error of a test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _CacheHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True
    cache: HttpCache

    @property
    def _key(self) -> str:
        return f"{self.headers.get('CF-Cache-Namespace', '')}|{self.headers['Host']}{self.path}"

    def do_GET(self) -> None:
        found = self.cache.get(self._key)
        if found is None:
            self.wfile.write(b"HTTP/1.1 504 Gateway Timeout\r\nCF-Cache-Status: MISS\r\nContent-Length: 0\r\n\r\n")
            return
        status, _, rest = found.partition(b"\r\n")
        self.wfile.write(status + b"\r\nCF-Cache-Status: HIT\r\n" + rest)

    def do_PUT(self) -> None:
        self.cache.put(self._key, self.rfile.read(int(self.headers["Content-Length"])))
        self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        pass
