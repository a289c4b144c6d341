"""Submit one job to the system at hand and wait for its answer: what ``packetfs run`` does without ``--inline``."""

from typing import Any, Final

import celery.exceptions

from packetfs_compute.celery import app, broker_errors
from packetfs_compute.cli.job_options import Asked
from packetfs_compute.cli.session import system_for
from packetfs_compute.errors import AttemptTimeout, BrokerUnavailable
from packetfs_compute.names import queue_of
from packetfs_compute.substrates import substrate_names

__all__ = ["check_consumers", "submit_and_wait"]

_MARGIN_S: Final = 5.0
"""How much longer than the job's own deadline its answer is waited for."""
_PATIENCE_S: Final = 3.0
"""After this wait, see whether anybody consumes the queue at all."""


def submit_and_wait(asked: Asked) -> dict[str, Any]:
    """Run a job of one operation as its task and return the task's result, plain JSON.

    Raises what the task raised, :class:`AttemptTimeout` when no answer comes in time, :class:`BrokerUnavailable` when
    nobody is there to give one. Who interrupts it cancels the job.
    """
    settings = asked.settings
    with system_for(settings) as session:
        pending = session.submit(asked.program["op"], **asked.arguments)
        deadline_s = float((asked.policy or {}).get("deadline_s") or settings.timeout_s) + _MARGIN_S
        try:
            try:
                return dict(pending.get(timeout=min(_PATIENCE_S, deadline_s)))
            except celery.exceptions.TimeoutError:
                check_consumers(*map(queue_of, substrate_names(settings)))
                return dict(pending.get(timeout=deadline_s))
        except KeyboardInterrupt:
            session.cancel(pending)
            raise
        except celery.exceptions.TimeoutError:
            raise AttemptTimeout(f"no answer within {deadline_s:g} s", {"job_id": pending.id}) from None
        except broker_errors(app) as error:
            raise BrokerUnavailable(
                f"the broker went away while the job ran: {' '.join(str(error).split())}",
                {"job_id": pending.id, "hint": "when it is back, submit the job again; running it twice is harmless"},
            ) from error


def check_consumers(*queues: str) -> None:
    """Raise :class:`BrokerUnavailable` when nobody consumes any of the queues, the first of which is named."""
    answers = app.control.inspect(timeout=1.0).active_queues() or {}
    consumed = {queue["name"] for some in answers.values() for queue in some}
    if not consumed & set(queues):
        raise BrokerUnavailable(
            f"no worker consumes the queue {queues[0]}",
            {"hint": f"start one: celery -A packetfs_compute worker -Q {queues[0]}"},
        )
