"""Jobs from a Redis list on the real system, with nothing but a Redis client; and the intake killed in the midst of them."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from support.malformed import MALFORMED
from support.misbehaving import Exchange, RawServer, honest, says
from support.processes import alive, descendants, wait_until
from support.system import CELERY, PACKETFS, RunningSystem, end_system, environment, publishing_to, start_system
from support.valkey import valkey

from packetfs_compute.celery import app
from packetfs_compute.desk import Desk, JobStatus
from packetfs_compute.intake import Intake
from packetfs_compute.kernels import crc32c as checksum
from packetfs_compute.names import (
    JOBS_INSTANCES,
    JOBS_PROCESSING,
    JOBS_QUEUE,
    JOBS_REJECTED,
    JOBS_RESULTS,
    LEDGER_OPEN,
)
from packetfs_compute.settings import Settings

pytestmark = pytest.mark.integration

DATA = random.Random(7).randbytes(100_000)
LENGTH = 1000
PATIENCE_S = 40.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of this module's own: one test kills its Redis."""
    running = start_system(tmp_path_factory.mktemp("intake"))
    (running.files / "object.bin").write_bytes(DATA)
    with publishing_to(running.settings):
        yield running
    end_system(running)


@pytest.fixture
def client(own: RunningSystem) -> Iterator[Any]:
    with redis.Redis.from_url(own.settings.state_url) as client:
        yield client


@pytest.fixture
def desk(own: RunningSystem) -> Iterator[Desk]:
    desk = Desk(own.settings)
    yield desk
    desk.close()


def job(job_id: str, url: str, at: int = 0, **more: Any) -> str:
    program = {"data_url": url, "op": "crc32c", "offset": at, "length": LENGTH}
    return json.dumps({"job_id": job_id, "program": program, **more})


def right(at: int) -> int:
    return checksum(DATA[at : at + LENGTH])


def told(client: Any, job_id: str) -> JobStatus:
    """How a job ended, once it has."""
    wait_until(lambda: client.exists(JOBS_RESULTS + job_id), f"{job_id} ends", PATIENCE_S)
    status: JobStatus = json.loads(client.get(JOBS_RESULTS + job_id))
    return status


def value(status: JobStatus) -> object:
    assert status["status"] == "done", status
    assert status["result"] is not None
    return status["result"]["results"][0]["value"]


def waiting(client: Any) -> int:
    return int(client.llen(JOBS_QUEUE)) + sum(client.llen(key) for key in client.keys(JOBS_PROCESSING + "*"))


