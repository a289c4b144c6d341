"""Submit one job to the system at hand and wait for its answer: what ``packetfs run`` does without ``--inline``."""

from typing import Any, Final

import celery.exceptions

from packetfs_compute.celery import app, broker_errors
from packetfs_compute.cli.session import system_for
from packetfs_compute.errors import AttemptTimeout, BrokerUnavailable
from packetfs_compute.names import LOCAL, queue_of
from packetfs_compute.settings import Settings

__all__ = ["submit_and_wait"]

_MARGIN_S: Final = 5.0
"""How much longer than the job's own deadline its answer is waited for."""
_PATIENCE_S: Final = 3.0
"""After this wait, see whether anybody consumes the queue at all."""


def submit_and_wait(settings: Settings, raw: dict[str, Any], policy: dict[str, Any] | None) -> dict[str, Any]:
    """Run the one-operation program ``raw`` as its task and return the task's result; both are plain JSON.

    Raises what the task raised, :class:`AttemptTimeout` when no answer comes in time, :class:`BrokerUnavailable` when
    nobody is there to give one.
    """
    with system_for(settings) as session:
        pending = session.submit(raw["op"], **{key: raw[key] for key in raw if key != "op"}, policy=policy)
        deadline_s = float((policy or {}).get("deadline_s") or settings.timeout_s) + _MARGIN_S
        try:
            try:
                return dict(pending.get(timeout=min(_PATIENCE_S, deadline_s)))
            except celery.exceptions.TimeoutError:
                _check_consumers()
                return dict(pending.get(timeout=deadline_s))
        except celery.exceptions.TimeoutError:
            raise AttemptTimeout(f"no answer within {deadline_s:g} s", {"job_id": pending.id}) from None
        except broker_errors(app) as error:
            raise BrokerUnavailable(
                f"the broker went away while the job ran: {' '.join(str(error).split())}",
                {"job_id": pending.id, "hint": "when it is back, submit the job again; running it twice is harmless"},
            ) from error


def _check_consumers() -> None:
    queues = app.control.inspect(timeout=1.0).active_queues() or {}
    wanted = queue_of(LOCAL)
    if not any(queue["name"] == wanted for consumed in queues.values() for queue in consumed):
        raise BrokerUnavailable(
            f"no worker consumes the queue {wanted}",
            {"hint": f"start one: celery -A packetfs_compute worker -Q {wanted}"},
        )
