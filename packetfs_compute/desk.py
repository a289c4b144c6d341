"""The desk: the one way into the system for those who have no Celery, the intake and the gateway.

A job is *claimed* under its id, in one atomic step, and then published as the task ``packetfs.program``, or, if it
is to be split, ``packetfs.scan``. Whoever submits the same job again learns how it stands; nothing is published twice while
it is open in the ledger or its result is kept. A crash
between the claim and the publication leaves a job that is known and neither open nor ended: submitting it again publishes
it. (Two who submit one job at the very same time may both find it so. Then it runs twice, and the first result stands.)

What is known of a job is not kept here: its result is Celery's, and whether it is open or running the ledger's.
"""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final

import redis
from celery.app.task import Context
from kombu.exceptions import KombuError

from packetfs_compute.broker import ResultBackend
from packetfs_compute.broker.letters import decoded, read_letter
from packetfs_compute.broker.lua import Script
from packetfs_compute.broker.news import News, news_of
from packetfs_compute.broker.outcome import ErrorInfo, JobStatus, Outcome, State, known_record, outcome, progress_of
from packetfs_compute.celery import app, broker_errors
from packetfs_compute.errors import BadProgram, BrokerUnavailable, ConfigurationError, JobError
from packetfs_compute.job import Job, accept_job
from packetfs_compute.names import (
    JOB_STATE,
    JOBS_KNOWN,
    JOBS_RESULTS,
    LEDGER_JOBS,
    LEDGER_LEASES,
    LEDGER_OPEN,
    MAX_JOB_ID_CHARS,
    MAX_PRIORITY,
    QUEUE_PREFIX,
    REPLY_FLAG,
    SCAN_HEADER,
    SCAN_TASK,
    task_of,
)
from packetfs_compute.publish import publication
from packetfs_compute.routing import Policy
from packetfs_compute.scanning.request import checked_window
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect
from packetfs_compute.validation import bad, integer, show
from packetfs_compute.wire import job_id_of

__all__ = ["MAX_PRIORITY", "Desk", "ErrorInfo", "JobStatus", "State", "Submission", "check_job_id"]

_PROGRAM_TASK: Final = task_of("program")
_MOST_AT_ONCE: Final = 1000
_CLAIM: Final = Script("claim")
_ANY: Final = Policy()
_CANCELLED: Final = "cancelled on request"


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as somebody asks for it: nothing of it is checked yet."""

    job_id: str
    program: object
    policy: object = None
    priority: object = 0
    scan: bool = False
    """Whether it is split into windows."""
    window: object = None
    """How wide they are to be, in bytes; ``None`` to have that chosen."""
    window_of: str | None = None
    """The scan that it is a window of."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A submission that is a job. ``policy`` holds its wishes, ``None`` where there is none."""

    job: Job
    task: str
    asked: dict[str, Any]
    """The task's arguments but for the policy."""
    policy: dict[str, Any] | None
    priority: int
    record: str
    window_of: str | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of an id. ``open`` and ``lease`` are scores in the ledger, ``now`` is the server's time."""

    known: bytes | None
    meta: bytes | None
    open: float | None
    lease: float | None
    now: float


