"""Real Chromium, the built files of ``remote/browser/`` on a server, sources for any origin, and a hub that tests drive."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest
from playwright.sync_api import Browser, sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from packetfs_compute import __version__
from packetfs_compute.conform.contract import load_contract
from support.edge import PATH, REMOTE, need_node
from support.misbehaving import Exchange, RawServer, Script, answer, honest, says

BUILD: Final = REMOTE / "browser" / "build.mjs"
OPENED: Final = {"PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8"}
"""The variables with which a browser may read the sources of tests."""

PATIENCE_S: Final = 15
"""How long a test waits for a browser."""

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
_SHARED: Final = ("Access-Control-Allow-Origin: *", "Access-Control-Expose-Headers: Content-Range, ETag")
_BLANK: Final = b"<!doctype html><html lang=en><title>A page</title><link rel=icon href=data:,>"


def need_chromium() -> str:
    """Return the browser; fail in CI, skip elsewhere where it is not installed."""
    found = shutil.which("chromium")
    if found is None:
        lacking = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    return found


def build(output: Path) -> Path:
    """Build the browser's files into a folder of ``output``, and return that folder."""
    done = subprocess.run(
        [need_node(), str(BUILD), "--output", str(output)],
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return output / __version__


Action = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Serves a folder at ``/packetfs/``, and an empty page at ``/``. Use it as a context manager.

    ``meta`` is what the lending page's ``packetfs:<name>`` are set to. ``more`` are further answers by path, as
    ``(status, type, body)``; ``actions``, by method and path, answer themselves and close the connection. Without
    ``shared`` no other origin may read a file.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.folder = folder
        self.meta: dict[str, str] = {}
        self.more: dict[str, tuple[int, str, bytes]] = {}
        self.actions: dict[str, Action] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                action = site.actions.get(f"{self.command} {self.path}")
                if action is not None:
                    self.close_connection = True
                    action(self)
                    return
                status, kind, body = site.find(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if shared:
                    self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.files = f"{self.origin}/packetfs/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def find(self, path: str) -> tuple[int, str, bytes]:
        """Return the answer to a path."""
        if path in self.more:
            return self.more[path]
        if path == "/":
            return 200, _TYPES[".html"], _BLANK
        name = path.removeprefix("/packetfs/")
        file = self.folder / name
        if "/" in name or not file.is_file():
            return 404, "text/plain", b"there is no such file"
        body = file.read_bytes()
        if name == "lend.html":
            for key, value in self.meta.items():
                before, found, after = body.partition(f'<meta name="packetfs:{key}" content="'.encode())
                assert found
                body = before + found + value.encode() + after[after.index(b'"') :]
        return 200, _TYPES[file.suffix], body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Shared(Exchange):
    """An exchange whose answers carry what lets other origins read them."""

    def send(self, *parts: bytes) -> None:
        head, *body = parts
        status, found, rest = head.partition(b"\r\n")
        fields = "\r\n".join(_SHARED).encode()
        super().send(status + found + fields + b"\r\n" + rest if head.startswith(b"HTTP/") else head, *body)


def shared(script: Script) -> Script:
    """Return the script with the answers' CORS fields; it answers no preflight."""

    def answers(exchange: Exchange) -> object:
        return script(_Shared(exchange.server, exchange.sock, exchange.head, exchange.path, exchange.number))

    return answers


class Sources(RawServer):
    """The contract's objects at ``/objects/<name>`` for any origin, the same for none at ``/closed/<name>``."""

    def __init__(self) -> None:
        super().__init__(shared(says(answer("404 Not Found", "Content-Length: 0", "Connection: close"))))
        for name, one in load_contract().objects.items():
            self.routes[f"/objects/{name}"] = shared(honest(one.data, one.etag))
            self.routes[f"/closed/{name}"] = honest(one.data, one.etag)

    @property
    def preflights(self) -> list[bytes]:
        return [head for head in self.heads if head.startswith(b"OPTIONS ")]


class Lent:
    """A browser that has come to the hub."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.frames: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended = threading.Event()
        self.hello = self._read()

    def _read(self) -> dict[str, Any]:
        text = self.socket.recv(PATIENCE_S)
        assert isinstance(text, str)
        frame: dict[str, Any] = json.loads(text)
        return frame

    def follow(self) -> None:
        """Queue what it sends until it is gone."""
        with suppress(ConnectionClosed):
            for text in self.socket:
                self.frames.put(json.loads(text))
        self.ended.set()

    def send(self, **frame: Any) -> None:
        self.socket.send(json.dumps(frame))

    def welcome(self, name: str = "b1") -> None:
        self.send(type="welcome", browser=name, lease_ms=10_000)

    def run(self, lease: str, request: dict[str, Any]) -> None:
        self.send(type="run", lease=lease, request=request)

    def next(self, kind: str) -> dict[str, Any]:
        """Return the next frame, which must be of that type."""
        frame = self.frames.get(timeout=PATIENCE_S)
        assert frame["type"] == kind, frame
        return frame

    def gone(self) -> bool:
        return self.ended.wait(PATIENCE_S)


class Hub:
    """The hub's side of the protocol, driven by the test. Use it as a context manager."""

    def __init__(self) -> None:
        self._come: queue.Queue[Lent] = queue.Queue()
        self.paths: list[str] = []
        self._server = serve(self._handle, "127.0.0.1", 0)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def _handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        with suppress(ConnectionClosed, TimeoutError):
            lent = Lent(socket)
            self._come.put(lent)
            lent.follow()

    def come(self) -> Lent:
        """Return the next browser that says hello."""
        return self._come.get(timeout=PATIENCE_S)

    def joined(self) -> Lent:
        """Return the next browser, welcomed."""
        lent = self.come()
        lent.welcome()
        return lent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(5)


@pytest.fixture(scope="session")
def browser_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built files."""
    return build(tmp_path_factory.mktemp("browser-files"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running browser; a module's own, since its event loop keeps others from running in this thread."""
    executable = need_chromium()
    args = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=args)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(browser_files: Path) -> Iterator[Site]:
    with Site(browser_files) as server:
        yield server


@pytest.fixture(scope="module")
def sources() -> Iterator[Sources]:
    with Sources() as server:
        yield server


def request_of(url: str, *ops: Mapping[str, Any], timeout: int = 20_000, **program: Any) -> dict[str, Any]:
    """Return a request of ``POST /compute``; ``crc32c`` where no op is given."""
    return {"program": {"data_url": url, "ops": list(ops) or [{"op": "crc32c"}], **program}, "timeout": timeout}
