"""How a job stands, as the desk tells it: what Celery keeps of a task, made into plain JSON. Functions here are pure.

Of a job that came in by the desk, two more keys are kept (:mod:`packetfs_compute.names`): ``known`` holds what was asked,
and ``results`` how it ended, for whoever has nothing but a Redis client. The script that stores a result makes the latter of
the former: ``known`` begins with the fingerprint, and the rest of it is taken over as it stands.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from packetfs_compute import errors
from packetfs_compute.errors import Internal, JobError
from packetfs_compute.result import JobResult

__all__ = [
    "PROGRESS",
    "ErrorInfo",
    "JobStatus",
    "Outcome",
    "State",
    "error_info",
    "fingerprint_of",
    "known_record",
    "outcome",
    "progress_of",
]

State = Literal["queued", "running", "done", "failed", "cancelled"]

_SUCCESS: Final = "SUCCESS"
_REVOKED: Final = "REVOKED"
_FAILURE: Final = "FAILURE"
PROGRESS: Final = "PROGRESS"
"""Celery's name, by custom, of a task's state that tells how far it is."""
_MAX_MESSAGE_CHARS: Final = 2000
_SHOWN: Final = ("field", "hint", "attempts")


class ErrorInfo(TypedDict):
    """Why a job has no value: a type of :mod:`packetfs_compute.errors` or ``cancelled``, and one line for a person."""

    type: str
    message: str
    field: NotRequired[str]
    hint: NotRequired[str]
    attempts: NotRequired[list[dict[str, Any]]]


class JobStatus(TypedDict):
    """How a job stands. What was asked is ``None`` for a job that did not come in by the desk. Times are Unix seconds.

    ``progress`` is there while a scan runs (:class:`packetfs_compute.scanning.tally.Progress`).
    """

    job_id: str
    status: State
    submitted_at: float | None
    program: dict[str, Any] | None
    policy: dict[str, Any] | None
    result: JobResult | None
    error: ErrorInfo | None
    progress: NotRequired[dict[str, Any]]


class Outcome(TypedDict):
    """The part of a status that a result decides."""

    status: State
    result: JobResult | None
    error: ErrorInfo | None


def fingerprint_of(program: Mapping[str, Any], policy: Mapping[str, Any] | None) -> str:
    """Return what tells one job from another under the same id."""
    return hashlib.sha256(json.dumps([program, policy], sort_keys=True).encode()).hexdigest()


def known_record(program: Mapping[str, Any], policy: Mapping[str, Any] | None, submitted_at: float) -> str:
    """Return what is kept of a job that came in. The fingerprint stands first: scripts look for it there."""
    fingerprint = fingerprint_of(program, policy)
    return json.dumps({"fingerprint": fingerprint, "submitted_at": submitted_at, "program": program, "policy": policy})


def error_info(error: JobError) -> ErrorInfo:
    """Return an error as a status shows it."""
    shown = {name: error.details[name] for name in _SHOWN if error.details.get(name)}
    return cast("ErrorInfo", {"type": error.type, "message": error.message[:_MAX_MESSAGE_CHARS], **shown})


def outcome(meta: Mapping[str, Any]) -> Outcome | None:
    """Return how a task ended of which Celery keeps ``meta``; ``None`` for one that has not, or that is no job of ours."""
    status, result = meta.get("status"), meta.get("result")
    if status == _SUCCESS:
        done = _job_result(result)
        return None if done is None else {"status": "done", "result": done, "error": None}
    if status == _REVOKED:
        reason = _text(result) or "the job was revoked"
        return {"status": "cancelled", "result": None, "error": {"type": "cancelled", "message": reason}}
    if status == _FAILURE:
        return {"status": "failed", "result": None, "error": _failure(result)}
    return None


def progress_of(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how far a scan is of which Celery keeps ``meta``; ``None`` where that is another state."""
    told = meta.get("result")
    return dict(told) if meta.get("status") == PROGRESS and isinstance(told, Mapping) else None


def _job_result(raw: object) -> JobResult | None:
    """Return the result of a program; one of a single operation's task is lifted into that shape."""
    if not isinstance(raw, Mapping) or "job_id" not in raw:
        return None
    if isinstance(raw.get("results"), list):
        return cast("JobResult", dict(raw))
    if "op" not in raw or "value" not in raw:
        return None
    value = {name: raw[name] for name in ("op", "imm", "value") if name in raw}
    return cast("JobResult", {"results": [value], **{name: raw[name] for name in raw if name not in value}})


def _failure(raw: object) -> ErrorInfo:
    """Return the error that Celery keeps of an exception: ``{"exc_type", "exc_module", "exc_message": args}``."""
    if not isinstance(raw, Mapping):
        return {"type": Internal.type, "message": "the job failed, and nothing is kept of why"}
    name, args = raw.get("exc_type"), raw.get("exc_message")
    found = getattr(errors, name, None) if raw.get("exc_module") == errors.__name__ and isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, JobError) and found is not JobError:
        match args:
            case [str() as message, dict() as details]:
                return error_info(found(message, details))
    return {"type": Internal.type, "message": f"{name}: {_text(raw)}"[:_MAX_MESSAGE_CHARS]}


def _text(raw: object) -> str:
    args = raw.get("exc_message") if isinstance(raw, Mapping) else None
    parts = args if isinstance(args, (list, tuple)) else [args]
    return " ".join(" ".join(str(part).split()) for part in parts if part)[:_MAX_MESSAGE_CHARS]
