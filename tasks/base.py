"""The task class of every task here, and the one path that they all take into the system."""

from typing import Any

from celery import Task
from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED  # type: ignore[attr-defined]
from celery.exceptions import Ignore
from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.uuid import uuid
from redis import RedisError

from packetfs_compute.broker.errands import along_with_result
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.celery import SUBMITTED_AT, TRAIL
from packetfs_compute.errors import BadProgram, BrokerUnavailable, Cancelled, JobError
from packetfs_compute.job import accept_job
from packetfs_compute.names import LEDGER_FLAG, LOCAL, SCAN_HEADER, queue_of
from packetfs_compute.result import JobResult
from packetfs_compute.routing.recovery import Again
from packetfs_compute.worker import current_dispatcher, substrate_of_queue

__all__ = ["JobTask", "is_finished", "run", "unavailable"]

_NO_LIMIT = 1_000_000


class JobTask(Task):  # type: ignore[type-arg]
    """A Celery task whose publishing gives this project's errors: a caller need not know kombu's."""

    throws = (JobError,)
    """A job that fails by name is news for its caller, not for the log: Celery then prints no traceback of it."""

    resultrepr_maxsize = 64
    """Of a result's characters in events and logs. Celery renders it for every task; its own 1,024 took a tenth of the time
    of one that does nothing, 128 still a twentieth."""

    ledger = True
    """Whether its jobs are entered in the ledger, which has one published again that was lost."""

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        *more: Any,
        ledger: bool | None = None,
        **options: Any,
    ) -> Any:
        """Publish, as :meth:`celery.Task.apply_async`; ``ledger=False`` keeps this one job out of the ledger.

        Raises :class:`BrokerUnavailable` when no broker answers, :class:`BadProgram` for an argument that cannot be sent.
        A publish that fails may have succeeded all the same: ``details["job_id"]`` tells under which id.
        """
        job_id = task_id or uuid()
        if not (self.ledger if ledger is None else ledger):
            options["headers"] = {**(options.get("headers") or {}), LEDGER_FLAG: False}
        try:
            return self._publish(args, kwargs, job_id, *more, **options)
        except (OperationalError, RedisError) as error:
            raise unavailable(error, job_id=job_id) from error
        except RuntimeError as error:
            # How Celery says that the result store, which it subscribes to before it publishes, is not there.
            if error.args == (E_RETRY_LIMIT_EXCEEDED,):
                raise unavailable("no connection to the result store", job_id=job_id) from error
            raise
        except (EncodeError, RecursionError, ValueError) as error:  # ValueError: an integer of over 4,300 digits
            raise BadProgram(
                f"an argument of {self.name} cannot be sent: {error}",
                {"field": "arguments", "hint": "give strings, integers, lists and objects"},
            ) from error

    def _publish(self, *args: Any, **options: Any) -> Any:
        """Publish with the channel by which this client hears of results, unless it is for somebody else."""
        backend = self.backend
        if "reply_to" in options or not isinstance(backend, ResultBackend):
            return super().apply_async(*args, **options)
        mark = backend.mark()
        options["reply_to"] = mark[0]
        handle = super().apply_async(*args, **options)
        backend.put_mark(mark, (handle,))
        return handle


def unavailable(reason: object, **details: object) -> BrokerUnavailable:
    """Return the error of a publish that failed, and that may have succeeded all the same."""
    return BrokerUnavailable(
        f"the broker does not answer: {reason}",
        {"hint": "start one with `packetfs up`, or set PACKETFS_REDIS_URL to one that runs", **details},
    )


def is_finished(task: JobTask) -> bool:
    """Whether the job of a task that is being executed needs no further attempt."""
    backend = task.backend
    return isinstance(backend, ResultBackend) and backend.is_finished(str(task.request.id))


def run(task: JobTask, raw_program: dict[str, Any], raw_policy: object) -> JobResult:
    """Validate and run the job of a task that is being executed: one attempt, on the substrate whose queue it came from.

    What follows a failed attempt is published under the same id, so that the caller's result handle stays good. A task
    that was called rather than published makes all its attempts here.
    """
    request = task.request
    if (request.delivery_info or {}).get("redelivered") and is_finished(task):
        raise Ignore  # a copy of a message whose job was done meanwhile
    raw_trail = getattr(request, TRAIL, None)
    submitted_at, window_of = getattr(request, SUBMITTED_AT, None), getattr(request, SCAN_HEADER, None)
    job = accept_job(str(request.id), raw_program, raw_policy, submitted_at, raw_trail, window_of=window_of)
    dispatcher = current_dispatcher()
    if request.called_directly or request.is_eager:
        return dispatcher.run_here(job, LOCAL)
    routing_key = (request.delivery_info or {}).get("routing_key")
    try:
        with along_with_result():
            answer = dispatcher.run(job, substrate_of_queue(routing_key, dispatcher.settings) or LOCAL)
    except Cancelled as error:
        task.backend.mark_as_revoked(job.id, error.message, request)  # it is already, but the chord has not counted it
        raise Ignore from error
    if not isinstance(answer, Again):
        return answer
    headers = {**(request.headers or {}), TRAIL: job.trail.to_header(), SUBMITTED_AT: job.submitted_at}
    # The trail and the deadline bound the attempts, not Celery's count of retries.
    raise task.retry(queue=queue_of(answer.substrate), countdown=answer.delay_s, headers=headers, max_retries=_NO_LIMIT)
