"""Images built and run by buildah and podman in a directory of their own, with no daemon and no registry of images.

The two bases that the Dockerfiles name are made from Debian's packages, which have the same Python, under the very names.
What only the machine that builds needs (its certificates, its package index) is mounted while building, and is in no image.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SLIM = "docker.io/library/python:3.11-slim-bookworm"
FULL = "docker.io/library/python:3.11-bookworm"
_PACKAGES = {
    SLIM: ("python3", "python-is-python3", "ca-certificates"),
    FULL: ("python3", "python-is-python3", "ca-certificates", "python3-venv", "python3-dev", "gcc", "libc6-dev"),
}
_TOOLS = {"buildah": "buildah", "podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap"}
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""


def require_tools() -> None:
    """Skip the test where it cannot run; fail it where it must."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = sorted(package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None)
    if os.getuid() != 0:
        missing.append("root")
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"without {', '.join(missing)} no image can be built")


@dataclass(frozen=True)
class Container:
    """A running container, on the machine's own network."""

    engine: "Engine"
    id: str

    def exec(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.engine.podman("exec", self.id, *argv, check=False)

    def check(self) -> bool:
        """Run the image's HEALTHCHECK once."""
        return self.engine.podman("healthcheck", "run", self.id, check=False).returncode == 0

    def stop(self, timeout_s: int) -> int:
        """Send the stop signal, and SIGKILL after ``timeout_s``; return the exit status (137 for the latter)."""
        self.engine.podman("stop", "--time", str(timeout_s), self.id)
        return int(self.state()["ExitCode"])

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.engine.podman("inspect", self.id).stdout)[0]["State"]
        return state

    def log(self) -> str:
        done = self.engine.podman("logs", self.id, check=False)
        return done.stdout + done.stderr

    def wait(self, seconds: float = 60) -> None:
        """Wait until the image's health check is content."""
        give_up = time.monotonic() + seconds
        while not self.check():
            assert self.state()["Running"], f"it has ended: {self.log()}"
            assert time.monotonic() < give_up, f"not healthy within {seconds:g} s: {self.log()}"
            time.sleep(0.2)


class Engine:
    """buildah and podman over one storage in ``folder``, a new directory; :meth:`close` leaves nothing of it."""

    def __init__(self) -> None:
        # podman wants --runroot within fifty characters, and pytest's directories are longer.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="packetfs-", dir="/tmp"))
        (folder / "containers.conf").write_text(_CONF)
        index = os.environ.get("PIP_INDEX_URL")
        config = f"[global]\ncert = {_CERTIFICATES}\n" + (f"index-url = {index}\n" if index else "")
        (folder / "pip.conf").write_text(config)
        self._environ = {
            **os.environ,
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "TMPDIR": str(folder),
        }
        self._storage = self._storage_on("overlay")
        if self._run(["buildah", *self._storage, "images"], check=False).returncode:
            self._storage = self._storage_on("vfs")  # slower, and works on any file system

    def _storage_on(self, driver: str) -> list[str]:
        where = self.folder / driver
        return ["--root", str(where / "root"), "--runroot", str(where / "run"), "--storage-driver", driver]

    def buildah(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["buildah", *self._storage, *arguments])

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run(["podman", *self._storage, "--runtime", "runc", *arguments], check)

    def make_bases(self) -> None:
        for name, packages in _PACKAGES.items():
            archive = self.folder / "base.tar"
            self._run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    f"--include={','.join(packages)}",
                    "bookworm",
                    str(archive),
                ]
            )
            self.podman("import", "--quiet", str(archive), name)
            archive.unlink()

    def build(self, dockerfile: str, tag: str) -> None:
        """Build from the checkout, as the file says."""
        self.buildah(
            *("build", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never", "--quiet"),
            *("--volume", f"{_CERTIFICATES.parent}:{_CERTIFICATES.parent}:ro"),
            *("--volume", f"{self.folder / 'pip.conf'}:/etc/pip.conf:ro"),
            *("--file", str(ROOT / dockerfile), "--tag", tag, str(ROOT)),
        )

    def image(self, tag: str) -> dict[str, Any]:
        """Return what is known of an image; ``Size`` is in bytes."""
        known: dict[str, Any] = json.loads(self.podman("image", "inspect", tag).stdout)[0]
        return known

    @contextmanager
    def run(
        self, tag: str, environ: Mapping[str, str], *options: str, command: tuple[str, ...] = ()
    ) -> Iterator[Container]:
        """Run an image as docker-compose.yml confines it: nothing may be written but ``/tmp``, no capability is left."""
        variables = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
        confined = [
            "--read-only",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--tmpfs",
            "/tmp:mode=1777",
        ]
        started = self.podman("run", "--detach", "--network", "host", *confined, *variables, *options, tag, *command)
        container = Container(self, started.stdout.split()[-1])
        try:
            yield container
        finally:
            self.podman("rm", "--force", "--time", "1", container.id)

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "1")
        self.buildah("rm", "--all")
        self.podman("rmi", "--all", "--force")
        self.podman("volume", "rm", "--all", "--force")
        shutil.rmtree(self.folder)

    def _run(self, argv: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv, env=self._environ, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done
