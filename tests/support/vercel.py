"""The function of ``remote/vercel/`` in npm's ``edge-runtime``, in a process of its own."""

import json
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pytest
import urllib3

from packetfs_compute.places import EndpointKey, SubstrateSpec
from packetfs_compute.settings import Settings
from support.edge import PATH, REMOTE, need_node

BUILD = REMOTE / "vercel" / "build.mjs"
RUNTIME = REMOTE / "node_modules" / "edge-runtime" / "dist" / "cli" / "index.js"


class VercelServer:
    """A running function. ``more`` are further variables; the ones it needs are set.

    The runtime has no environment: the variables are in the script, which is built anew for each server and lies in
    ``folder``. Several can run at once, and one can be started again, on the same port. Use it as a context manager.
    """

    key_id = "k1"

    def __init__(self, folder: Path, **more: str) -> None:
        self._node = need_node()
        self.secret = secrets.token_hex(16)
        name = f"vercel-{secrets.token_hex(4)}"
        self.log, self._script = folder / f"{name}.log", folder / f"{name}.js"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        variables = {
            "PACKETFS_SIGNING_KEYS": f"{self.key_id}:{self.secret}",
            "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
            "PACKETFS_MAX_CONCURRENCY": "8",
            "VERCEL_REGION": "iad1",
            **more,
        }
        done = subprocess.run(
            [self._node, str(BUILD), "--local", str(self._script)], env={"PATH": PATH, **variables}, cwd=folder,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self._script.chmod(0o600)
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        output: IO[bytes]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._node, str(RUNTIME), "-l", "-p", str(self.port), "-h", "127.0.0.1", str(self._script)],
                env={"PATH": PATH}, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        give_up = time.monotonic() + 30
        with urllib3.PoolManager(retries=False, timeout=5) as http:
            while True:
                try:
                    # Any answer that is JSON: one that is set up wrong is up as well.
                    http.request("GET", f"{self.url}/health").json()
                except (urllib3.exceptions.HTTPError, json.JSONDecodeError):
                    pass
                else:
                    return
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.kill()
                    raise AssertionError(f"the function did not come up: {self.log.read_text()}")
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(10)

    def stop(self, timeout_s: float = 40) -> int:
        """Ask it to end; return its exit status, which is the signal's: the runtime has no other end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def spec(self, name: str = "vercel") -> SubstrateSpec:
        return SubstrateSpec(name, "vercel", url=self.url)

    def settings(self, name: str = "vercel") -> Settings:
        """Settings whose fleet has this server in it, under ``name``, with its key."""
        return Settings(substrates=(self.spec(name),), keys=(EndpointKey(name, self.key_id, self.secret),))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop(10)
        except subprocess.TimeoutExpired:
            self.kill()


@pytest.fixture(scope="session")
def vercel_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VercelServer]:
    """One server for all tests that only use it."""
    with VercelServer(tmp_path_factory.mktemp("vercel")) as server:
        yield server
