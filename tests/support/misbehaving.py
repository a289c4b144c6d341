"""A server on a raw socket that answers by script: whatever HTTP forbids, it can send."""

import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Script = Callable[["Exchange"], object]
"""Answers one request. A true result keeps the connection for the next one; otherwise it is closed."""


class Exchange:
    """One request, and the socket on which to answer it. ``number`` counts the server's requests from 0."""

    def __init__(self, server: "RawServer", sock: socket.socket, head: bytes, number: int) -> None:
        self.server, self.sock, self.head, self.number = server, sock, head, number

    @property
    def path(self) -> str:
        return self.head.split(b" ")[1].decode()

    def field(self, name: str) -> str | None:
        match = re.search(rf"(?im)^{name}: *([^\r\n]*)".encode(), self.head)
        return match[1].decode("latin-1") if match else None

    @property
    def range(self) -> tuple[int, int | None] | None:
        """The range asked for, as (first, last), inclusive."""
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.field("Range") or "")
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None

    def send(self, *parts: bytes) -> None:
        self.sock.sendall(b"".join(parts))

    def wait(self, seconds: float) -> bool:
        """Sleep; return whether the server is being closed."""
        return self.server.closing.wait(seconds)

    def reset(self) -> None:
        """Close with RST rather than FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class RawServer:
    """Runs ``script`` for every request, each connection in a thread of its own. Use it as a context manager."""

    def __init__(self, script: Script, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self.closing = threading.Event()
        self.heads: list[bytes] = []
        self.connections = 0
        self.routes: dict[str, Script] = {}
        """Scripts for single paths, in place of the server's own."""
        self._script, self._wrap = script, wrap
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def url(self, path: str = "/object", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, sock)

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        with plain, suppress(OSError):
            if self._wrap is not None:
                sock = self._wrap(plain)
            with self._lock:
                self._open.append(sock)
            with sock:
                while not self.closing.is_set() and self._answer(sock):
                    pass
                # A FIN, not the RST that closing with unread input would send.
                sock.shutdown(socket.SHUT_WR)

    def _answer(self, sock: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(65536)
            if not data:
                return False
            head += data
        with self._lock:
            number = len(self.heads)
            self.heads.append(head)
        exchange = Exchange(self, sock, head, number)
        return bool(self.routes.get(exchange.path, self._script)(exchange))


def answer(status: str, *fields: str, body: bytes = b"") -> bytes:
    """Return an answer as it goes over the wire; nothing is added to ``fields``."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1") + body


def says(*parts: bytes) -> Script:
    """Return the script that sends ``parts`` to every request, then closes."""
    return lambda exchange: exchange.send(*parts)


def honest(data: bytes, etag: str = '"v1"') -> Script:
    """Return the script of a good server of one object: 206, 416, 412, keep-alive."""

    def script(exchange: Exchange) -> bool:
        pinned, size, wanted = exchange.field("If-Match"), len(data), exchange.range
        fields = [f"ETag: {etag}"]
        if pinned is not None and pinned != etag:
            exchange.send(answer("412 Precondition Failed", "Content-Length: 0"))
        elif wanted is None:
            exchange.send(answer("200 OK", *fields, f"Content-Length: {size}", body=data))
        elif wanted[0] >= size:
            exchange.send(answer("416 Range Not Satisfiable", f"Content-Range: bytes */{size}", "Content-Length: 0"))
        else:
            stop = size if wanted[1] is None else min(size, wanted[1] + 1)
            fields += [f"Content-Range: bytes {wanted[0]}-{stop - 1}/{size}", f"Content-Length: {stop - wanted[0]}"]
            exchange.send(answer("206 Partial Content", *fields, body=data[wanted[0] : stop]))
        return True

    return script
