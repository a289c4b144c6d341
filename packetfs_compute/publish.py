"""Publish many jobs of one task: their places decided together, their messages made together, in one round trip."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from packetfs_compute.broker.bulk import Order, Publication
from packetfs_compute.celery import SUBMITTED_AT, app
from packetfs_compute.job import Job, wanted_for
from packetfs_compute.names import OPS, task_of
from packetfs_compute.router import Router
from packetfs_compute.routing import Policy, Wanted

__all__ = ["publication"]

_OPERATIONS: Final = frozenset(task_of(op) for op in (*OPS, "program"))
_Given = tuple[Job, Mapping[str, Any]]
"""A job, and the keyword arguments that its task is called with."""


def publication(
    task: str,
    jobs: Sequence[_Given],
    submitted_at: float,
    headers: Mapping[str, Any],
    priority: int = 0,
    reply_to: str | None = None,
) -> Publication:
    """Return what publishes jobs as ``task``, each under its id. The router takes them for sent from now on.

    ``submitted_at`` is Unix time. ``reply_to`` is the channel of a client that will wait for the results
    (:mod:`packetfs_compute.broker.waiting`). Celery's signals of a publish are not sent.
    """
    queues = _queues(task, jobs)
    orders = [Order(job.id, arguments, queue) for (job, arguments), queue in zip(jobs, queues, strict=True)]
    return Publication(app, task, orders, {SUBMITTED_AT: submitted_at, **headers}, priority, reply_to)


def _queues(task: str, jobs: Sequence[_Given]) -> list[str]:
    routes = app.conf.task_routes
    router = routes[0] if isinstance(routes, (list, tuple)) and len(routes) == 1 else None
    if (
        not isinstance(router, Router) or task not in _OPERATIONS
    ):  # somebody has routes of their own; a scan has its own
        route = cast("Any", app.amqp).router.route
        return [route({}, task, (), arguments)["queue"].name for _, arguments in jobs]
    places: dict[tuple[str, int | None, int], Iterator[str]] = {}
    lines: dict[tuple[Wanted, Policy], Iterator[str]] = {}
    queues = []
    for job, _ in jobs:
        url, length, policy = job.program.data_url, job.program.length, job.policy
        place = url, length, id(policy)  # of jobs that were made together it is mostly the same object
        line = places.get(place)
        if line is None:
            wanted = wanted_for(url, length, router.settings)
            line = places[place] = lines.get((wanted, policy)) or router.alike(wanted, policy)
            lines[wanted, policy] = line
        queues.append(next(line))
    return queues
