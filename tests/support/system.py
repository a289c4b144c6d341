"""The real system, started as a user starts it: ``packetfs up`` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kombu import pools

from packetfs_compute.celery import app, celery_config
from packetfs_compute.settings import Settings, load_settings
from support.processes import alive, descendants

PACKETFS = [sys.executable, "-m", "packetfs_compute"]
CELERY = [sys.executable, "-m", "celery", "-A", "packetfs_compute"]
ROOT = Path(__file__).parents[2]

Done = subprocess.CompletedProcess[str]


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """An environment whose only PACKETFS_* variables are these, and from which the checkout can be imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PACKETFS_")}
    return clean | {
        "PACKETFS_DATA_DIR": str(data_dir),
        "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8",
        "PACKETFS_CONNECT_TIMEOUT_S": "2",
        "PACKETFS_GATEWAY_PORT": "0",
        "PYTHONPATH": str(ROOT),
        **more,
    }


@dataclass
class RunningSystem:
    """``packetfs up``, up. ``files`` is a directory that its worker may read from."""

    process: subprocess.Popen[str]
    environ: dict[str, str]
    data_dir: Path
    files: Path
    ready: dict[str, object]

    @property
    def settings(self) -> Settings:
        return load_settings(self.environ, None)

    def run(self, *argv: str, timeout_s: float = 60, pass_fds: Sequence[int] = (), **more: str) -> Done:
        """Run a command in the system's environment, with ``more`` variables, as from another shell."""
        return subprocess.run(
            argv, env=self.environ | more, cwd=self.files, pass_fds=pass_fds,
            capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip

    def packetfs(self, *arguments: str, **more: str) -> Done:
        return self.run(*PACKETFS, *arguments, **more)

    def worker_pids(self) -> list[int]:
        worker = self.ready["pids"]["worker"]  # type: ignore[index]
        return [worker, *descendants(worker)]

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


def start_system(
    folder: Path, *arguments: str, gateway: bool = False, scans: bool = False, **more: str
) -> RunningSystem:
    """Start one. ``gateway``, ``scans``: with these, which most tests have no use for, and which take a second of a CPU."""
    files = folder / "files"
    files.mkdir()
    data_dir = folder / "data"
    environ = environment(data_dir, PACKETFS_FILE_ROOTS=str(files), PACKETFS_CONCURRENCY="2") | more
    process = subprocess.Popen(
        [
            *(*PACKETFS, "up", "--json"),
            *([] if gateway else ["--no-gateway"]),
            *([] if scans else ["--no-scans"]),
            *arguments,
        ],
        env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"packetfs up did not come up: {process.communicate()[1]}")
    return RunningSystem(process, environ, data_dir, files, json.loads(line))


def end_system(system: RunningSystem) -> None:
    """Stop it as Ctrl-C does, and see that nothing of it is left."""
    if system.process.poll() is None:
        everything = descendants(system.process.pid)
        assert system.stop() == 0
        assert not [pid for pid in everything if alive(pid)], "packetfs up left processes behind"
    system.process.communicate()


@contextmanager
def publishing_to(settings: Settings) -> Iterator[None]:
    """Have this process's tasks published to another system, and afterwards to the one before.

    Celery keeps a pool, a producer and a result backend for an application's life, which is that of one system.
    """
    before = {key: app.conf[key] for key in celery_config(settings)}
    _connect(celery_config(settings))
    try:
        yield
    finally:
        _connect(before)


@contextmanager
def publishing_to_for_once(settings: Settings) -> Iterator[None]:
    """The same for a system that is gone afterwards: no connection to it is left."""
    with publishing_to(settings):
        yield
        backend: Any = app.backend
        backend.result_consumer.stop()
        backend.client.connection_pool.disconnect()
    reset_pools()


def reset_pools() -> None:
    """Close kombu's pools, which all applications of this process share; the project's own makes itself new ones."""
    pools.reset()
    app._after_fork()


def _connect(config: dict[str, Any]) -> None:
    app.conf.update(config)
    app._after_fork()
    app._backend_cache = None
    app._local = threading.local()
    app.amqp.flush_routes()
    app.amqp.__dict__.pop("router", None)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One system for all tests that only use it; this process's tasks are published to it."""
    running = start_system(tmp_path_factory.mktemp("system"))
    app.conf.update(celery_config(running.settings))
    yield running
    app.close()
    end_system(running)
