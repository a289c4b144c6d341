"""The writing end: a process counts in memory, and a thread of its own adds that to Redis twice a second.

The thread begins with the first thing there is to tell, and ends when there was nothing for a while. A fork has taken the
memory but not the thread, and what its parent has counted is the parent's to tell: it begins anew.
"""

import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain
from typing import Any, Final

import redis

from packetfs_compute.dispatch import Course
from packetfs_compute.errors import JobError
from packetfs_compute.job import Job
from packetfs_compute.journal.counts import count_attempt, count_job
from packetfs_compute.journal.ended import Ended, EndedScan, shown
from packetfs_compute.names import JOURNAL_DONE, JOURNAL_FAILED, JOURNAL_HOURS, JOURNAL_OPENED, JOURNAL_STEPS
from packetfs_compute.program import Program
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Outcome
from packetfs_compute.routing.recovery import Again
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect

__all__ = ["HOURS", "MOST_JOBS", "STEP_S", "Journal", "open_journal"]

STEP_S: Final = 2
HOURS: Final = 24
MOST_JOBS: Final = 50
"""Jobs that are kept of those that were done, and of those that failed."""

_STEP_TTL_S: Final = 600
_HOUR_TTL_S: Final = (HOURS + 1) * 3600
_JOBS_TTL_S: Final = 86_400
_EVERY_S: Final = 0.5
_KEEP_S: Final = 10.0
"""What could not be told for so long is dropped: it is only a journal, and it would be told as of another time."""
_IDLE_S: Final = 30.0
_SILENCE_S: Final = 2.0
_MOST_DONE: Final = 10
"""Jobs of one process's half second that are told of; all are counted. Of many the last ones, and failures have their own
places, or a busy worker's good jobs would push them out."""
_MOST_FAILED: Final = 20


@dataclass(slots=True)
class _Batch:
    """What is to be told: bounded by the names of places and errors, and by how many jobs are told of."""

    begun: float
    counts: Counter[str] = field(default_factory=Counter)
    done: deque[Ended | EndedScan] = field(default_factory=lambda: deque(maxlen=_MOST_DONE))
    failed: deque[Ended | EndedScan] = field(default_factory=lambda: deque(maxlen=_MOST_FAILED))
    opened: dict[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.counts or self.done or self.failed or self.opened)

    def add(self, later: "_Batch") -> None:
        self.counts.update(later.counts)
        self.done.extend(later.done)
        self.failed.extend(later.failed)
        self.opened.update(later.opened)

    def arguments(self) -> list[Any]:
        return [
            STEP_S, _STEP_TTL_S, _HOUR_TTL_S, MOST_JOBS, _JOBS_TTL_S,
            len(self.counts), *chain.from_iterable(self.counts.items()),
            len(self.done), *(one.to_json() for one in self.done),
            len(self.failed), *(one.to_json() for one in self.failed),
            len(self.opened), *chain.from_iterable(self.opened.items()),
        ]  # fmt: skip


class Journal:
    """Notes what a process's attempts and jobs came to; an :class:`~packetfs_compute.dispatch.Observer`.

    It may be told from many threads, and after a fork; being told costs some microseconds and waits for nobody.
    ``wall`` gives Unix seconds, ``clock`` any that only go forward.
    """

    _batch: _Batch
    _thread: threading.Thread | None

    def __init__(
        self,
        client: redis.Redis,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = _EVERY_S,
        idle_s: float = _IDLE_S,
    ) -> None:
        text = (resources.files("packetfs_compute.journal") / "scripts" / "add.lua").read_text("utf-8")
        self._add = client.register_script(text)
        self._wall = wall
        self._clock = clock
        self._every_s = every_s
        self._idle_s = idle_s
        self._reset()

    def attempt(self, job: Job, attempt: Attempt, outcome: Outcome, *, opened: bool) -> None:
        """One attempt has ended."""
        del job
        error = attempt["error"]

        def note(batch: _Batch) -> None:
            count_attempt(batch.counts, attempt, outcome)

        self._note(note)
        if opened and error is not None:
            self.opened(attempt["substrate"], error["type"], error["message"])

    def moved(self, job: Job, substrate: str, again: Again) -> None:
        """The job goes on to another attempt; its end will tell of this one."""

    def finished(self, job: Job, substrate: str, error: JobError | None, course: Course) -> None:
        """The job has ended."""
        ended = Ended(job, substrate, error, self._wall(), course)

        def note(batch: _Batch) -> None:
            count_job(batch.counts, substrate, None if error is None else error.type, cached=course.cached)
            if error is not None:
                batch.failed.append(ended)
            elif job.window_of is None:  # its scan tells of them all
                batch.done.append(ended)

        self._note(note)

    def scanned(
        self, job_id: str, program: Program, result: Mapping[str, Any] | None, error: JobError | None, total_s: float
    ) -> None:
        """A scan has ended, with a result or an error. What it did is counted by its windows."""
        ended = EndedScan(job_id, program, result, error, self._wall(), total_s)
        self._note(lambda batch: (batch.done if error is None else batch.failed).append(ended))

    def opened(self, substrate: str, error: str, message: str) -> None:
        """A substrate's breaker has opened, because of an attempt's ``error`` or of a ``probe``."""
        cause = json.dumps({"at": round(self._wall(), 3), "error": error, "message": shown(message)})
        self._note(lambda batch: batch.opened.update({substrate: cause}))

    def flush(self) -> bool:
        """Tell Redis what there is to tell; return whether that is done. What cannot be told is kept for some seconds."""
        self._notice_fork()
        with self._lock:
            batch, self._batch = self._batch, _Batch(self._clock())
        if batch.empty:
            return True
        keys = [JOURNAL_STEPS, JOURNAL_HOURS, JOURNAL_DONE, JOURNAL_FAILED, JOURNAL_OPENED]
        try:
            self._add(keys, batch.arguments())
        except (redis.RedisError, OSError):
            with self._lock:
                if self._clock() - batch.begun < _KEEP_S:
                    batch.add(self._batch)
                    self._batch = batch
            return False
        return True

    def _note(self, note: Callable[[_Batch], object]) -> None:
        self._notice_fork()
        with self._lock:
            if self._batch.empty:
                self._batch.begun = self._clock()
            note(self._batch)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._keep_telling, name="packetfs-journal", daemon=True)
                with suppress(RuntimeError):  # the interpreter is on its way out, and begins no thread
                    self._thread.start()
            self._something.set()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._batch = _Batch(self._clock())
        self._thread = None
        self._something = threading.Event()
        self._lock = threading.Lock()

    def _keep_telling(self) -> None:
        while True:
            if not self._something.wait(self._idle_s):
                with self._lock:
                    if not self._something.is_set():
                        self._thread = None
                        return
            time.sleep(self._every_s)
            self._something.clear()
            if not self.flush():
                self._something.set()


def open_journal(settings: Settings) -> Journal:
    """Return the journal in the Redis of ``settings``; nothing is connected yet.

    Nothing is tried twice: what was lost on the way may have arrived, and would count double.
    """
    return Journal(connect(settings, silence_s=_SILENCE_S, retries=0))
