"""The journal's two ends at a real Redis: what is told arrives once and bounded, whatever becomes of the two processes."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.signals import worker_process_shutdown, worker_shutdown
from support.processes import alive, wait_until
from support.valkey import valkey

from packetfs_compute import worker
from packetfs_compute.dispatch import Course
from packetfs_compute.errors import BrokerUnavailable, Internal, JobError, SourceNotFound
from packetfs_compute.job import Job
from packetfs_compute.journal import Journal, JournalReader, ScanBoard, open_journal, open_reader, writer
from packetfs_compute.journal.counts import Tally, summed
from packetfs_compute.journal.histogram import ERROR
from packetfs_compute.names import (
    JOURNAL_DONE,
    JOURNAL_FAILED,
    JOURNAL_HOURS,
    JOURNAL_OPENED,
    JOURNAL_SCAN,
    JOURNAL_STEPS,
)
from packetfs_compute.program import Op, Program
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Outcome, Policy
from packetfs_compute.settings import Settings

pytestmark = pytest.mark.integration

PROGRAM = Program("https://host/object?secret", (Op("crc32c"),), 0, 1024)
GOOD: Attempt = {"substrate": "fly", "ok": True, "error": None, "seconds": 0.2}
BAD: Attempt = {
    "substrate": "fly",
    "ok": False,
    "error": {"type": "internal", "message": "out of memory"},
    "seconds": 3.0,
}
USD = 1.5e-6
NEVER_S = 3600.0


class Clock:
    now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


class Broken:
    """Stands before a journal's script, and loses what it is told to lose."""

    def __init__(self, journal: Journal) -> None:
        self.away = False
        self.calls = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self._add = journal._add
        journal._add = self  # type: ignore[assignment]

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        self.meanwhile()
        if self.away:
            raise redis.ConnectionError("away")
        return self._add(*arguments)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(redis_client: Any, clock: Clock) -> Journal:
    """One that tells nothing by itself."""
    return Journal(redis_client, clock, clock, every_s=NEVER_S)


@pytest.fixture
def reader(redis_settings: Settings) -> JournalReader:
    return open_reader(redis_settings)


def job(job_id: str = "j1") -> Job:
    return Job(job_id, PROGRAM, Policy())


def ends(journal: Journal, job_id: str = "j1", error: JobError | None = None) -> None:
    journal.finished(job(job_id), "fly", error, Course(None, 0.0, 0.5))


def day(reader: JournalReader) -> Tally:
    return reader.read().day.get("fly", Tally())


def keys(client: Any) -> set[str]:
    return {key.decode() for key in client.keys("packetfs:journal:*")}


