"""To cancel a job stops its work: here, and in places behind HTTP, as far as the source's connection, which is closed."""

import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import redis
from celery import chord
from celery.exceptions import ChordError, TaskRevokedError
from celery.result import AsyncResult
from support.fly import FlyServer
from support.misbehaving import Exchange, RawServer, answer, honest
from support.processes import wait_until
from support.reading import DATA
from support.system import PACKETFS, RunningSystem, end_system, publishing_to, start_system
from support.workerd import WorkerBuild, WorkerdServer

from packetfs_compute.celery import app
from packetfs_compute.desk import Desk
from packetfs_compute.fleet.redis import RedisFleet, open_fleet
from packetfs_compute.names import LEDGER_LEASES, LEDGER_OPEN, LOCAL
from packetfs_compute.places import to_json
from packetfs_compute.routing import Health
from packetfs_compute.substrates import load_fleet
from tasks import crc32c

pytestmark = pytest.mark.integration

SIZE = 1 << 28
PATIENCE_S = 10.0


class Endless:
    """A source whose objects under ``/endless`` never end, and which notes whose reader is there and whose has gone."""

    def __init__(self) -> None:
        self.reading: set[str] = set()
        self.left: set[str] = set()
        self.server = RawServer(honest(DATA))
        self.server.routes = {"endless": self._drip, "silent": self._wait}

    def _drip(self, exchange: Exchange) -> None:
        self._until_left(exchange, b"x" * 1000)

    def _wait(self, exchange: Exchange) -> None:
        self._until_left(exchange, b"")

    def _until_left(self, exchange: Exchange, data: bytes) -> None:
        size = f"Content-Length: {SIZE}"
        exchange.send(answer("206 Partial Content", f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}", size))
        self.reading.add(exchange.path)
        try:
            while not exchange.server.closing.is_set():
                if select.select([exchange.sock], [], [], 0.1)[0] and not exchange.sock.recv(1):
                    return
                exchange.send(data)
        finally:
            if not exchange.server.closing.is_set():
                self.left.add(exchange.path)


@pytest.fixture(scope="module")
def source() -> Iterator[Endless]:
    made = Endless()
    with made.server:
        yield made


@dataclass
class Everything:
    """A system whose fleet is this machine, a compute server and a Worker; these two have one slot each."""

    system: RunningSystem
    servers: dict[str, Any]
    desk: Desk
    fleet: RedisFleet
    client: Any

    def status(self, job_id: str) -> str | None:
        status = self.desk.status(job_id)
        return None if status is None else status["status"]

    def health(self, name: str) -> Health:
        return next(one.health for one in self.fleet.snapshot(time.time()).members if one.place.name == name)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, worker_build: WorkerBuild) -> Iterator[Everything]:
    folder = tmp_path_factory.mktemp("cancel")
    with ExitStack() as stack:
        servers = {
            "fly": stack.enter_context(FlyServer(folder, PACKETFS_MAX_CONCURRENCY="1")),
            "cloudflare": stack.enter_context(WorkerdServer(folder, worker_build, PACKETFS_MAX_CONCURRENCY="1")),
        }
        specs = [server.spec(name) for name, server in servers.items()]
        keys = ",".join(f"{name}={server.key_id}:{server.secret}" for name, server in servers.items())
        system = start_system(folder, PACKETFS_SUBSTRATES=to_json(specs), PACKETFS_KEYS=keys)
        stack.callback(end_system, system)
        stack.enter_context(publishing_to(system.settings))
        desk = Desk(system.settings)
        stack.callback(desk.close)
        fleet = open_fleet(system.settings, [one.capabilities for one in load_fleet(system.settings)])
        client = stack.enter_context(redis.Redis.from_url(system.settings.state_url))
        yield Everything(system, servers, desk, fleet, client)


_numbers = count(1)


@pytest.fixture
def job_id() -> str:
    return f"cancel-{next(_numbers)}"


def submit(desk: Desk, job_id: str, url: str, place: str, length: int = SIZE) -> None:
    policy = {"substrates": [place], "deadline_s": 300}
    desk.submit(job_id, {"data_url": url, "ops": [{"op": "crc32c"}], "offset": 0, "length": length}, policy)


