"""What the servers behind the HTTP wire have in common in tests: how each is ended, named in a fleet, and asked."""

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import urllib3

from packetfs_compute.places import EndpointKey, SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.signature import HEADER, sign
from support.ports import free_port


class EndpointServer:
    """A server in a process of its own, on a port that it keeps when it is started again. Use it as a context manager."""

    kind: ClassVar[str]
    key_id = "k1"

    def __init__(self) -> None:
        self.secret = secrets.token_hex(16)
        self.port = free_port()
        self._process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(10)

    def stop(self, timeout_s: float = 40) -> int:
        """Ask it to end; return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def wait_until_it_answers(self, log: Callable[[], str], patience_s: float = 30) -> None:
        """Wait until ``/health`` answers with JSON, whatever it says: a server that is set up wrong is up as well."""
        give_up = time.monotonic() + patience_s
        with urllib3.PoolManager(retries=False, timeout=5) as http:
            while True:
                try:
                    http.request("GET", f"{self.url}/health").json()
                except (urllib3.exceptions.HTTPError, json.JSONDecodeError):
                    pass
                else:
                    return
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.kill()
                    raise AssertionError(f"it did not come up: {log()}")
                time.sleep(0.02)

    def spec(self, name: str | None = None) -> SubstrateSpec:
        return SubstrateSpec(name or self.kind, self.kind, url=self.url)

    def settings(self, name: str | None = None) -> Settings:
        """Settings whose fleet has this server in it, under ``name``, with its key."""
        spec = self.spec(name)
        return Settings(substrates=(spec,), keys=(EndpointKey(spec.name, self.key_id, self.secret),))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop(10)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(frozen=True)
class Signed:
    """A server that takes what is signed with this key."""

    url: str
    key_id: str
    secret: str


class SigningClient:
    """Sends what it is told to, signed with the server's key."""

    def __init__(self, server: EndpointServer | Signed) -> None:
        self.server = server
        self.http = urllib3.PoolManager(retries=False, timeout=60, maxsize=64)

    def header(self, body: bytes, path: str = "/compute", **changed: Any) -> str:
        given = {"method": "POST", "path": path, "body": body, "key_id": self.server.key_id, "secret": self.server.secret,
                 "now": time.time(), "nonce": secrets.token_hex(16), **changed}  # fmt: skip
        return sign(**given)

    def raw(
        self, body: bytes, path: str = "/compute", headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        fields = {HEADER: self.header(body, path)} if headers is None else headers
        return self.http.request("POST", self.server.url + path, body=body, headers=fields)

    def post(self, document: object, path: str = "/compute") -> urllib3.BaseHTTPResponse:
        return self.raw(json.dumps(document).encode(), path)


REFUSED: dict[str, Callable[[SigningClient, bytes], dict[str, str]]] = {
    "not signed": lambda client, body: {},
    "another key": lambda client, body: {HEADER: client.header(body, secret="x" * 32)},
    "an unknown id": lambda client, body: {HEADER: client.header(body, key_id="k9")},
    "another body": lambda client, body: {HEADER: client.header(body + b" ")},
    "another path": lambda client, body: {HEADER: client.header(body, "/compute/batch")},
    "another method": lambda client, body: {HEADER: client.header(body, method="PUT")},
    "too old": lambda client, body: {HEADER: client.header(body, now=time.time() - 90)},
    "too early": lambda client, body: {HEADER: client.header(body, now=time.time() + 90)},
    "garbage": lambda client, body: {HEADER: "v1;;;"},
}
"""Fields with which a request must not be let in, each wrong in its own way."""
