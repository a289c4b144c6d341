"""``docker-compose.yml`` read as Compose reads it, and its services started as plain processes on loopback.

A service runs the command, the environment and the health check that the file says. What only a container has is put in
its place: the names of other services, the ports, the paths of mounts and of ``/tmp``, and what the image sets.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
import yaml

from packetfs_compute.embedded.server import redis_server_binary
from support.ports import free_port
from support.processes import wait_until

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
DEPLOY = ROOT / "deploy"

ENV = {"REDIS_PASSWORD": "the-password_of-redis", "FLOWER_PASSWORD": "the-password_of-flower"}
"""What ``deploy/.env`` must say."""

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:[-?])([^}]*))?\})")


_OBSERVER = "the-password_of-the-test"
_SERVER = """#!/bin/sh
for last; do [ "$previous" = --aclfile ] && echo 'user observer on >{password} ~* &* +@all' >>"$last"; previous=$last; done
env >"$(dirname "$0")/server.environ"
exec '{binary}' "$@"
"""
"""What start.sh finds as ``valkey-server``: the real one, with one more user, for the test to look with."""


def interpolated(text: str, environ: dict[str, str]) -> str:
    """Return ``text`` with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as Compose sets them in."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        if environ.get(match[1]):
            return environ[match[1]]
        if match[2] == ":?":
            raise KeyError(f"{match[1]}: {match[3]}")
        return match[3] or ""

    return _VARIABLE.sub(value, text)


def compose(environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the file with its variables set in; raise :class:`KeyError` where one is missing that must be there."""
    read: dict[str, Any] = _walked(yaml.safe_load(FILE.read_text()), ENV if environ is None else environ)
    return read


def _walked(node: Any, environ: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _walked(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [_walked(value, environ) for value in node]
    return interpolated(node, environ) if isinstance(node, str) else node


@dataclass
class Stack:
    """Services of the file, running here. Use it as a context manager: it ends what it started, Redis last."""

    folder: Path
    config: str = ""
    """``packetfs.toml``."""
    keys: str = ""
    source_url: str = ""
    """An object to compute on; nothing here reads it."""
    key: str = ""
    """One for the gateway; nor this."""
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = compose({**ENV, "PACKETFS_KEYS": self.keys})["services"]
        self.ports = {name: free_port() for name in self.services}
        self.toml = self.folder / "packetfs.toml"
        self.toml.write_text(self.config)
        server = self.folder / "valkey-server"
        server.write_text(_SERVER.format(binary=redis_server_binary(), password=_OBSERVER))
        server.chmod(0o700)

    @property
    def redis_url(self) -> str:
        return self.environ("worker-local")["PACKETFS_REDIS_URL"]

    def observer(self) -> Any:
        """Return a client that may do anything, to look at what the services did."""
        return redis.Redis(port=self.ports["redis"], username="observer", password=_OBSERVER)

    def url(self, service: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[service]}{path}"

    def directory(self, service: str) -> Path:
        """What the service has instead of ``/tmp``, ``/data`` and ``/run/valkey``."""
        directory = self.folder / service
        directory.mkdir(exist_ok=True, mode=0o700)
        return directory

    def environ(self, service: str) -> dict[str, str]:
        """Return the service's environment: what its image sets, what the file says, and where things are here."""
        here = self.directory(service)
        binaries = [str(self.folder), str(Path(sys.executable).parent), "/usr/bin", "/bin"]
        given = {
            name: self._here(str(value), service)
            for name, value in self.services[service].get("environment", {}).items()
        }
        if "PACKETFS_METRICS_PORT" in given:
            given |= {"PACKETFS_METRICS_PORT": str(self.ports[service]), "PACKETFS_METRICS_ADDRESS": "127.0.0.1"}
        return {
            "PATH": os.pathsep.join(binaries),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(here),
            "RUN_DIR": str(here),
            "PACKETFS_DATA_DIR": str(here / "packetfs"),
            "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            **given,
        }

    def argv(self, service: str) -> list[str]:
        if service == "redis":
            options = f"--bind 127.0.0.1 --port {self.ports[service]} --dir {self.directory(service)}"
            return ["/bin/sh", str(DEPLOY / "redis" / "start.sh"), *options.split()]
        program = ["/usr/bin/prometheus"] if service == "prometheus" else []  # its image's entrypoint
        return [*program, *(self._here(word, service) for word in self.services[service]["command"])]

    def start(self, *services: str) -> None:
        for service in services:
            argv = self.argv(service)
            with (self.directory(service) / "log").open("ab") as log:
                self.processes[service] = subprocess.Popen(
                    argv, env=self.environ(service), cwd=DEPLOY, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

    def check(self, service: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the service's health check, with ``more`` arguments."""
        kind, *argv = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD", "a shell's would run with this machine's tools"
        argv = [self._here(word, service) for word in argv]
        if "--end" in argv:  # in the container it is process 1
            running = self.processes.get(service)
            argv[argv.index("--end") + 1] = "0" if running is None else str(running.pid)  # 0: none is ended
        return subprocess.run(
            [*argv, *more], env=self.environ(service), cwd=DEPLOY, capture_output=True, text=True, timeout=30
        )

    def wait_healthy(self, *services: str, seconds: float = 60) -> None:
        for service in services:
            wait_until(lambda name=service: self._well(name), f"{service} is healthy: {self.log(service)}", seconds)  # type: ignore[misc]

    def log(self, service: str) -> str:
        return (self.directory(service) / "log").read_text()

    def _well(self, service: str) -> bool:
        assert self.processes[service].poll() is None, f"{service} has ended: {self.log(service)}"
        return self.check(service).returncode == 0

    def _here(self, word: str, service: str) -> str:
        """Return a word of the file as it is on this machine."""
        flower, gateway, prometheus = (self.ports[name] for name in ("flower", "gateway", "prometheus"))
        here = {
            "@redis:6379": f"@127.0.0.1:{self.ports['redis']}",
            "/etc/packetfs/packetfs.toml": str(self.toml),
            "/etc/prometheus/prometheus.yml": str(self.folder / "prometheus.yml"),
            "=/prometheus": f"={self.directory(service)}",
            "/tmp/": f"{self.directory(service)}/",
            "upkeep@upkeep": f"upkeep@{os.uname().nodename}",
            "--address=0.0.0.0": "--address=127.0.0.1",
            "0.0.0.0:9090": f"127.0.0.1:{prometheus}",
            "127.0.0.1:9090": f"127.0.0.1:{prometheus}",
            "--port=5555": f"--port={flower}",
            "127.0.0.1:5555": f"127.0.0.1:{flower}",
            "8765": str(gateway),
        }
        return re.sub("|".join(map(re.escape, here)), lambda match: here[match[0]], word)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end([name for name in self.processes if name != "redis"], error)
        self._end(["redis"] if "redis" in self.processes else [], error)

    def _end(self, names: list[str], error: BaseException | None) -> None:
        running = [name for name in names if self.processes[name].poll() is None]
        for name in running:
            self.processes[name].send_signal(signal.SIGTERM)
        late = []
        for name in running:
            try:
                self.processes[name].wait(30)
            except subprocess.TimeoutExpired:
                self.processes[name].kill()
                self.processes[name].wait(10)
                late.append(shlex.join(self.argv(name)))
        assert error is not None or not late, f"did not end on SIGTERM: {late}"
