"""The HTTP gateway in tests: served by a thread of this process, or by a process of its own."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from fastapi import FastAPI

from packetfs_compute.gateway.exposure import listen
from packetfs_compute.gateway.server import Server
from support.system import PACKETFS

PROGRAM = {"data_url": "https://host.example/object", "length": 1024, "ops": [{"op": "crc32c"}]}


@dataclass
class Answer:
    """What came back: ``json`` is its body."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        """The problem's type; the answer must be one."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        return str(self.json["error"])


@dataclass
class Client:
    """Asks a gateway, with ``key`` where one is given."""

    url: str
    key: str | None = None
    pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=64, retries=False, timeout=40)
    )

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        fields = {"Content-Type": "application/json"} if body is not None or raw is not None else {}
        if self.key is not None:
            fields["Authorization"] = f"Bearer {self.key}"
        sent = raw if body is None else json.dumps(body).encode()
        answer = self.pool.request(
            method, self.url + path, body=sent, headers={**fields, **(headers or {})}, redirect=False
        )
        return Answer(answer.status, answer.headers, answer.data.decode())

    def get(self, path: str, **headers: str) -> Answer:
        return self("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def delete(self, path: str) -> Answer:
        return self("DELETE", path)

    def with_key(self, key: str | None) -> "Client":
        return Client(self.url, key, self.pool)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain:
            yield plain


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[Client]:
    """Serve ``app`` from a thread, with the very server that ``packetfs gateway`` runs."""
    with listen("127.0.0.1", port) as listening:
        server = Server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            yield client
        finally:
            client.pool.clear()
            app.state.context.stopping = True
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@dataclass
class GatewayProcess:
    """``packetfs gateway``, listening."""

    process: subprocess.Popen[str]
    client: Client


@contextmanager
def gateway_process(environ: Mapping[str, str], folder: Path, *arguments: str) -> Iterator[GatewayProcess]:
    """Run ``packetfs gateway`` on a free port, and end it as a service manager does."""
    process = subprocess.Popen(
        [*PACKETFS, "gateway", "--port", "0", "--json", *arguments],
        env=dict(environ), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"packetfs gateway did not start: {process.communicate()[1]}")
    client = Client(json.loads(line)["url"])
    try:
        yield GatewayProcess(process, client)
    finally:
        client.pool.clear()
        if process.poll() is None:
            process.terminate()
            code, errors = process.wait(20), process.communicate()[1]
            assert code == 0, errors
            assert "Traceback" not in errors, errors
        process.communicate()
