"""How a job stands: what is accepted as one, and what is told of it by what Redis keeps under its id. Pure.

The desk asks Redis by redis-py and publishes by Celery; the hatch does both by itself. What they accept and tell is this.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from packetfs_compute.broker.outcome import JobStatus, Outcome, State, known_record, outcome, progress_of
from packetfs_compute.errors import JobError
from packetfs_compute.job import Job, accept_job
from packetfs_compute.names import (
    JOB_STATE,
    JOBS_KNOWN,
    JOBS_RESULTS,
    LEDGER_LEASES,
    LEDGER_OPEN,
    MAX_JOB_ID_CHARS,
    MAX_PRIORITY,
    SCAN_TASK,
    task_of,
)
from packetfs_compute.routing import Policy
from packetfs_compute.scanning.request import checked_window
from packetfs_compute.validation import bad, integer, show
from packetfs_compute.wire import job_id_of

__all__ = [
    "PROGRAM_TASK",
    "Accepted",
    "Seen",
    "Submission",
    "accepted",
    "check_job_id",
    "seen_of",
    "standing",
    "standing_again",
    "status_of",
]

PROGRAM_TASK: Final = task_of("program")
_ANY: Final = Policy()


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
class Accepted:
    """A submission that is a job. ``policy`` holds its wishes, ``None`` where there is none."""

    job: Job
    task: str
    asked: dict[str, Any]
    """The task's arguments but for the policy."""
    policy: dict[str, Any] | None
    priority: int
    record: str
    window_of: str | None

    @property
    def arguments(self) -> dict[str, Any]:
        """The task's keyword arguments."""
        return {**self.asked, "policy": self.policy}

    def claim(self, result_ttl_s: int) -> tuple[list[str], list[Any]]:
        """Return the keys and arguments of the script ``claim``."""
        job_id = self.job.id
        keys = [JOBS_KNOWN + job_id, JOBS_RESULTS + job_id, JOB_STATE + job_id, LEDGER_OPEN, LEDGER_LEASES]
        # Twice as long: a job may be open for as long as its result is kept after that.
        return keys, [job_id, self.record, 2 * result_ttl_s]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of an id. ``open`` and ``lease`` are scores in the ledger, ``now`` is the server's time."""

    known: bytes | None
    meta: bytes | None
    open: float | None
    lease: float | None
    now: float


def accepted(one: Submission, now: float) -> Accepted | JobError:
    """Return a submission as a job that was submitted ``now``, Unix seconds, or why it is none."""
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
    return Accepted(job, SCAN_TASK if one.scan else PROGRAM_TASK, asked, policy, priority, record, one.window_of)


def check_job_id(job_id: object) -> str:
    """Return a job's id; raise :class:`BadProgram` for what is none."""
    if not isinstance(job_id, str) or job_id_of({"jobId": job_id}) is None:
        raise bad("job_id", f"is {show(job_id)}", f"use 1 to {MAX_JOB_ID_CHARS} of A-Z a-z 0-9 . _ : -")
    return job_id


def standing_again(one: Accepted, seen: Seen) -> JobStatus | JobError:
    """Return how a job stands that was submitted before, or the refusal where the id stands for another."""
    if seen.known is None:
        return bad("job_id", "is taken by a job that was submitted otherwise", "choose another")
    if json.loads(seen.known)["fingerprint"] != json.loads(one.record)["fingerprint"]:
        return bad("job_id", "is taken by a job with another program or policy", "choose another")
    status = standing(one.job.id, seen)
    return status or bad("job_id", "is taken by a task that is no job", "choose another")


def standing(job_id: str, seen: Seen) -> JobStatus | None:
    """Return how a job stands by what is kept of it; ``None`` where that is nothing, or nothing of ours."""
    if seen.meta is not None:
        meta = json.loads(seen.meta)
        ended = outcome(meta)
        if ended is not None:
            return status_of(job_id, seen, ended["status"], ended)
    if seen.open is None:
        return None
    running = seen.lease is not None and seen.lease > seen.now
    status = status_of(job_id, seen, "running" if running else "queued")
    told = progress_of(json.loads(seen.meta)) if seen.meta is not None else None
    if told is not None:
        status["progress"] = told
    return status


def status_of(job_id: str, seen: Seen, state: State, ended: Outcome | None = None) -> JobStatus:
    """Return a job as being in ``state``, or as ended so."""
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


def seen_of(known: bytes | None, meta: bytes | None, due: Any, lease: Any, now: Any) -> Seen:
    """Return what Redis told of an id, as it told it."""
    return Seen(known, meta, _score(due), _score(lease), float(now))


def _score(raw: Any) -> float | None:
    return None if raw is None else float(raw)


def _wishes(policy: Policy) -> dict[str, Any] | None:
    """Return a policy as JSON: what it says other than the default."""
    if policy == _ANY:
        return None
    default = asdict(_ANY)
    said = {name: value for name, value in asdict(policy).items() if value != default[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
