"""Nothing is lost: real workers on a real server, killed in the midst of things, with malformed messages in their way.

The sweeper is driven by the test, which has it believe that it is a minute later: whatever left its queue a minute ago and
has no result is lost. (``packetfs up`` runs one of its own; here it would hide who did what.)
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chord, group
from celery.result import AsyncResult
from support.malformed import MALFORMED, WELL_FORMED, raw
from support.misbehaving import RawServer, honest
from support.processes import alive, wait_until
from support.system import CELERY, environment, reset_pools
from support.valkey import valkey

from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.broker.sweeper import SweepReport, sweep
from packetfs_compute.celery import app as project
from packetfs_compute.celery import celery_config
from packetfs_compute.embedded.server import STOP, start_redis_server
from packetfs_compute.kernels import crc32c as checksum
from packetfs_compute.names import rejected_of
from packetfs_compute.settings import Settings
from tasks import crc32c as _registered  # noqa: F401  (Celery gives every application the tasks that were imported)

pytestmark = pytest.mark.integration

QUEUE = "packetfs.local"
DATA = os.urandom(10_000)
PATIENCE_S = 30.0


@dataclass
class Place:
    """A server, an application of this process on it, and a file that its workers may read."""

    settings: Settings
    folder: Path
    app: Celery

    @property
    def crc32c(self) -> Any:
        return self.app.tasks["packetfs.crc32c"]

    @property
    def file(self) -> str:
        return str(self.folder / "object.bin")

    def client(self) -> Any:
        return redis.Redis.from_url(self.settings.state_url)

    @contextmanager
    def worker(self) -> Iterator["Worker"]:
        """A worker of two processes, ready to work, and killed at the end if it still runs."""
        environ = environment(self.settings.data_dir, PACKETFS_FILE_ROOTS=str(self.folder))
        log = self.folder / f"worker-{time.monotonic_ns()}.log"
        name = f"{log.stem}@test"
        argv = [
            *CELERY,
            "worker",
            "-Q",
            QUEUE,
            "-n",
            name,
            "-c",
            "2",
            "-l",
            "INFO",
            "--without-gossip",
            "--without-mingle",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(argv, env=environ, stdout=output, stderr=output, start_new_session=True)
        worker = Worker(process, log)
        try:
            wait_until(lambda: f"{name} ready" in worker.says(), "the worker is ready", PATIENCE_S)
            yield worker
        finally:
            worker.kill()

    def sweep_until(self, condition: Callable[[], object]) -> list[SweepReport]:
        """Sweep, as from a minute later, until ``condition`` comes true."""
        reports: list[SweepReport] = []

        def swept() -> object:
            with self.client() as client:
                reports.append(sweep(self.app, now=client.time()[0] + 60.0))
            time.sleep(0.1)
            return condition()

        wait_until(swept, "every job is finished", PATIENCE_S)
        return reports


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    log: Path

    def says(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """End it as the kernel does when memory runs out: at once, with all of its processes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with valkey(tmp_path) as settings, used(settings, tmp_path) as place:
        yield place


@contextmanager
def used(settings: Settings, folder: Path) -> Iterator[Place]:
    """Use a server with an application of the test's own, which is the project's in everything but its name."""
    files = folder / "files"
    files.mkdir()
    (files / "object.bin").write_bytes(DATA)
    app = Celery("client", amqp=project.amqp_cls, loader=project.loader_cls, set_as_current=False)
    app.conf.update(celery_config(settings))
    backend: Any = app.backend
    try:
        yield Place(settings, files, app)
    finally:
        backend.result_consumer.stop()
        backend.result_consumer.cancel_for = lambda _: None  # a result that goes later would connect again
        backend.client.connection_pool.disconnect()
        app.close()
        reset_pools()


def finished(results: list[Any]) -> Callable[[], bool]:
    return lambda: all(result.ready() for result in results)


def test_malformed_messages_end_no_worker(place: Place) -> None:
    with place.client() as client, place.worker() as worker:
        expected = place.crc32c.delay(place.file).get(timeout=10)["value"]
        assert expected == checksum(DATA)
        before = worker.process.pid
        client.lpush(QUEUE, *MALFORMED.values())
        wait_until(lambda: client.llen(rejected_of(QUEUE)) == len(MALFORMED), "all were put aside", PATIENCE_S)
        moved = [json.loads(entry) for entry in client.lrange(rejected_of(QUEUE), 0, -1)]
        assert all(entry["reason"] and entry["queue"] == QUEUE for entry in moved)
        assert {entry["bytes"] for entry in moved} == {len(message) for message in MALFORMED.values()}
        assert "Traceback" not in worker.says().partition(" ready")[2]
        # Well formed, but of the wrong arguments: these fail as jobs.
        client.lpush(QUEUE, *(raw(make()) for make in WELL_FORMED.values()))
        assert place.crc32c.delay(place.file).get(timeout=10)["value"] == expected
        assert worker.process.poll() is None
        assert worker.process.pid == before
        wait_until(lambda: client.llen(QUEUE) == 0, "the queue is consumed")