class Desk:
    """Submits jobs, tells how they stand, cancels them. Any number of threads may use one.

    ``packetfs_compute.celery.app`` must be configured for ``settings``, with the tasks loaded
    (:class:`packetfs_compute.cli.session.Session` does both). Every method raises :class:`BrokerUnavailable` while Redis or
    the broker is away; a job may have been submitted all the same, and submitting it again is harmless.
    """

    def __init__(self, settings: Settings) -> None:
        self._ttl_s = settings.result_ttl_s
        self._redis: Any = connect(settings)

    def close(self) -> None:
        """Let go of the connections; the next call opens new ones."""
        self._redis.close()

    def submit(self, job_id: str, program: object, policy: object = None, priority: int = 0) -> JobStatus:
        """Submit a job and return how it stands, which for a new one is ``queued``.

        ``program`` and ``policy`` are JSON, ``priority`` is from 0 (first) to 9 (last). Raises :class:`BadProgram` or
        :class:`~packetfs_compute.errors.BadPolicy` naming the field; an id that stands for another program is a bad
        ``job_id``.
        """
        (told,) = self.submit_many([Submission(job_id, program, policy, priority)])
        if isinstance(told, JobError):
            raise told
        return told

    def submit_scan(
        self, job_id: str, program: object, window: object = None, policy: object = None, priority: int = 0
    ) -> JobStatus:
        """Submit a scan, as :meth:`submit` does a job: its program is run over the range in windows of ``window`` bytes.

        While it runs, its status has a ``progress``.
        """
        (told,) = self.submit_many([Submission(job_id, program, policy, priority, scan=True, window=window)])
        if isinstance(told, JobError):
            raise told
        return told

    def submit_many(self, submissions: Sequence[Submission]) -> list[JobStatus | JobError]:
        """Submit jobs in few round trips; return for each, in order, how it stands or why it was refused.

        At most 1,000 at once. Where it raises, some of the jobs may be published and others not.
        """
        if len(submissions) > _MOST_AT_ONCE:
            raise ValueError(f"at most {_MOST_AT_ONCE} jobs can be submitted at once")
        now = time.time()
        checked = [self._checked(one, now) for one in submissions]
        accepted = [one for one in checked if isinstance(one, _Accepted)]
        claims = iter(self._claimed(accepted))
        told: list[JobStatus | JobError] = []
        fresh: dict[str, _Accepted] = {}
        for one in checked:
            if isinstance(one, JobError):
                told.append(one)
                continue
            publish, seen = next(claims)
            if publish:
                fresh[one.job.id] = one  # once, however often it is among the submissions
                told.append(_status(one.job.id, seen, "queued"))
            else:
                told.append(_told_again(one, seen))
        refused = self._publish(list(fresh.values()), now) if fresh else {}
        return [refused.get(one["job_id"], one) if isinstance(one, dict) else one for one in told]

    def status(self, job_id: str) -> JobStatus | None:
        """Return how a job stands, or ``None`` where nobody knows such a job, or it is forgotten.

        A job counts as running once a worker has taken it. One that was published as another task of this project
        (``crc32c.delay()``) is told as well, without what was asked.
        """
        return self.statuses([job_id])[0]

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """Return how each job stands, in order and in one round trip, as :meth:`status` does for one."""
        valid = [job_id for job_id in job_ids if job_id_of({"jobId": job_id}) is not None]
        told = {job_id: _told(job_id, seen) for job_id, seen in zip(valid, self._look(valid), strict=True)}
        return [told.get(job_id) for job_id in job_ids]

    def cancel(self, job_id: str) -> JobStatus | None:
        """Cancel a job and return how it stands: a job that has ended stays as it is; ``None`` as for :meth:`status`.

        Its result is Celery's REVOKED at once, and stands. It is out of the ledger, so that no sweeper brings it back;
        workers that hold it are told to drop it, and no attempt of it begins. One that runs is stopped: its worker learns
        of it within a second or two, stops reading, closes its connections and gives its slot back, and nothing is held
        against the place or the source. A place behind HTTP stops when its client leaves, as far as its platform lets it;
        one that cannot (Lambda) computes to its end, and what it brings is thrown away.
        """
        if job_id_of({"jobId": job_id}) is None:
            return None
        (seen,) = self._look([job_id])
        status = _told(job_id, seen)
        if status is None or status["status"] not in ("queued", "running"):
            return status
        backend = app.backend
        if not isinstance(backend, ResultBackend):
            raise ConfigurationError("the application keeps no ledger", {"hint": "its results are in no Redis"})
        request = Context(
            {"id": job_id, "task": _PROGRAM_TASK, "delivery_info": {}, REPLY_FLAG: seen.known is not None}
        )
        try:
            backend.mark_as_cancelled(job_id, _CANCELLED, request)
            app.control.revoke(job_id)
        except _absence() as error:
            raise _unavailable(error) from error
        return self.status(job_id)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Keep nothing more of jobs that have ended: whoever wanted to know has been told."""
        keys = [prefix + job_id for job_id in job_ids for prefix in (JOBS_KNOWN, JOB_STATE, JOBS_RESULTS)]
        if keys:
            try:
                self._redis.delete(*keys)
            except (redis.RedisError, OSError) as error:
                raise _unavailable(error) from error

    def places(self, job_ids: Sequence[str]) -> list[str | None]:
        """Return on which substrate's queue each job was put last; ``None`` for one that is not open."""
        try:
            records = self._redis.hmget(LEDGER_JOBS, list(job_ids)) if job_ids else []
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        return [None if record is None else _place_of(record) for record in records]

    def news(self, pattern: str) -> AbstractContextManager[News]:
        """Return, as a context manager, the news of jobs whose ids match ``pattern``, a glob: what waits for one of them."""
        return news_of(self._redis, pattern)

    def _checked(self, one: Submission, now: float) -> _Accepted | JobError:
        try:
            check_job_id(one.job_id)
            priority = integer(one.priority, "priority", 0, MAX_PRIORITY)
            job = accept_job(one.job_id, one.program, one.policy, now, scan=one.scan)
            window = {"window": checked_window(one.window)} if one.scan else {}
        except JobError as error:
            return error
        policy = _wishes(job.policy)
        asked = {**job.program.to_wire(), **window}
        record = known_record(asked, policy, job.submitted_at or 0.0)
        return _Accepted(job, SCAN_TASK if one.scan else _PROGRAM_TASK, asked, policy, priority, record, one.window_of)

    def _claimed(self, accepted: Sequence[_Accepted]) -> list[tuple[bool, _Seen]]:
        """Claim each job's id; return whether it is to be published, and what is kept of it."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for one in accepted:
                    job_id = one.job.id
                    keys = [JOBS_KNOWN + job_id, JOBS_RESULTS + job_id, JOB_STATE + job_id, LEDGER_OPEN, LEDGER_LEASES]
                    # Twice as long: a job may be open for as long as its result is kept after that.
                    _CLAIM.queue(pipe, keys, [job_id, one.record, 2 * self._ttl_s])
                answers = pipe.execute()
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        return [(bool(publish), _seen(*rest)) for publish, *rest in answers]

    def _publish(self, jobs: Sequence[_Accepted], now: float) -> dict[str, JobError]:
        """Publish jobs whose ids are claimed, those of a task and priority together; return which cannot be sent."""
        refused: dict[str, JobError] = {}
        try:
            for alike in dict.fromkeys((one.task, one.priority, one.window_of) for one in jobs):
                task, priority, scan = alike
                given = [
                    (one.job, {**one.asked, "policy": one.policy})
                    for one in jobs
                    if (one.task, one.priority, one.window_of) == alike
                ]
                headers = {REPLY_FLAG: True} if scan is None else {REPLY_FLAG: True, SCAN_HEADER: scan}
                sending = publication(task, given, now, headers, priority)
                try:
                    sending.start()
                    sending.finish()
                finally:
                    sending.abandon()
                for job_id, error in sending.refused.items():
                    refused[job_id] = BadProgram(f"the job cannot be sent: {error}", {"field": "program"})
        except _absence() as error:
            raise _unavailable(error) from error
        return refused

    def _look(self, job_ids: Sequence[str]) -> list[_Seen]:
        if not job_ids:
            return []
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                for job_id in job_ids:
                    pipe.get(JOBS_KNOWN + job_id)
                    pipe.get(JOB_STATE + job_id)
                    pipe.zscore(LEDGER_OPEN, job_id)
                    pipe.zscore(LEDGER_LEASES, job_id)
                pipe.time()
                *kept, (seconds, micros) = pipe.execute()
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        now = seconds + micros / 1e6
        each = zip(kept[::4], kept[1::4], kept[2::4], kept[3::4], strict=True)
        return [_seen(known, meta, due, lease, now) for known, meta, due, lease in each]


def check_job_id(job_id: object) -> str:
    """Return a job's id; raise :class:`BadProgram` for what is none."""
    if not isinstance(job_id, str) or job_id_of({"jobId": job_id}) is None:
        raise bad("job_id", f"is {show(job_id)}", f"use 1 to {MAX_JOB_ID_CHARS} of A-Z a-z 0-9 . _ : -")
    return job_id


