"""Kill workers and Redis in the middle of many jobs, and see that every job gives its right value all the same.

The whole system is a real one, started as a user starts it (`packetfs up`: Valkey with an append-only file synced every
second, Celery workers, upkeep), over a file on nginx. This process publishes, as any client does, and goes on publishing
while things die: a publish that fails is made again under the same id. A kill is SIGKILL to a process that did not
expect it; the supervisor is left alone. Kills are spread over the jobs' completion, so that each meets a busy system.

Run it with ``make chaos`` (10,000 jobs, 20 workers and 10 Redis servers killed, some minutes), or in ``tests/`` with
``python -m chaos.nothing_lost --jobs 500 --worker-kills 2 --redis-kills 1``.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crc32c as crc32c_package
import redis
from support.nginx import Nginx, nginx_binary
from support.processes import descendants
from support.system import RunningSystem, end_system, start_system

from packetfs_compute.celery import app, celery_config
from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.names import LEDGER_OPEN, LEDGER_RESUBMITTED, fleet_key
from tasks import crc32c

__all__ = ["Report", "run"]

_LENGTH = 16 << 10
_FILE_BYTES = 8 << 20
_WINDOW = 500
"""How many jobs are under way at once."""
_RESULT = "celery-task-meta-"


@dataclass
class Report:
    """What came of it."""

    jobs: int
    seed: int
    workers_killed: int = 0
    redis_killed: int = 0
    lost: int = 0
    wrong: int = 0
    failed: int = 0
    attempts: int = 0
    resubmitted: int = 0
    still_open: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.jobs:,} jobs, {self.workers_killed} workers and {self.redis_killed} Redis servers killed (-9): "
            f"{self.lost} lost, {self.wrong} wrong, {self.failed} failed; {max(0, self.attempts - self.jobs)} extra runs, "
            f"{self.resubmitted} published again, {self.still_open} left in the ledger, "
            f"{self.seconds:.0f} s, seed {self.seed}"
        )


def run(folder: Path, jobs: int, worker_kills: int, redis_kills: int, seed: int, give_up_s: float) -> Report:
    """Run it in ``folder`` and return the report; gives up ``give_up_s`` after the last job was published."""
    report = Report(jobs, seed)
    rng = random.Random(seed)
    with _served(folder, rng) as (url, data), _system(folder) as system:
        started = time.monotonic()
        chaos = _Chaos(system, report, rng, jobs, worker_kills, redis_kills)
        work = _Work(system, url, data, rng, report)
        while work.done < jobs:
            work.publish(min(jobs, work.done + _WINDOW))
            work.collect()
            chaos.strike(work.done)
            if work.idle_s > give_up_s:
                break
            time.sleep(0.05)
        report.lost = jobs - work.done
        report.seconds = time.monotonic() - started
        _settle(system, report)
    return report


class _Work:
    """Publishes jobs and collects their results."""

    def __init__(self, system: RunningSystem, url: str, data: bytes, rng: random.Random, report: Report) -> None:
        self._client = _patient_client(system)
        self._url, self._data, self._rng, self._report = url, data, rng, report
        self._expected: dict[str, int] = {}
        self._published = 0
        self.done = 0
        self._last_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """How long ago anything happened."""
        return time.monotonic() - self._last_s

    def publish(self, until: int) -> None:
        while self._published < until:
            offset = self._rng.randrange(len(self._data) - _LENGTH)
            job_id = f"chaos-{self._published}"
            if not _publish(self._url, offset, job_id):
                return  # the broker is away: what was chosen is chosen again, the id with it
            self._expected[job_id] = int(crc32c_package.crc32c(self._data[offset : offset + _LENGTH]))
            self._published += 1
            self._last_s = time.monotonic()

    def collect(self) -> None:
        ids = list(self._expected)
        for found_id, raw in zip(
            ids, _asked(lambda: self._client.mget([_RESULT + one for one in ids])) or [], strict=False
        ):
            meta = json.loads(raw) if raw else {}
            if meta.get("status") not in ("SUCCESS", "FAILURE"):
                continue
            expected = self._expected.pop(found_id)
            self.done += 1
            self._last_s = time.monotonic()
            if meta["status"] == "FAILURE":
                self._report.failed += 1
                self._report.errors.append(f"{found_id}: {meta['result']}")
            elif meta["result"]["value"] != expected:
                self._report.wrong += 1


class _Chaos:
    """Kills what the schedule says, each kill when its share of the jobs is done."""

    def __init__(
        self, system: RunningSystem, report: Report, rng: random.Random, jobs: int, worker_kills: int, redis_kills: int
    ) -> None:
        self._system, self._report = system, report
        kinds = ["worker"] * worker_kills + ["redis"] * redis_kills
        rng.shuffle(kinds)
        self._schedule = [(int(jobs * (at + 1) / (len(kinds) + 2)), kind) for at, kind in enumerate(kinds)]

    def strike(self, done: int) -> None:
        while self._schedule and self._schedule[0][0] <= done:
            kind = self._schedule[0][1]
            pids = _pids(self._system, kind)
            if not pids:
                return  # it is being started again; the next turn finds it
            os.kill(pids[0], signal.SIGKILL)
            self._schedule.pop(0)
            if kind == "worker":
                self._report.workers_killed += 1
            else:
                self._report.redis_killed += 1


def _pids(system: RunningSystem, kind: str) -> list[int]:
    """Return the processes of a kind that `packetfs up` itself has started."""
    mark = b"valkey-server" if kind == "redis" else b"packetfs.local"
    found = []
    for pid in descendants(system.process.pid):
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if mark in Path(f"/proc/{pid}/cmdline").read_bytes() and parent == system.process.pid:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _publish(url: str, offset: int, job_id: str) -> bool:
    try:
        crc32c.apply_async((url, offset, _LENGTH), task_id=job_id).forget()
    except BrokerUnavailable:
        return False
    except redis.RedisError:  # forget() speaks to the store too, and has nothing to say about the publish
        return True
    return True


def _asked(ask: Callable[[], Any]) -> Any:
    """Return the answer, or ``None`` while Redis is away."""
    try:
        return ask()
    except (redis.RedisError, OSError):
        return None


def _patient_client(system: RunningSystem) -> Any:
    return redis.Redis.from_url(system.settings.state_url, socket_timeout=5)


def _settle(system: RunningSystem, report: Report) -> None:
    """Wait until the ledger has no open job any more, and read the counters."""
    client = _patient_client(system)
    give_up = time.monotonic() + 60
    while (open_jobs := _asked(lambda: client.zcard(LEDGER_OPEN))) != 0 and time.monotonic() < give_up:
        time.sleep(0.2)
    report.still_open = -1 if open_jobs is None else int(open_jobs)
    report.attempts = int(float(_asked(lambda: client.hget(fleet_key("local"), "attempts")) or 0))
    report.resubmitted = int(_asked(lambda: client.get(LEDGER_RESUBMITTED)) or 0)


@contextmanager
def _served(folder: Path, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    root = folder / "nginx"
    root.mkdir()
    data = rng.randbytes(_FILE_BYTES)
    binary = nginx_binary()
    if binary is None:
        raise SystemExit("nginx is not installed: apt-get install nginx-light")
    server = Nginx(root, binary)
    (server.www / "object.bin").write_bytes(data)
    try:
        yield server.url("object.bin"), data
    finally:
        server.close()


@contextmanager
def _system(folder: Path) -> Iterator[RunningSystem]:
    system = start_system(folder, PACKETFS_TIMEOUT_S="3600")
    app.conf.update(celery_config(system.settings))
    try:
        yield system
    finally:
        end_system(system)


def main() -> int:
    """Run it from the command line; the exit code is 0 where nothing was lost and nothing wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--worker-kills", type=int, default=20)
    parser.add_argument("--redis-kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--give-up-s", type=float, default=180.0, help="after so long without any result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="packetfs-chaos-") as folder:
        report = run(
            Path(folder), options.jobs, options.worker_kills, options.redis_kills, options.seed, options.give_up_s
        )
    print(report)
    for line in report.errors[:10]:
        print(" ", line)
    return 0 if report.lost == report.wrong == report.failed == report.still_open == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