@pytest.mark.parametrize(
    ("place", "kind"), [(LOCAL, "endless"), (LOCAL, "silent"), ("fly", "silent"), ("cloudflare", "endless")]
)
def test_a_job_that_runs_is_stopped(
    everything: Everything, source: Endless, job_id: str, place: str, kind: str
) -> None:
    desk, path = everything.desk, f"/{kind}/{job_id}"
    before = everything.health(place)
    submit(desk, job_id, source.server.url(path), place)
    wait_until(lambda: path in source.reading, "the job reads", PATIENCE_S)
    assert everything.health(place).in_flight == 1
    assert path not in source.left
    status = desk.cancel(job_id)
    assert status is not None
    assert status["status"] == "cancelled"
    wait_until(lambda: path in source.left, "the source sees its reader go", PATIENCE_S)
    wait_until(lambda: everything.health(place).in_flight == 0, "the slot is given back", PATIENCE_S)
    seen = everything.health(place)
    assert (seen.failures, seen.streak, seen.breaker.state) == (0, 0, "closed")
    assert (seen.attempts, seen.weight) == (before.attempts + 1, pytest.approx(before.weight, rel=0.2))
    assert everything.client.zscore(LEDGER_LEASES, job_id) is None
    after = f"{job_id}-after"
    submit(desk, after, source.server.url(), place, 1)
    wait_until(lambda: everything.status(after) == "done", "the next job runs", PATIENCE_S)
    inspect = app.control.inspect(timeout=2.0)
    wait_until(lambda: not any(inspect.active().values()), "its worker has done with it", PATIENCE_S)
    assert everything.client.zscore(LEDGER_OPEN, job_id) is None
    assert desk.status(job_id) == status
    with pytest.raises(TaskRevokedError):
        AsyncResult(job_id, app=app).get(timeout=5)


@pytest.fixture
def running(everything: Everything, source: Endless, job_id: str) -> Iterator[str]:
    """The path that a job reads, here, whose id is ``job_id``."""
    path = f"/silent/{job_id}"
    submit(everything.desk, job_id, source.server.url(path), LOCAL)
    wait_until(lambda: path in source.reading, "the job reads", PATIENCE_S)
    yield path
    everything.desk.cancel(job_id)
    wait_until(lambda: path in source.left, "the source sees its reader go", PATIENCE_S)


def test_celerys_own_revoke_stops_a_job_that_runs(
    everything: Everything, source: Endless, job_id: str, running: str
) -> None:
    AsyncResult(job_id, app=app).revoke()
    wait_until(lambda: running in source.left, "the source sees its reader go", PATIENCE_S)
    with pytest.raises(TaskRevokedError, match="revoked"):
        AsyncResult(job_id, app=app).get(timeout=5)
    assert everything.status(job_id) == "cancelled"


def test_a_chord_counts_a_part_that_was_cancelled(everything: Everything, source: Endless, job_id: str) -> None:
    path = f"/silent/{job_id}"
    part = crc32c.s(source.server.url(path), length=SIZE, policy={"substrates": [LOCAL]}).set(task_id=job_id)
    other = crc32c.s(source.server.url(), length=1, policy={"substrates": [LOCAL]})
    body = chord([part, other])(crc32c.si(source.server.url(), length=1))
    _, counted = body.parent.results
    wait_until(lambda: path in source.reading, "the part reads", PATIENCE_S)
    everything.desk.cancel(job_id)
    with pytest.raises(ChordError, match="was cancelled while it ran"):
        AsyncResult(body.id, app=app).get(timeout=PATIENCE_S)  # the handle itself would tell of its part
    assert counted.get(timeout=5)["bytes_processed"] == 1
    with pytest.raises(TaskRevokedError):
        body.parent.results[0].get(timeout=5)


def test_to_interrupt_a_command_that_waits_cancels_its_job(
    everything: Everything, source: Endless, job_id: str
) -> None:
    path = f"/silent/{job_id}"
    options = ["--length", str(SIZE), "--policy", "substrates=local"]
    command = [*PACKETFS, "run", "crc32c", source.server.url(path), *options]
    before = everything.client.zcard(LEDGER_OPEN)
    with subprocess.Popen(command, env=everything.system.environ, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: path in source.reading, "the job reads", PATIENCE_S)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)[1]
    assert (process.returncode, "interrupted" in said.lower()) == (130, True), said
    wait_until(lambda: path in source.left, "the source sees its reader go", PATIENCE_S)
    assert everything.client.zcard(LEDGER_OPEN) == before
