"""Celery's router (``task_routes``): which substrate's queue a task is published to.

Celery asks it at every publish, in the publisher's process, and an explicit ``queue=`` wins over what it says. It never
refuses: a task whose arguments make no sense is published to the local queue, where a worker gives it its typed error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from packetfs_compute.errors import JobError
from packetfs_compute.names import LOCAL, TASK_PREFIX, queue_of
from packetfs_compute.routing import Policy, parse_policy
from packetfs_compute.substrates import substrate_names

__all__ = ["route_task"]


def route_task(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    task: object = None,
    **more: Any,
) -> dict[str, str] | None:
    """Return ``{"queue": …}`` for a task of this project, ``None`` (no opinion) for any other.

    The signature is the one that Celery calls a function in ``task_routes`` with.
    """
    del args, options, task, more
    if not name.startswith(TASK_PREFIX):
        return None
    try:
        policy = parse_policy((kwargs or {}).get("policy"))
    except JobError:
        return {"queue": queue_of(LOCAL)}
    return {"queue": queue_of(_choose(policy))}


def _choose(policy: Policy) -> str:
    wanted = substrate_names() if policy.substrates is None else policy.substrates
    return next((name for name in wanted if name in substrate_names() and name not in policy.exclude), LOCAL)
