"""A job that has ended, as the journal tells of it: bounded in every part, and without the secrets that URLs carry.

A presigned URL's query lets anyone read the object, and its user information is a password; whoever may look at the
dashboard need not be one who may read the source.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from packetfs_compute.dispatch import Course
from packetfs_compute.errors import JobError
from packetfs_compute.job import Job
from packetfs_compute.names import MAX_JOB_ID_CHARS
from packetfs_compute.program import Program
from packetfs_compute.routing import Candidate, Decision
from packetfs_compute.routing.recovery import MAX_ATTEMPTS

__all__ = ["Ended", "EndedScan", "about", "shown", "without_secrets"]

_MAX_URL_CHARS: Final = 500
_MAX_MESSAGE_CHARS: Final = 300
_MAX_NAME_CHARS: Final = 64
_MAX_ROWS: Final = 16
"""Of a decision's table: of a larger fleet, the place that was chosen and the best of the others."""
_OF_SCANS: Final = ("bytes_processed", "windows", "window", "cached_bytes", "appended_to", "hedges")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s'\"<>]+")


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that ended at ``at`` (Unix seconds) at ``substrate``, and how it came to be there."""

    job: Job
    substrate: str
    error: JobError | None
    at: float
    course: Course

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        job = self.job
        return {
            **about(job.id, job.program),
            "at": round(self.at, 3),
            "status": "done" if self.error is None else "failed",
            "error": None if self.error is None else _error(self.error.type, self.error.message),
            "substrate": self.substrate,
            "cost_usd": _short(job.trail.spent_usd),
            "cached": self.course.cached,
            "total_s": _short(self.course.total_s),
            "attempts": [_attempt(one) for one in job.trail.attempts[-MAX_ATTEMPTS:]],
            "decision": _decision(self.course.decision, self.course.decided_at),
            "window_of": None if job.window_of is None else job.window_of[:MAX_JOB_ID_CHARS],
            "scan": None,
        }

    def to_json(self) -> str:
        """Return it on one line."""
        return _line(self.document())


@dataclass(frozen=True, slots=True)
class EndedScan:
    """A scan that ended at ``at`` (Unix seconds) with a result, or an error; its windows are jobs of their own."""

    job_id: str
    program: Program
    result: Mapping[str, Any] | None
    error: JobError | None
    at: float
    total_s: float

    def document(self) -> dict[str, Any]:
        """Return it as JSON, as a job's is."""
        result = self.result or {}
        attempts: Sequence[Mapping[str, Any]] = (
            result.get("attempts", []) if self.error is None else self.error.attempts
        )
        return {
            **about(self.job_id, self.program),
            "at": round(self.at, 3),
            "status": "done" if self.error is None else "failed",
            "error": None if self.error is None else _error(self.error.type, self.error.message),
            "substrate": result.get("substrate"),
            "cost_usd": _short(result["cost_usd"]) if result else None,
            "cached": result.get("cached", False),
            "total_s": _short(self.total_s),
            "attempts": [_attempt(one) for one in attempts[-MAX_ATTEMPTS:]],
            "decision": None,
            "window_of": None,
            "scan": {name: result.get(name) for name in _OF_SCANS},
        }

    def to_json(self) -> str:
        """Return it on one line."""
        return _line(self.document())


def about(job_id: str, program: Program) -> dict[str, Any]:
    """Return what is told of what was asked."""
    ops = program.ops
    return {
        "job_id": job_id[:MAX_JOB_ID_CHARS],
        "op": ops[0].name if len(ops) == 1 else "program",
        "data_url": _cut(without_secrets(program.data_url), _MAX_URL_CHARS),
        "length": program.length,
    }


def _attempt(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "substrate": one["substrate"][:_MAX_NAME_CHARS],
        "ok": one["ok"],
        "error": None if one["error"] is None else _error(one["error"]["type"], one["error"]["message"]),
        "seconds": _short(one["seconds"]),
    }


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def without_secrets(url: str) -> str:
    """Return a URL less its query, its fragment and its user information; whatever is no URL comes back likewise cut."""
    base = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, separator, rest = base.partition("://")
    if not separator:
        return base
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def shown(message: str) -> str:
    """Return an error's message for many eyes."""
    return _cut(_URL.sub(lambda found: without_secrets(found[0]), message), _MAX_MESSAGE_CHARS)


def _error(kind: str, message: str) -> dict[str, str]:
    return {"type": kind[:_MAX_NAME_CHARS], "message": shown(message)}


def _decision(decision: Decision | None, at: float) -> dict[str, Any] | None:
    if decision is None:
        return None
    rows = decision.candidates
    if len(rows) > _MAX_ROWS:
        best = sorted(rows, key=lambda row: (row.substrate != decision.substrate, row.veto is not None, row.score))
        rows = tuple(best[:_MAX_ROWS])
    return {
        "substrate": decision.substrate,
        "panic": decision.panic,
        "at": round(at, 3),
        "candidates": [_row(row) for row in rows],
    }


def _row(row: Candidate) -> dict[str, Any]:
    return {name: _short(value) if isinstance(value, float) else value for name, value in row._asdict().items()}


def _short(number: float) -> float | None:
    """Return a number to six digits, which is more than is known of it; ``None`` for what JSON cannot say."""
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
