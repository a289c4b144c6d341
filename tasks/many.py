"""Submit many jobs at many times the rate of ``delay()``.

``for result in submit_many(crc32c, ({"offset": n << 20} for n in range(4096)), data_url=URL, length=1 << 20): …``
"""

import inspect
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from celery import states
from celery.result import AsyncResult, EagerResult
from kombu.exceptions import KombuError
from redis import RedisError

from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.celery import broker_errors
from packetfs_compute.errors import BadProgram, JobError
from packetfs_compute.job import Job, accept_job
from packetfs_compute.names import MAX_PRIORITY, OPS, TASK_PREFIX
from packetfs_compute.program import BYTES_FIELDS, reparsed
from packetfs_compute.publish import publication
from packetfs_compute.validation import integer, require_object
from tasks.base import JobTask, unavailable

__all__ = ["submit_many"]

_BATCH: Final = 250
"""One run of the ledger's script: it is made ready while the server works on the one before, and fits a socket's buffer."""
_MAX_BATCH: Final = 10_000
_WAIT_S: Final = 0.5
"""How long a job may wait for others to go with it."""

_VARIANT: Final = "89ab"
_ID_DIGITS: Final = 32
_IDS_AT_ONCE: Final = 64
"""Of the system's random bytes: to ask for them takes longer than to have them."""

_Checked = tuple[Job, Mapping[str, Any]] | JobError


def submit_many(
    task: JobTask, calls: Iterable[Mapping[str, Any]], *, priority: int = 0, batch: int = _BATCH, **common: Any
) -> Iterator[AsyncResult]:  # type: ignore[type-arg]
    """Submit one job of ``task``, an operation or ``program``, for each of ``calls``; yield their results' handles in order.

    A call is the task's keyword arguments, beside those in ``common`` that all have; it wins over them. ``calls`` may be of
    any length, or endless: it is read ``batch`` at a time, as the caller takes the handles. Nothing is submitted before
    the first is taken. ``priority`` is from 0 (first) to 9 (last).

    Every handle that is yielded stands for a job that is in the ledger and published, or that was refused: then ``get()``
    raises the :class:`BadProgram` or :class:`~packetfs_compute.errors.BadPolicy` at once. Of the batch under way when the
    process is killed or interrupted either all jobs run or none. Raises :class:`~packetfs_compute.errors.BrokerUnavailable`
    when the broker does not answer; ``details["job_ids"]`` are the jobs that may have been published all the same.

    Celery's signals of a publish are not sent, and jobs that a task submits have no parent.
    """
    if not isinstance(task, JobTask) or not task.ledger:
        raise TypeError(f"{task!r} is no operation: give one such as tasks.crc32c or tasks.program")
    integer(priority, "priority", 0, MAX_PRIORITY)
    if not 1 <= batch <= _MAX_BATCH:
        raise ValueError(f"batch is {batch}: give 1 to {_MAX_BATCH}")
    return _submitted(task, calls, priority, batch, common)


