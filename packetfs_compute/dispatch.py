"""Run a job's attempt on the substrate whose queue it came from, and turn the answer into a result or a typed error."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import JobError, NoSubstrate
from packetfs_compute.names import queue_of
from packetfs_compute.program import Program, parse_program
from packetfs_compute.result import Attempt, JobResult, job_result
from packetfs_compute.routing import Policy, parse_policy, vetoes
from packetfs_compute.settings import Settings
from packetfs_compute.sources import presign
from packetfs_compute.substrates import Substrate, load_substrate, substrate_names
from packetfs_compute.wire import ComputeRequest, error_from_wire

__all__ = ["Job", "accept_job", "run_job", "substrate_of_queue"]

_LATEST_UNIX_S: Final = 1e11
_NO_COST_USD: Final = 0.0
"""The local substrate is a machine that is paid for already."""


@dataclass(frozen=True, slots=True)
class Job:
    """A program with its policy and id. ``submitted_at`` is the publisher's wall clock in Unix seconds, when known."""

    id: str
    program: Program
    policy: Policy
    submitted_at: float | None = None


def accept_job(job_id: str, raw_program: object, raw_policy: object, raw_submitted_at: object = None) -> Job:
    """Return the job of a program and a policy as JSON; raise the ``JobError`` that names what is wrong with them.

    A submission time that makes no sense is as good as none: it is a header of the message, not the caller's input.
    """
    try:
        return Job(job_id, parse_program(raw_program), parse_policy(raw_policy), _moment(raw_submitted_at))
    except JobError as error:
        error.details.update(job_id=job_id, attempts=[])
        raise


def run_job(
    job: Job,
    substrate_name: str,
    settings: Settings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> JobResult:
    """Run ``job`` on ``substrate_name`` and return its result.

    One deadline spans the job from its submission; what the queue took is not given again. Raises the ``JobError`` that
    the attempt ended with, with ``attempts`` and ``job_id`` in its details.
    """
    started = clock()
    # Two hosts' clocks: a publisher's that runs ahead must not give a negative wait.
    queued_s = None if job.submitted_at is None else max(0.0, round(wall() - job.submitted_at, 6))
    attempts: list[Attempt] = []
    try:
        deadline = Deadline.after(job.policy.deadline_s or settings.timeout_s, clock, spent_s=queued_s or 0.0)
        substrate = load_substrate(substrate_name, settings)
        _check_policy(job, substrate)
        answer = _attempt(job, substrate, settings, deadline, attempts)
    except JobError as error:
        error.details.update(job_id=job.id, attempts=attempts)
        raise
    total_s = (queued_s or 0.0) + clock() - started
    return job_result(job.id, job.program, answer, attempts, cost_usd=_NO_COST_USD, queued_s=queued_s, total_s=total_s)


def substrate_of_queue(routing_key: str | None) -> str | None:
    """Return the substrate whose queue ``routing_key`` names, or ``None`` for a queue that is no substrate's."""
    return next((name for name in substrate_names() if queue_of(name) == routing_key), None)


def _moment(raw: object) -> float | None:
    known = isinstance(raw, (int, float)) and not isinstance(raw, bool) and abs(raw) < _LATEST_UNIX_S
    return float(raw) if known else None  # type: ignore[arg-type]


def _check_policy(job: Job, substrate: Substrate) -> None:
    reasons = vetoes(job.policy, job.program, substrate.capabilities)
    if reasons:
        name = substrate.capabilities.name
        raise NoSubstrate(
            f"policy leaves no place to run: {name} {'; '.join(reasons)}",
            {"field": "policy", "vetoes": {name: reasons}, "hint": f"allow one of {', '.join(substrate_names())}"},
        )


def _attempt(
    job: Job, substrate: Substrate, settings: Settings, deadline: Deadline, attempts: list[Attempt]
) -> dict[str, object]:
    """Run one attempt, append it to ``attempts``, and return its successful response; raise what it failed with."""
    # No key leaves the dispatcher: a substrate is given a URL that is good for this object alone.
    program = replace(job.program, data_url=presign(job.program.data_url, settings))
    request = ComputeRequest(program, job.id, max(1, int(deadline.remaining_s() * 1000)))
    started = deadline.clock()
    answer = substrate.invoke(request.to_wire())
    seconds = round(deadline.clock() - started, 6)
    error = None if answer["success"] else error_from_wire(answer["error"])
    attempts.append(
        {
            "substrate": substrate.capabilities.name,
            "ok": error is None,
            "error": None if error is None else {"type": error.type, "message": error.message},
            "seconds": seconds,
        }
    )
    if error is not None:
        raise error
    return answer
