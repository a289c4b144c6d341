"""The function of ``remote/vercel/`` in npm's ``edge-runtime``, in a process of its own."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from support.edge import PATH, REMOTE, need_node
from support.endpoint import EndpointServer

BUILD = REMOTE / "vercel" / "build.mjs"
RUNTIME = REMOTE / "node_modules" / "edge-runtime" / "dist" / "cli" / "index.js"


class VercelServer(EndpointServer):
    """A running function. ``more`` are further variables; the ones it needs are set.

    The runtime has no environment: the variables are in the script, which is built anew for each server and lies in
    ``folder``. Several can run at once, and one can be started again, on the same port. Use it as a context manager.
    """

    kind = "vercel"

    def __init__(self, folder: Path, **more: str) -> None:
        super().__init__()
        self._node = need_node()
        name = f"vercel-{secrets.token_hex(4)}"
        self.log, self._script = folder / f"{name}.log", folder / f"{name}.js"
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

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        output: IO[bytes]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._node, str(RUNTIME), "-l", "-p", str(self.port), "-h", "127.0.0.1", str(self._script)],
                env={"PATH": PATH}, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.wait_until_it_answers(self.log.read_text)


@pytest.fixture(scope="session")
def vercel_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VercelServer]:
    """One server for all tests that only use it."""
    with VercelServer(tmp_path_factory.mktemp("vercel")) as server:
        yield server
