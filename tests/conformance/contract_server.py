"""Serves the objects of ``vectors.json`` over HTTP: each at ``/name``, with its ETag, ranges and If-Match (RFC 9110).

Run it by itself, ``python tests/conformance/contract_server.py``, for a substrate in another process or language: it
prints its base URL and serves until its stdin is closed.
"""

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

CONTRACT = Path(__file__).parents[2] / "remote" / "contract"
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")


def load_generator() -> ModuleType:
    """Return ``remote/contract/generate.py`` as a module; it is no part of any package."""
    spec = importlib.util.spec_from_file_location("contract_generate", CONTRACT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Object:
    data: bytes
    etag: str


def load_objects() -> dict[str, Object]:
    """Return the objects of ``vectors.json`` by name."""
    make = load_generator().make
    described: list[dict[str, Any]] = json.loads((CONTRACT / "vectors.json").read_text("ascii"))["objects"]
    return {obj["name"]: Object(make(obj["bytes"], obj["size"]), obj["etag"]) for obj in described}


@contextmanager
def serve(objects: Mapping[str, Object]) -> Iterator[str]:
    """Serve ``objects`` on a free loopback port while the context lasts; yield the base URL, without a slash at its end."""

    class Handler(_Handler):
        served = objects

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    served: Mapping[str, Object]

    def do_GET(self) -> None:
        found = self.served.get(self.path.removeprefix("/"))
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, b"there is no such object")
            return
        if self.headers.get("If-Match", found.etag) not in ("*", found.etag):
            self._answer(HTTPStatus.PRECONDITION_FAILED, b"", ETag=found.etag)
            return
        size = len(found.data)
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            self._answer(HTTPStatus.OK, found.data, ETag=found.etag)
            return
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if start >= stop:
            fields = {"ETag": found.etag, "Content-Range": f"bytes */{size}"}
            self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", **fields)
            return
        fields = {"ETag": found.etag, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self._answer(HTTPStatus.PARTIAL_CONTENT, found.data[start:stop], **fields)

    def _answer(self, status: HTTPStatus, body: bytes, **fields: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the reader may stop in the middle
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        pass


if __name__ == "__main__":
    with serve(load_objects()) as base_url:
        print(base_url, flush=True)
        sys.stdin.read()
