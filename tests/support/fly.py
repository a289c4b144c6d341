"""The compute server of ``remote/fly/``, in a process of its own, as it is started on a machine."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from packetfs_compute.substrates.fly import FlySubstrate
from support.endpoint import EndpointServer

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "remote" / "fly" / "server.py"


class FlyServer(EndpointServer):
    """A running server. ``more`` are further variables of its environment; the ones it needs are set. ``program`` is
    what Python runs.

    Several can run at once, and it can be started again, on the same port. Use it as a context manager.
    """

    kind = "fly"

    def __init__(self, folder: Path, program: Sequence[str] = (str(SERVER),), **more: str) -> None:
        super().__init__()
        self._program = program
        self.log = folder / f"fly-{secrets.token_hex(4)}.log"
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

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        output: IO[bytes]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, "--port", str(self.port)],
                env=self._environ, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.wait_until_it_answers(self.log.read_text)

    def substrate(self, name: str = "fly") -> FlySubstrate:
        return FlySubstrate(self.spec(name), self.settings(name))


@pytest.fixture(scope="session")
def fly_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlyServer]:
    """One server for all tests that only use it."""
    with FlyServer(tmp_path_factory.mktemp("fly")) as server:
        yield server
