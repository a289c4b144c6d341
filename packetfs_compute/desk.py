"""The desk: the one way into the system for those who have no Celery, the intake and the gateway.

A job is *claimed* under its id, in one atomic step, and then published as the task ``packetfs.program``, or, if it
is to be split, ``packetfs.scan``. Whoever submits the same job again learns how it stands; nothing is published twice while
it is open in the ledger or its result is kept. A crash
between the claim and the publication leaves a job that is known and neither open nor ended: submitting it again publishes
it. (Two who submit one job at the very same time may both find it so. Then it runs twice, and the first result stands.)

What is known of a job is not kept here: its result is Celery's, and whether it is open or running the ledger's.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import redis
from celery.app.task import Context
from kombu.exceptions import KombuError

from packetfs_compute.broker.letters import decoded, read_letter
from packetfs_compute.broker.lua import Script
from packetfs_compute.broker.news import News, news_of
from packetfs_compute.broker.outcome import ErrorInfo, JobStatus, State
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.celery import app, broker_errors
from packetfs_compute.errors import BadProgram, BrokerUnavailable, ConfigurationError, JobError
from packetfs_compute.names import (
    JOB_STATE,
    JOBS_KNOWN,
    JOBS_RESULTS,
    LEDGER_JOBS,
    LEDGER_LEASES,
    LEDGER_OPEN,
    MAX_PRIORITY,
    QUEUE_PREFIX,
    REPLY_FLAG,
    SCAN_HEADER,
)
from packetfs_compute.publish import publication
from packetfs_compute.settings import Settings
from packetfs_compute.standing import (
    PROGRAM_TASK,
    Accepted,
    Seen,
    Submission,
    accepted,
    check_job_id,
    seen_of,
    standing,
    standing_again,
    status_of,
)
from packetfs_compute.state import connect
from packetfs_compute.wire import job_id_of

__all__ = ["MAX_PRIORITY", "Desk", "ErrorInfo", "JobStatus", "State", "Submission", "check_job_id"]

_MOST_AT_ONCE: Final = 1000
_CLAIM: Final = Script("claim")
_CANCELLED: Final = "cancelled on request"


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
        checked = [accepted(one, now) for one in submissions]
        jobs = [one for one in checked if isinstance(one, Accepted)]
        claims = iter(self._claimed(jobs))
        told: list[JobStatus | JobError] = []
        fresh: dict[str, Accepted] = {}
        for one in checked:
            if isinstance(one, JobError):
                told.append(one)
                continue
            publish, seen = next(claims)
            if publish:
                fresh[one.job.id] = one  # once, however often it is among the submissions
                told.append(status_of(one.job.id, seen, "queued"))
            else:
                told.append(standing_again(one, seen))
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
        told = {job_id: standing(job_id, seen) for job_id, seen in zip(valid, self._look(valid), strict=True)}
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
        status = standing(job_id, seen)
        if status is None or status["status"] not in ("queued", "running"):
            return status
        backend = app.backend
        if not isinstance(backend, ResultBackend):
            raise ConfigurationError("the application keeps no ledger", {"hint": "its results are in no Redis"})
        request = Context({"id": job_id, "task": PROGRAM_TASK, "delivery_info": {}, REPLY_FLAG: seen.known is not None})
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

    def _claimed(self, jobs: Sequence[Accepted]) -> list[tuple[bool, Seen]]:
        """Claim each job's id; return whether it is to be published, and what is kept of it."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for one in jobs:
                    _CLAIM.queue(pipe, *one.claim(self._ttl_s))
                answers = pipe.execute()
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        return [(bool(publish), seen_of(*rest)) for publish, *rest in answers]

    def _publish(self, jobs: Sequence[Accepted], now: float) -> dict[str, JobError]:
        """Publish jobs whose ids are claimed, those of a task and priority together; return which cannot be sent."""
        refused: dict[str, JobError] = {}
        try:
            for alike in dict.fromkeys((one.task, one.priority, one.window_of) for one in jobs):
                task, priority, scan = alike
                given = [(one.job, one.arguments) for one in jobs if (one.task, one.priority, one.window_of) == alike]
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

    def _look(self, job_ids: Sequence[str]) -> list[Seen]:
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
        return [seen_of(known, meta, due, lease, now) for known, meta, due, lease in each]


def _place_of(record: bytes) -> str | None:
    """Return the substrate of a record of the ledger (:mod:`packetfs_compute.broker.ledger`)."""
    try:
        queue = read_letter(decoded(record.rpartition(b"\n")[2]) or {}).queue
    except ValueError:
        return None
    return queue.removeprefix(QUEUE_PREFIX)


def _absence() -> tuple[type[BaseException], ...]:
    """Return what is raised when Redis or the broker goes away; a batch that failed is a kombu error of its own."""
    return (redis.RedisError, OSError, KombuError, *broker_errors(app))


def _unavailable(error: BaseException) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the broker does not answer: {' '.join(str(error).split())}",
        {"hint": "start one with `packetfs up`, or set PACKETFS_REDIS_URL to one that runs"},
    )
