"""An origin server on a raw socket that answers by script: whatever HTTP forbids, it can send.

A script answers one request and says by a true result that the connection stays open. Scripts are found by the first
segment of a path (``/objects/…``), so that one port has everything that a suite needs and a server that redirects ever
further stays in its own corner.
"""

import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

__all__ = ["Exchange", "Origin", "Script", "answer", "honest", "says"]

Script = Callable[["Exchange"], object]
"""Answers one request. A true result keeps the connection for the next one; otherwise it is closed."""

_MAX_HEAD: Final = 1 << 16
_MAX_CONNECTIONS: Final = 512
_IDLE_S: Final = 60.0


class Exchange:
    """One request, and the socket on which to answer it. ``number`` counts the requests of its path from 0."""

    def __init__(self, server: "Origin", sock: socket.socket, head: bytes, path: str, number: int) -> None:
        self.server, self.sock, self.head, self.path, self.number = server, sock, head, path, number

    def field(self, name: str) -> str | None:
        """Return the value of a field of the request, or ``None``."""
        match = re.search(rf"(?im)^{re.escape(name)}: *([^\r\n]*)".encode(), self.head)
        return match[1].decode("latin-1") if match else None

    @property
    def range(self) -> tuple[int, int | None] | None:
        """The range asked for as (first, last), inclusive, as HTTP has it."""
        match = re.fullmatch(r"bytes=([0-9]{1,18})-([0-9]{0,18})", self.field("Range") or "")
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None

    def send(self, *parts: bytes) -> None:
        """Send the bytes as they are."""
        self.sock.sendall(b"".join(parts))

    def wait(self, seconds: float) -> bool:
        """Sleep; return whether the server is being closed."""
        return self.server.closing.wait(seconds)

    def reset(self) -> None:
        """Close with RST rather than FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Origin:
    """Runs a script for every request, each connection in a thread of its own. Use it as a context manager.

    ``script`` answers what no entry of ``routes`` does; a route's name is a path, or a path's first segment. ``wrap`` may
    put TLS around each connection.
    """

    def __init__(
        self,
        script: Script,
        wrap: Callable[[socket.socket], socket.socket] | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.closing = threading.Event()
        self.heads: list[bytes] = []
        self.connections = 0
        self.routes: dict[str, Script] = {}
        self._script, self._wrap = script, wrap
        self._listener = socket.create_server(address)
        self.host, self.port = self._listener.getsockname()[:2]
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._start(self._accept)

    def url(self, path: str = "/object", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Return the URL of a path here."""
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        """End every connection and stop listening."""
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_now, threads = list(self._open), list(self._threads)
        for sock in open_now:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=self._run, args=(run, *args), daemon=True)
        with self._lock:  # whoever closes it joins the threads that are there, and those must have begun
            self._threads.add(thread)
            thread.start()

    def _run(self, run: Callable[..., None], *args: object) -> None:
        try:
            run(*args)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if len(self._threads) > _MAX_CONNECTIONS:
                sock.close()
                continue
            self._start(self._serve, sock)

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        with plain, suppress(OSError):
            plain.settimeout(_IDLE_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._wrap is not None:
                sock = self._wrap(plain)
            with self._lock:
                self._open.add(sock)
            try:
                with sock:
                    while not self.closing.is_set() and self._answer(sock):
                        pass
                    # A FIN, not the RST that closing with unread input would send.
                    sock.shutdown(socket.SHUT_WR)
            finally:
                with self._lock:
                    self._open.discard(sock)

    def _answer(self, sock: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(65536)
            if not data or len(head) > _MAX_HEAD:
                return False
            head += data
        path = head.split(b" ")[1].decode("latin-1")
        with self._lock:
            self.heads.append(head)
            number = self._asked[path]
            self._asked[path] += 1
        script = self.routes.get(path) or self.routes.get(path.split("/")[1]) or self._script
        return bool(script(Exchange(self, sock, head, path, number)))


def answer(status: str, *fields: str, body: bytes = b"") -> bytes:
    """Return an answer as it goes over the wire; nothing is added to ``fields``."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1") + body


def says(*parts: bytes) -> Script:
    """Return the script that sends ``parts`` to every request, then closes."""
    return lambda exchange: exchange.send(*parts)


def honest(data: bytes, etag: str = '"v1"') -> Script:
    """Return the script of a good server of one object: 206, 416, 412, keep-alive (RFC 9110)."""

    def script(exchange: Exchange) -> bool:
        pinned, size, wanted = exchange.field("If-Match"), len(data), exchange.range
        fields = [f"ETag: {etag}"]
        if pinned not in (None, "*", etag):
            exchange.send(answer("412 Precondition Failed", "Content-Length: 0", *fields))
        elif wanted is None:
            exchange.send(answer("200 OK", *fields, f"Content-Length: {size}"), data)
        elif wanted[0] >= size:
            fields.append(f"Content-Range: bytes */{size}")
            exchange.send(answer("416 Range Not Satisfiable", *fields, "Content-Length: 0"))
        else:
            stop = size if wanted[1] is None else min(size, wanted[1] + 1)
            fields += [f"Content-Range: bytes {wanted[0]}-{stop - 1}/{size}", f"Content-Length: {stop - wanted[0]}"]
            exchange.send(answer("206 Partial Content", *fields), data[wanted[0] : stop])
        return True

    return script