class TestTelling:
    def test_what_ended_is_read_back(self, journal: Journal, reader: JournalReader) -> None:
        journal.attempt(job(), BAD, Outcome(ok=False, cost_usd=USD), opened=True)
        journal.attempt(job(), GOOD, Outcome(ok=True, byte_count=1024, cost_usd=USD), opened=False)
        ends(journal)
        ends(journal, "j2", SourceNotFound("gone"))
        assert reader.read().jobs == ()
        assert journal.flush()
        reading = reader.read()
        told = reading.day["fly"]
        assert (told.done, told.failed, told.ok, told.bad) == (1, {"source_not_found": 1}, 1, {"internal": 1})
        assert (told.byte_count, told.usd) == (1024, 2 * USD)
        assert [one["job_id"] for one in reading.jobs] in (["j1", "j2"], ["j2", "j1"])
        assert all(one["data_url"] == "https://host/object" for one in reading.jobs)
        assert reading.opened == {"fly": {"at": Clock.now, "error": "internal", "message": "out of memory"}}

    def test_it_is_in_the_step_it_was_told_in_once_that_is_over(self, journal: Journal, reader: JournalReader) -> None:
        journal.attempt(job(), GOOD, Outcome(ok=True), opened=False)
        before = time.time()
        journal.flush()
        after = time.time()
        wait_until(lambda: summed(reader.read().steps), "the step is over", 5)
        reading = reader.read()
        (at,) = [at for at, step in enumerate(reading.steps) if step]
        assert before // 2 * 2 <= reading.begun + 2 * at <= after
        assert len(reading.steps) == 150
        p99 = reading.steps[at]["fly"].percentile_s(0.99)
        assert p99 is not None
        assert abs(p99 / 0.2 - 1) <= ERROR
        assert reading.day["fly"].percentile_s(0.99) is None

    def test_of_a_scans_windows_those_that_failed_are_told_of_and_all_are_counted(
        self, journal: Journal, reader: JournalReader
    ) -> None:
        for job_id, error in (("s1.0", None), ("s1.1", SourceNotFound("404")), ("s1.2", None)):
            window = Job(job_id, PROGRAM, Policy(), window_of="s1")
            journal.finished(window, "fly", error, Course(None, 0.0, 0.5))
        journal.scanned("s1", PROGRAM, None, SourceNotFound("404"), 2.0)
        journal.scanned("s2", PROGRAM, {"cost_usd": 0.0, "attempts": [], "windows": 3}, None, 2.0)
        journal.flush()
        told = {one["job_id"]: (one["status"], one["window_of"], one["scan"] is None) for one in reader.read().jobs}
        assert told == {
            "s1.1": ("failed", "s1", True), "s1": ("failed", None, False), "s2": ("done", None, False)
        }  # fmt: skip
        assert (day(reader).done, day(reader).failed) == (2, {"source_not_found": 1})

    def test_an_attempt_that_opened_nothing_is_no_cause(self, journal: Journal, reader: JournalReader) -> None:
        journal.attempt(job(), BAD, Outcome(ok=False), opened=False)
        journal.flush()
        assert reader.read().opened == {}

    def test_the_last_cause_is_the_one(self, journal: Journal, reader: JournalReader) -> None:
        journal.opened("fly", "busy", "full")
        journal.opened("fly", "probe", "cannot reach https://u:p@host/x?secret")
        journal.flush()
        assert reader.read().opened["fly"] == {
            "at": Clock.now,
            "error": "probe",
            "message": "cannot reach https://host/x",
        }

    def test_it_is_told_by_itself_at_most_twice_a_second_and_in_one_round_trip(
        self, redis_client: Any, reader: JournalReader
    ) -> None:
        journal = Journal(redis_client, every_s=0.05)
        told = Broken(journal)
        for _ in range(100):
            journal.attempt(job(), GOOD, Outcome(ok=True), opened=False)
        assert told.calls == 0
        wait_until(lambda: day(reader).ok == 100, "it is told")
        assert told.calls == 1

    def test_what_is_noted_waits_for_its_half_second(self, journal: Journal) -> None:
        told = Broken(journal)
        ends(journal)
        time.sleep(0.1)
        assert told.calls == 0

    def test_several_processes_add_up(self, redis_settings: Settings, reader: JournalReader) -> None:
        for _ in range(2):
            one = open_journal(redis_settings)
            ends(one)
            assert one.flush()
        assert day(reader).done == 2


class TestBounds:
    def test_every_key_ends_by_itself(self, journal: Journal, redis_client: Any) -> None:
        journal.attempt(job(), BAD, Outcome(ok=False), opened=True)
        ends(journal)
        ends(journal, error=Internal("no"))
        journal.flush()
        steps = {key for key in keys(redis_client) if key.startswith(JOURNAL_STEPS)}
        hours = {key for key in keys(redis_client) if key.startswith(JOURNAL_HOURS)}
        assert keys(redis_client) == {*steps, *hours, JOURNAL_DONE, JOURNAL_FAILED, JOURNAL_OPENED}
        assert len(steps) == len(hours) == 1
        limits = {key: redis_client.ttl(key) for key in keys(redis_client)}
        assert all(300 < limits[key] <= 600 for key in steps)
        assert all(24 * 3600 < limits[key] <= 25 * 3600 for key in hours)
        assert all(0 < limit <= 25 * 3600 for limit in limits.values())
        assert not any(field.startswith(b"took") for key in hours for field in redis_client.hgetall(key))

    def test_of_many_jobs_the_last_are_told_and_all_are_counted(self, journal: Journal, reader: JournalReader) -> None:
        for at in range(500):
            ends(journal, f"good{at}")
        ends(journal, "bad", Internal("no"))
        journal.flush()
        jobs = [one["job_id"] for one in reader.read().jobs]
        assert sorted(jobs) == sorted(["bad", *(f"good{at}" for at in range(490, 500))])
        assert (day(reader).done, day(reader).failed.total()) == (500, 1)

    def test_fifty_are_shown_the_newest_first_with_the_last_failures_among_them(
        self, journal: Journal, reader: JournalReader, redis_client: Any, clock: Clock
    ) -> None:
        for at in range(80):
            clock.now += 1
            ends(journal, f"{'bad' if at < 30 else 'good'}{at}", Internal("no") if at < 30 else None)
            journal.flush()
        assert redis_client.llen(JOURNAL_DONE) == redis_client.llen(JOURNAL_FAILED) + 20 == 50
        jobs = [one["job_id"] for one in reader.read().jobs]
        assert jobs == [*(f"good{at}" for at in range(79, 39, -1)), *(f"bad{at}" for at in range(29, 19, -1))]
        for at in range(60):
            ends(journal, f"more{at}", Internal("no"))
            journal.flush()
        assert redis_client.llen(JOURNAL_FAILED) == 50

    def test_idle_it_has_no_thread(self, redis_client: Any) -> None:
        journal = Journal(redis_client, every_s=0.01, idle_s=0.05)
        names = lambda: [thread.name for thread in threading.enumerate()]  # noqa: E731
        for _ in range(2):
            ends(journal)
            assert journal._thread is not None
            assert journal._thread.name in names()
            wait_until(lambda: journal._thread is None, "it ends")


