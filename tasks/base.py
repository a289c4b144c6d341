"""The task class of every task here, and the one path that they all take into the system."""

from typing import Any

from celery import Task
from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED  # type: ignore[attr-defined]
from kombu.exceptions import EncodeError, OperationalError
from redis import RedisError

from packetfs_compute.celery import SUBMITTED_AT, current_settings
from packetfs_compute.dispatch import accept_job, run_job, substrate_of_queue
from packetfs_compute.errors import BadProgram, BrokerUnavailable, JobError
from packetfs_compute.names import LOCAL
from packetfs_compute.result import JobResult

__all__ = ["JobTask", "run"]


class JobTask(Task):  # type: ignore[type-arg]
    """A Celery task whose publishing gives this project's errors: a caller need not know kombu's."""

    throws = (JobError,)
    """A job that fails by name is news for its caller, not for the log: Celery then prints no traceback of it."""

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publish, as :meth:`celery.Task.apply_async`.

        Raises :class:`BrokerUnavailable` when no broker answers, :class:`BadProgram` for an argument that JSON cannot hold.
        """
        try:
            return super().apply_async(*args, **kwargs)
        except (OperationalError, RedisError) as error:
            raise _unavailable(error) from error
        except RuntimeError as error:
            # How Celery says that the result store, which it subscribes to before it publishes, is not there.
            if error.args == (E_RETRY_LIMIT_EXCEEDED,):
                raise _unavailable("no connection to the result store") from error
            raise
        except (EncodeError, RecursionError, ValueError) as error:  # ValueError: an integer of over 4,300 digits
            raise BadProgram(
                f"an argument of {self.name} cannot be sent: {error}",
                {"field": "arguments", "hint": "give strings, integers, lists and objects"},
            ) from error


def _unavailable(reason: object) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the broker does not answer: {reason}",
        {"hint": "start one with `packetfs up`, or set PACKETFS_REDIS_URL to one that runs"},
    )


def run(task: JobTask, raw_program: dict[str, Any], raw_policy: object) -> JobResult:
    """Validate and run the job of a task that is being executed, on the substrate whose queue it came from."""
    request = task.request
    job = accept_job(str(request.id), raw_program, raw_policy, getattr(request, SUBMITTED_AT, None))
    routing_key = (request.delivery_info or {}).get("routing_key")
    return run_job(job, substrate_of_queue(routing_key) or LOCAL, current_settings())