class TestFromRedis:
    def test_a_job_in_and_its_value_out(self, own: RunningSystem, client: Any, desk: Desk) -> None:
        policy = {"substrates": ["local"], "deadline_s": 60}
        client.lpush(JOBS_QUEUE, job("in-1", str(own.files / "object.bin"), 5, policy=policy, priority=3))
        status = told(client, "in-1")
        assert value(status) == right(5)
        assert status["program"] == {
            "data_url": str(own.files / "object.bin"), "offset": 5, "length": LENGTH, "ops": [{"op": "crc32c"}],
        }  # fmt: skip
        assert (status["policy"], status["job_id"]) == (policy, "in-1")
        assert desk.status("in-1") == status
        assert 86_300 < client.ttl(JOBS_RESULTS + "in-1") <= 86_400
        assert AsyncResult("in-1", app=app).get(timeout=5) == status["result"]

    def test_a_failure_comes_out_with_its_attempts(self, own: RunningSystem, client: Any) -> None:
        with RawServer(says(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n")) as broken:
            client.lpush(JOBS_QUEUE, job("in-2", broken.url(), policy={"deadline_s": 5}))
            status = told(client, "in-2")
        assert status["status"] == "failed"
        assert status["error"] is not None
        assert status["error"]["type"] == "source_failed"
        assert len(status["error"]["attempts"]) > 1, "it was retried, and its reply was not forgotten on the way"

    def test_what_is_no_job_is_set_aside_and_the_next_is_served(self, own: RunningSystem, client: Any) -> None:
        url = str(own.files / "object.bin")
        before = own.ready["pids"]["intake"]  # type: ignore[index]
        bad = [raw for name, raw in MALFORMED.items() if name != "a job of the intake"]
        for at, raw in enumerate(bad):
            client.lpush(JOBS_QUEUE, raw, job(f"next-{at}", url, at))
        client.lpush(JOBS_QUEUE, job("in-3", url, colour="red"))
        assert [value(told(client, f"next-{at}")) for at in range(len(bad))] == [right(at) for at in range(len(bad))]
        refused = told(client, "in-3")
        assert refused["error"] is not None
        assert (refused["status"], refused["error"].get("field")) == ("failed", "job.colour")
        assert client.llen(JOBS_REJECTED) == len(bad) + 1
        assert waiting(client) == 0
        assert alive(before)

    def test_the_same_again_and_another_under_its_id(self, own: RunningSystem, client: Any) -> None:
        url = str(own.files / "object.bin")
        client.lpush(JOBS_QUEUE, *[job("in-4", url, 9)] * 5)
        first = told(client, "in-4")
        client.lpush(JOBS_QUEUE, job("in-4", url, 10), job("in-4", url, 9))
        wait_until(lambda: waiting(client) == 0, "all of it is taken")
        assert "another program" in json.loads(client.lindex(JOBS_REJECTED, 0))["reason"]
        assert told(client, "in-4") == first
        assert value(first) == right(9)


class TestCancel:
    @pytest.fixture
    def slow(self) -> Iterator[RawServer]:
        """A source that takes two seconds for every answer."""

        def answer(exchange: Exchange) -> object:
            exchange.wait(2.0)
            return honest(DATA)(exchange)

        with RawServer(answer) as server:
            yield server

    def test_running_and_queued(self, own: RunningSystem, client: Any, desk: Desk, slow: RawServer) -> None:
        for name in ("run-1", "run-2", "wait-1", "wait-2"):
            client.lpush(JOBS_QUEUE, job(name, slow.url(f"/{name}")))
            wait_until(lambda name=name: desk.status(name), f"{name} is submitted")
        wait_until(lambda: _state(desk, "run-1") == _state(desk, "run-2") == "running", "two run")
        for name in ("run-1", "wait-1"):
            status = desk.cancel(name)
            assert status is not None
            assert (status["status"], told(client, name)) == ("cancelled", status)
            with pytest.raises(TaskRevokedError):
                AsyncResult(name, app=app).get(timeout=5)
        assert [value(told(client, name)) for name in ("run-2", "wait-2")] == [right(0)] * 2
        for name in ("run-1", "wait-1"):
            assert (_state(desk, name), told(client, name)["status"]) == ("cancelled", "cancelled")
        asked = b"".join(slow.heads)
        assert b"/run-1" in asked
        assert b"/wait-1" not in asked


def _state(desk: Desk, job_id: str) -> str | None:
    status = desk.status(job_id)
    return None if status is None else status["status"]


@dataclass
class Alone:
    """A Redis and a worker, and no intake but those that a test starts."""

    settings: Settings
    environ: dict[str, str]
    file: str

    def intake(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*PACKETFS, "intake", "--batch", "4"], env=self.environ)


@contextmanager
def _running(argv: list[str], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=environ, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    file = tmp_path / "object.bin"
    file.write_bytes(DATA)
    with ExitStack() as stack:
        settings = stack.enter_context(valkey(tmp_path))
        environ = environment(settings.data_dir, PACKETFS_FILE_ROOTS=str(tmp_path))
        argv = [*CELERY, "worker", "-Q", "packetfs.local", "-c", "2", "--without-gossip", "--without-mingle"]
        stack.enter_context(_running(argv, environ, tmp_path / "worker.log"))
        yield Alone(settings, environ, str(file))


class TestKilled:
    def test_the_intake_at_random_points_under_300_jobs(self, alone: Alone) -> None:
        rng, held = random.Random(), 0
        with redis.Redis.from_url(alone.settings.state_url) as client:
            client.lpush(JOBS_QUEUE, *[job(f"k{at}", alone.file, at) for at in range(300)])
            for _ in range(6):
                before = client.llen(JOBS_QUEUE)
                intake = alone.intake()
                try:
                    wait_until(lambda before=before: client.llen(JOBS_QUEUE) < before, "the intake takes something")
                    time.sleep(rng.uniform(0, 0.05))
                finally:
                    intake.kill()
                    intake.wait(10)
                held += waiting(client) - client.llen(JOBS_QUEUE)
            left = waiting(client)
            last = alone.intake()
            try:
                assert [value(told(client, f"k{at}")) for at in range(300)] == [right(at) for at in range(300)]
                wait_until(lambda: waiting(client) == 0, "nothing is held by the dead", PATIENCE_S)
                # One that held nothing when it was killed is waited for until its last sign of life is old.
                wait_until(lambda: client.scard(JOBS_INSTANCES) == 1, "the dead are forgotten", PATIENCE_S)
            finally:
                last.terminate()
                assert last.wait(10) == 0
            print(f"\n6 kills found {held} messages in the intake's hands, and left {left} of 300 to the last one")
            assert client.llen(JOBS_REJECTED) == 0
            assert not client.exists(JOBS_INSTANCES)

    def test_how_many_it_takes_a_second(self, redis_settings: Settings, redis_client: Any) -> None:
        with publishing_to(redis_settings):
            desk = Desk(redis_settings)
            intake = Intake(redis_settings, desk)
            redis_client.lpush(JOBS_QUEUE, *[job(f"s{at}", "https://host/object", at) for at in range(3000)])
            started_s, taken = time.monotonic(), 0
            while taken < 3000:
                taken += intake.turn()
            print(f"\nthe intake submitted {3000 / (time.monotonic() - started_s):,.0f} jobs a second")
            assert redis_client.zcard(LEDGER_OPEN) == 3000
            assert waiting(redis_client) == 0
            intake.run(lambda: True)
            desk.close()

    def test_ended_in_order_it_finishes_its_batch(self, alone: Alone) -> None:
        with redis.Redis.from_url(alone.settings.state_url) as client:
            client.lpush(JOBS_QUEUE, *[job(f"e{at}", alone.file, at) for at in range(500)])
            intake = alone.intake()
            wait_until(lambda: client.llen(JOBS_QUEUE) < 500, "the intake takes something")
            intake.send_signal(signal.SIGTERM)
            assert intake.wait(10) == 0
            assert client.keys(JOBS_PROCESSING + "*") == []
            assert not client.exists(JOBS_INSTANCES)
            assert client.llen(JOBS_QUEUE) + len(client.keys("packetfs:jobs:known:*")) == 500

    def test_redis_and_the_intake_of_a_whole_system(self, own: RunningSystem) -> None:
        url, at, server = str(own.files / "object.bin"), 0, _child(own, "valkey-server")
        intake = _child(own, "packetfs_compute intake")
        with redis.Redis.from_url(own.settings.state_url) as client:
            while at < 300:
                try:
                    client.lpush(JOBS_QUEUE, job(f"r{at}", url, at))
                except redis.RedisError:  # it may have been pushed all the same: the next time is under the same id
                    time.sleep(0.05)
                    continue
                at += 1
                if at == 100:
                    os.kill(server, signal.SIGKILL)
                if at == 200:
                    os.kill(intake, signal.SIGKILL)
            assert [value(told(client, f"r{at}")) for at in range(300)] == [right(at) for at in range(300)]
            wait_until(lambda: waiting(client) == 0, "nothing is held by the dead", PATIENCE_S)
        wait_until(lambda: _child(own, "packetfs_compute intake") != intake, "another intake runs")
        assert _child(own, "valkey-server") not in (0, server)


def _child(system: RunningSystem, words: str) -> int:
    """The process of a system whose command line has ``words`` in it, 0 where there is none now."""
    for pid in descendants(system.process.pid):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words in line:
            return pid
    return 0