class TestRedisAway:
    def test_what_cannot_be_told_is_told_a_little_later(
        self, journal: Journal, reader: JournalReader, clock: Clock
    ) -> None:
        store = Broken(journal)
        store.away = True
        ends(journal, "first")
        assert not journal.flush()
        ends(journal, "second")
        clock.now += 9
        assert not journal.flush()
        store.away = False
        assert journal.flush()
        assert day(reader).done == 2
        assert {one["job_id"] for one in reader.read().jobs} == {"first", "second"}

    def test_so_is_what_ended_meanwhile(self, journal: Journal, reader: JournalReader) -> None:
        store = Broken(journal)
        store.away, store.meanwhile = True, lambda: ends(journal, "meanwhile")
        ends(journal, "first")
        assert not journal.flush()
        store.away, store.meanwhile = False, lambda: None
        assert journal.flush()
        assert {one["job_id"] for one in reader.read().jobs} == {"first", "meanwhile"}
        assert day(reader).done == 2

    def test_and_after_ten_seconds_it_is_dropped_without_a_word(
        self, journal: Journal, reader: JournalReader, clock: Clock
    ) -> None:
        store = Broken(journal)
        store.away = True
        ends(journal, "old")
        clock.now += 11
        assert not journal.flush()
        ends(journal, "new")
        store.away = False
        assert journal.flush()
        assert [one["job_id"] for one in reader.read().jobs] == ["new"]

    def test_a_silent_moment_makes_nothing_old(self, journal: Journal, clock: Clock) -> None:
        store = Broken(journal)
        journal.flush()
        clock.now += 3600
        ends(journal)
        store.away = True
        assert not journal.flush()
        assert not journal._batch.empty

    def test_what_is_kept_meanwhile_is_bounded(self, journal: Journal) -> None:
        Broken(journal).away = True
        for _ in range(10):
            for at in range(100):
                ends(journal, f"j{at}", Internal("no") if at % 2 else None)
            journal.flush()
        batch = journal._batch
        assert (len(batch.done), len(batch.failed), len(batch.counts)) == (10, 20, 2)

    def test_the_thread_goes_on_trying(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path / "redis")
        journal = open_journal(settings)
        journal._every_s = 0.05
        ends(journal)
        with pytest.raises(BrokerUnavailable, match="journal"):
            open_reader(settings).read()
        time.sleep(0.2)
        with valkey(tmp_path) as there:
            wait_until(lambda: day(open_reader(there)).done == 1, "it is told")


class TestFork:
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_fork_tells_what_it_counted_itself_and_nothing_twice(
        self, redis_settings: Settings, reader: JournalReader
    ) -> None:
        journal = open_journal(redis_settings)
        ends(journal, "parent")
        journal._lock.acquire()  # as when another thread is just counting
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                ends(journal, "child")
                os._exit(0 if journal._thread is not None and journal._thread.is_alive() and journal.flush() else 1)
            os._exit(2)
        journal._lock.release()
        try:
            wait_until(lambda: not alive(child), "the child is not held up by its parent's lock")
        finally:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        assert os.waitstatus_to_exitcode(status) == 0
        assert journal.flush()
        assert day(reader).done == 2
        assert sorted(one["job_id"] for one in reader.read().jobs) == ["child", "parent"]