def test_a_killed_worker_loses_nothing(place: Place) -> None:
    let_go = threading.Event()
    good = honest(DATA)

    def slow(exchange: Any) -> object:
        let_go.wait(PATIENCE_S)
        return good(exchange)

    with RawServer(slow) as server, place.client() as client:
        with place.worker() as worker:
            results = [place.crc32c.delay(server.url(), offset=i, length=100) for i in range(12)]
            wait_until(lambda: len(server.heads) >= 2, "two jobs run")
            worker.kill()
        let_go.set()
        with place.worker():
            reports = place.sweep_until(finished(results))
        assert [result.get()["value"] for result in results] == [checksum(DATA[i : i + 100]) for i in range(12)]
        assert sum(report.resubmitted for report in reports) >= 2
        assert Ledger(client).open_count() == 0
        assert client.exists("unacked", "unacked_index") == 0


def test_a_message_that_vanished_is_published_again(place: Place) -> None:
    results = [place.crc32c.delay(place.file, length=length) for length in range(5)]
    results.append(place.crc32c.apply_async((place.file,), {"length": 9}, priority=9))
    kept_out = place.crc32c.apply_async((place.file,), ledger=False)
    with place.client() as client:
        client.delete(QUEUE, QUEUE + "\x06\x169")
        with place.worker():
            place.sweep_until(finished(results))
        assert [result.get()["value"] for result in results] == [checksum(DATA[:n]) for n in (*range(5), 9)]
        assert kept_out.state == "PENDING"
        assert Ledger(client).open_count() == 0


def test_groups_and_chords_survive_the_loss_of_every_message(place: Place) -> None:
    with place.client() as client:
        many = group(place.crc32c.si(place.file, length=length) for length in range(4)).apply_async()
        together = chord([place.crc32c.si(place.file, length=1), place.crc32c.si(place.file, length=2)])(
            place.crc32c.si(place.file)
        )
        client.delete(QUEUE)
        with place.worker():
            place.sweep_until(lambda: many.ready() and together.ready())
        assert [result["value"] for result in many.get()] == [checksum(DATA[:length]) for length in range(4)]
        assert together.get()["value"] == checksum(DATA)
        wait_until(lambda: Ledger(client).open_count() == 0, "nothing is open")


def test_what_runs_well_is_run_once(place: Place) -> None:
    with place.client() as client, place.worker():
        results = [place.crc32c.delay(place.file, length=length) for length in range(40)]
        wait_until(finished(results), "all are finished")
        stats = Ledger(client).stats()
        assert (stats.open, stats.resubmitted, stats.given_up) == (0, 0, 0)
        assert sweep(place.app, now=client.time()[0] + 60.0) == SweepReport()


def test_a_job_that_is_finished_is_known_for_it(place: Place) -> None:
    with place.worker():
        result = place.crc32c.delay(place.file)
        result.get(timeout=10)
        backend = place.app.backend
        assert isinstance(backend, ResultBackend)
        assert backend.is_finished(result.id)
        assert not backend.is_finished("another")


def test_a_killed_server_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "redis")
    settings.data_dir.mkdir(mode=0o700)
    server = start_redis_server(settings, persistent=True)
    try:
        with used(settings, tmp_path) as place:
            ids = [place.crc32c.delay(place.file, length=length).id for length in range(30)]
            with place.client() as client:
                for _ in range(5):
                    assert client.rpop(QUEUE)  # popped, and its worker not told before the server died
            os.kill(server.pid, signal.SIGKILL)
            server.stop()
            assert not alive(server.pid)
            server = start_redis_server(settings, persistent=True)
            results = [AsyncResult(job_id, app=place.app) for job_id in ids]
            with place.worker():
                reports = place.sweep_until(finished(results))
            assert [result.get()["value"] for result in results] == [checksum(DATA[:n]) for n in range(30)]
            assert sum(report.resubmitted for report in reports) >= 5
    finally:
        server.stop(*STOP)