def _new_ids() -> Iterator[str]:
    """Yield random UUIDs (RFC 9562, version 4), each in a fifth of the time that the uuid module takes."""
    while True:
        digits = os.urandom(_ID_DIGITS // 2 * _IDS_AT_ONCE).hex()
        for at in range(0, len(digits), _ID_DIGITS):
            text = digits[at : at + _ID_DIGITS]
            variant = _VARIANT[int(text[16], 16) & 3]
            yield f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _submitted(
    task: JobTask, calls: Iterable[Mapping[str, Any]], priority: int, batch: int, common: Mapping[str, Any]
) -> Iterator[AsyncResult]:  # type: ignore[type-arg]
    checker = _Checker(task, common)
    waiting: list[tuple[str, _Checked]] = []
    under_way: _Batch | None = None
    begun = 0.0
    new_ids = _new_ids()
    try:
        for call in calls:
            now = time.time()
            if not waiting:
                begun = now
            job_id = next(new_ids)
            waiting.append((job_id, checker.check(job_id, call, now)))
            if len(waiting) >= batch or not 0 <= now - begun < _WAIT_S:
                # Made ready while the server works on the one before, and sent after it: so their order is kept.
                ready, waiting = _Batch(task, waiting, priority), []
                if under_way:
                    under_way.finish()
                ready.start()
                done, under_way = under_way, ready
                yield from done.handles() if done else ()
        if under_way:
            under_way.finish()
            yield from under_way.handles()
        if waiting:
            under_way = _Batch(task, waiting, priority)
            under_way.start()
            under_way.finish()
            yield from under_way.handles()
    finally:
        if under_way:
            under_way.abandon()


class _Checker:
    """Makes jobs of calls. What all have is checked once where they differ in their bytes alone, as they mostly do."""

    def __init__(self, task: JobTask, common: Mapping[str, Any]) -> None:
        op = task.name.removeprefix(TASK_PREFIX)
        self._fixed = {"op": op} if op in OPS else {}
        self._names = frozenset(inspect.signature(task.run).parameters)
        self._common = dict(common)
        self._one_object = "data_url" in common
        self._shared = self._job("", {} if self._one_object else {"data_url": "of each call"}, 0.0)

    def check(self, job_id: str, call: object, now: float) -> _Checked:
        """Return the job of a call, and its task's arguments; or the error that names what is wrong with it."""
        shared = self._shared
        try:
            if (
                not isinstance(call, Mapping)
                or isinstance(shared, JobError)
                or not BYTES_FIELDS.issuperset(call)
                or not (self._one_object or "data_url" in call)
            ):
                return self._job(job_id, require_object(call, "arguments", self._names), now)
            program = reparsed(shared[0].program, call)
        except JobError as error:
            error.details["job_id"] = job_id
            return error
        return Job(job_id, program, shared[0].policy, now), {**self._common, **call}

    def _job(self, job_id: str, call: Mapping[str, Any], now: float) -> _Checked:
        arguments = {**self._common, **call}
        try:
            raw = {**require_object(arguments, "arguments", self._names), **self._fixed}
            policy = raw.pop("policy", None)
            return accept_job(job_id, raw, policy, now), arguments
        except JobError as error:
            error.details["job_id"] = job_id
            return error


class _Batch:
    """Calls that are published together."""

    def __init__(self, task: JobTask, calls: Sequence[tuple[str, _Checked]], priority: int) -> None:
        self._task = task
        self._ids = [job_id for job_id, _ in calls]
        self._refused: dict[str, JobError] = {job_id: one for job_id, one in calls if isinstance(one, JobError)}
        jobs = [one for _, one in calls if not isinstance(one, JobError)]
        self._backend: Any = task.backend
        backend = self._backend
        self._mark = backend.mark() if isinstance(backend, ResultBackend) else None
        self._publication = publication(
            task.name, jobs, time.time(), {}, priority, self._mark[0] if self._mark else None
        )
        self.abandon = self._publication.abandon

    def start(self) -> None:
        """Send them."""
        with self._translated():
            self._publication.start()

    def finish(self) -> None:
        """Wait until they are published."""
        with self._translated():
            self._publication.finish()

    def handles(self) -> list[AsyncResult]:  # type: ignore[type-arg]
        """Return what the caller gets."""
        for job_id, reason in self._publication.refused.items():
            details = {"field": "arguments", "job_id": job_id}
            self._refused[job_id] = BadProgram(f"the job cannot be sent: {reason}", details)
        refused, make, backend, name = self._refused, self._task.app.AsyncResult, self._backend, self._task.name
        handles = [
            EagerResult(job_id, refused[job_id], states.FAILURE, name=name)
            if job_id in refused
            else make(job_id, backend, name)
            for job_id in self._ids
        ]
        if self._mark is not None:
            backend.put_mark(self._mark, handles)
        return handles

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _errors(self._task) as error:
            job_ids = [job_id for job_id in self._ids if job_id not in self._refused]
            raise unavailable(error, job_ids=job_ids) from error


def _errors(task: JobTask) -> tuple[type[BaseException], ...]:
    """Return what is raised when Redis or the broker goes away; a batch that failed is a kombu error of its own."""
    return (RedisError, OSError, KombuError, *broker_errors(task.app))