def test_a_worker_process_that_ends_tells_the_rest(
    monkeypatch: pytest.MonkeyPatch, redis_settings: Settings, reader: JournalReader
) -> None:
    monkeypatch.setattr(worker, "current_settings", lambda: redis_settings)
    for ending, count in ((worker_process_shutdown, 1), (worker_shutdown, 2)):
        journal = worker._journal(os.getpid(), redis_settings)
        journal._every_s = NEVER_S
        ends(journal)
        ending.send(sender=None)
        assert day(reader).done == count


class TestReading:
    @pytest.fixture
    def hours(self, redis_client: Any) -> Callable[..., None]:
        return lambda ago, **counts: redis_client.hset(
            f"{JOURNAL_HOURS}{int(time.time()) // 3600 - ago}", mapping={f"{name}|fly": n for name, n in counts.items()}
        )

    def test_the_day_is_twenty_four_hours_and_this_one(self, reader: JournalReader, hours: Callable[..., None]) -> None:
        for ago in (0, 1, 24, 25, 26):
            hours(ago, done=10**ago if ago < 2 else 1000)
        assert day(reader).done in (1011, 1001)  # the hour may turn meanwhile

    def test_what_is_over_is_read_once_and_this_hour_each_time(
        self, reader: JournalReader, hours: Callable[..., None], redis_client: Any
    ) -> None:
        hours(1, done=5)
        hours(0, done=1)
        first = day(reader).done
        redis_client.config_resetstat()
        hours(0, done=2)
        assert day(reader).done == first + 1
        calls = redis_client.info("commandstats")["cmdstat_hgetall"]["calls"]
        assert calls <= 4, "this hour, what opened breakers, and a step or two"

    def test_a_clock_that_went_back_has_all_read_again(self, reader: JournalReader) -> None:
        memory = reader._steps
        memory.learn(memory.unknown(1000), [{}] * 150)
        assert memory.unknown(1001) == [1000]
        memory.learn([1000], [{}])
        assert memory.unknown(1001) == []
        assert memory.unknown(999) == list(range(849, 999))

    def test_many_threads_may_read(self, reader: JournalReader, journal: Journal) -> None:
        ends(journal)
        journal.flush()
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(day(reader).done)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [1] * 8

    def test_lists_that_hold_nothing_else_are_json(self, journal: Journal, redis_client: Any) -> None:
        ends(journal)
        journal.flush()
        (line,) = redis_client.lrange(JOURNAL_DONE, 0, -1)
        assert json.loads(line)["job_id"] == "j1"
        assert b"\n" not in line


def test_the_script_asks_nothing_that_the_shipped_rights_refuse(redis_client: Any, redis_settings: Settings) -> None:
    rights = (Path(__file__).parents[3] / "deploy" / "redis" / "users.acl").read_text().splitlines()
    words = [word for line in rights if not line.startswith("#") for word in line.split()]
    redis_client.execute_command("ACL", "SETUSER", "journal", "reset", "on", "nopass", *words)
    try:
        client = redis.Redis(unix_socket_path=str(redis_settings.socket_path), username="journal", password="any")
        journal = Journal(client, every_s=NEVER_S)
        journal.attempt(job(), BAD, Outcome(ok=False), opened=True)
        ends(journal)
        ends(journal, error=Internal("no"))
        assert journal.flush()
        board = ScanBoard(client)
        for job_id in ("s1", "s2"):
            board.tell(job_id, PROGRAM, 1.0, {})
        board.end("s1")
        reading = JournalReader(client).read()
        assert (reading.day["fly"].done, [one["job_id"] for one in reading.scans]) == (1, ["s2"])
        client.delete(f"{JOURNAL_SCAN}s2")
        assert JournalReader(client).read().scans == ()
    finally:
        redis_client.execute_command("ACL", "DELUSER", "journal")
    assert writer.MOST_JOBS == 50