def _told_again(one: _Accepted, seen: _Seen) -> JobStatus | JobError:
    """Return how a job stands that was submitted before, or the refusal where the id stands for another."""
    if seen.known is None:
        return bad("job_id", "is taken by a job that was submitted otherwise", "choose another")
    if json.loads(seen.known)["fingerprint"] != json.loads(one.record)["fingerprint"]:
        return bad("job_id", "is taken by a job with another program or policy", "choose another")
    status = _told(one.job.id, seen)
    return status or bad("job_id", "is taken by a task that is no job", "choose another")


def _told(job_id: str, seen: _Seen) -> JobStatus | None:
    """Return how a job stands by what is kept of it; ``None`` where that is nothing, or nothing of ours."""
    if seen.meta is not None:
        meta = json.loads(seen.meta)
        ended = outcome(meta)
        if ended is not None:
            return _status(job_id, seen, ended["status"], ended)
    if seen.open is None:
        return None
    running = seen.lease is not None and seen.lease > seen.now
    status = _status(job_id, seen, "running" if running else "queued")
    told = progress_of(json.loads(seen.meta)) if seen.meta is not None else None
    if told is not None:
        status["progress"] = told
    return status


def _status(job_id: str, seen: _Seen, state: State, ended: Outcome | None = None) -> JobStatus:
    asked = json.loads(seen.known) if seen.known is not None else {}
    return {
        "job_id": job_id,
        "status": state,
        "submitted_at": asked.get("submitted_at"),
        "program": asked.get("program"),
        "policy": asked.get("policy"),
        "result": ended["result"] if ended else None,
        "error": ended["error"] if ended else None,
    }


def _seen(known: bytes | None, meta: bytes | None, due: Any, lease: Any, now: Any) -> _Seen:
    return _Seen(known, meta, _score(due), _score(lease), float(now))


def _place_of(record: bytes) -> str | None:
    """Return the substrate of a record of the ledger (:mod:`packetfs_compute.broker.ledger`)."""
    try:
        queue = read_letter(decoded(record.rpartition(b"\n")[2]) or {}).queue
    except ValueError:
        return None
    return queue.removeprefix(QUEUE_PREFIX)


def _score(raw: Any) -> float | None:
    return None if raw is None else float(raw)


def _wishes(policy: Policy) -> dict[str, Any] | None:
    """Return a policy as JSON: what it says other than the default."""
    if policy == _ANY:
        return None
    default = asdict(_ANY)
    said = {name: value for name, value in asdict(policy).items() if value != default[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def _absence() -> tuple[type[BaseException], ...]:
    """Return what is raised when Redis or the broker goes away; a batch that failed is a kombu error of its own."""
    return (redis.RedisError, OSError, KombuError, *broker_errors(app))


def _unavailable(error: BaseException) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the broker does not answer: {' '.join(str(error).split())}",
        {"hint": "start one with `packetfs up`, or set PACKETFS_REDIS_URL to one that runs"},
    )
