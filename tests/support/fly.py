"""The compute server of ``remote/fly/``, in a process of its own, as it is started on a machine."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pytest
import urllib3

from packetfs_compute.places import EndpointKey, SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.fly import FlySubstrate

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "remote" / "fly" / "server.py"


class FlyServer:
    """A running server. ``more`` are further variables of its environment; the ones it needs are set.

    Several can run at once, and it can be started again, on the same port. Use it as a context manager.
    """

    key_id = "k1"

    def __init__(self, folder: Path, **more: str) -> None:
        self.secret = secrets.token_hex(16)
        self.log = folder / f"fly-{secrets.token_hex(4)}.log"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PACKETFS_")}
        self._environ = {
            **clean,
            "PYTHONPATH": str(ROOT),
            "PACKETFS_CONFIG": os.devnull,
            "PACKETFS_DATA_DIR": str(folder),
            "PACKETFS_SIGNING_KEYS": f"{self.key_id}:{self.secret}",
            "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
            "PACKETFS_MAX_CONCURRENCY": "8",
            "FLY_REGION": "iad",
            **more,
        }
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
                [sys.executable, str(SERVER), "--port", str(self.port)],
                env=self._environ, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        give_up = time.monotonic() + 30
        with urllib3.PoolManager(retries=False, timeout=5) as http:
            while True:
                try:
                    if http.request("GET", f"{self.url}/health").json()["status"] == "healthy":
                        return
                except (urllib3.exceptions.HTTPError, json.JSONDecodeError):
                    pass
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.kill()
                    raise AssertionError(f"the server did not come up: {self.log.read_text()}")
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(10)

    def stop(self, timeout_s: float = 40) -> int:
        """Ask it to end; return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def spec(self, name: str = "fly") -> SubstrateSpec:
        return SubstrateSpec(name, "fly", url=self.url)

    def settings(self, name: str = "fly") -> Settings:
        """Settings whose fleet has this server in it, under ``name``, with its key."""
        return Settings(substrates=(self.spec(name),), keys=(EndpointKey(name, self.key_id, self.secret),))

    def substrate(self, name: str = "fly") -> FlySubstrate:
        return FlySubstrate(self.spec(name), self.settings(name))

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
def fly_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlyServer]:
    """One server for all tests that only use it."""
    with FlyServer(tmp_path_factory.mktemp("fly")) as server:
        yield server
