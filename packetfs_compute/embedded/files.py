"""A small honest HTTP server for one file on loopback: ranges, strong ETag, If-Match, keep-alive (RFC 9110).

It gives ``packetfs demo`` and the tests real bytes of a real HTTP object. It is no server for production.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

__all__ = ["serve_file"]

_RANGE: Final = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
_IDLE_S: Final = 30.0


@contextmanager
def serve_file(path: Path) -> Iterator[str]:
    """Serve the file at ``path`` on a free loopback port while the context lasts; yield its URL."""
    status = path.stat()
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    class Handler(_FileHandler):
        file = path
        entity_tag = etag

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/{path.name}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away; anything else is a defect, and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _FileHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement of its headers
    file: Path
    entity_tag: str

    def do_GET(self) -> None:
        """Answer 200, 206, 412 or 416."""
        size = self.file.stat().st_size
        wanted = self.headers.get("If-Match")
        if wanted is not None and not {"*", self.entity_tag} & {tag.strip() for tag in wanted.split(",")}:
            self._head(HTTPStatus.PRECONDITION_FAILED, 0)
            return
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if self.headers.get("If-Range") not in (None, self.entity_tag):
            match = None  # the rest of another version is of no use (section 13.1.5)
        start, stop = 0, size
        if match:
            start = int(match[1])
            stop = min(size, int(match[2]) + 1) if match[2] else size
            if start >= size or stop <= start:
                self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, f"bytes */{size}")
                return
            self._head(HTTPStatus.PARTIAL_CONTENT, stop - start, f"bytes {start}-{stop - 1}/{size}")
        else:
            self._head(HTTPStatus.OK, size)
        self._body(start, stop)

    def _head(self, status: HTTPStatus, length: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", self.entity_tag)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _body(self, start: int, stop: int) -> None:
        try:
            with self.file.open("rb") as file:
                if stop > start:
                    self.connection.sendfile(file, start, stop - start)
        except (TimeoutError, ConnectionError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Print nothing: requests are not news."""
