"""The wire between a dispatcher and a substrate, version 1: ``POST /compute`` and its answer.

Requests are parsed strictly, since they are input. Answers are built here and nowhere else, and
:func:`error_from_wire` turns a failure back into the exception that it was. The shapes are those of the
JSON Schemas in ``remote/contract/``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from packetfs_compute.errors import JobError, error_class
from packetfs_compute.names import DEFAULT_TIMEOUT_MS, MAX_JOB_ID_CHARS, MAX_TIMEOUT_MS
from packetfs_compute.program import Program, parse_program
from packetfs_compute.validation import bad, integer, require_object, show

__all__ = [
    "ComputeRequest",
    "JobId",
    "Measured",
    "error_from_wire",
    "failure",
    "job_id_of",
    "parse_request",
    "success",
]

JobId = str | None

_JOB_ID: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_JOB_ID_CHARS}}}")
_REQUEST_FIELDS: Final = frozenset({"jobId", "program", "timeout"})
_ERROR_DETAILS: Final = ("field", "hint", "object_size", "retry_after_s")
"""The details that cross the wire. ``attempts`` and ``job_id`` are the dispatcher's to add."""


@dataclass(frozen=True, slots=True)
class ComputeRequest:
    """One attempt as a substrate receives it. ``timeout_ms`` bounds all of it, the source's slowness included."""

    program: Program
    job_id: JobId = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS

    def to_wire(self) -> dict[str, Any]:
        """Return the request as JSON."""
        wire: dict[str, Any] = {"program": self.program.to_wire(), "timeout": self.timeout_ms}
        if self.job_id is not None:
            wire["jobId"] = self.job_id
        return wire


@dataclass(frozen=True, slots=True)
class Measured:
    """What one attempt read and took, in wall-clock seconds; ``fetch_s`` is the part spent waiting for the source."""

    bytes_processed: int
    object_size: int | None
    etag: str | None
    execution_s: float
    fetch_s: float
    region: str
    memory_used_mb: int | None = None


def parse_request(raw: object) -> ComputeRequest:
    """Return the request in ``raw``, a JSON object; raise ``BadProgram`` naming the field."""
    fields = require_object(raw, "request", _REQUEST_FIELDS)
    job_id = fields.get("jobId")
    if job_id is not None and job_id_of(raw) is None:
        raise bad("request.jobId", f"is {show(job_id)}", f"use 1 to {MAX_JOB_ID_CHARS} of A-Z a-z 0-9 . _ : -")
    timeout = fields.get("timeout")
    return ComputeRequest(
        program=parse_program(fields.get("program")),
        job_id=job_id,
        timeout_ms=DEFAULT_TIMEOUT_MS if timeout is None else integer(timeout, "request.timeout", 1, MAX_TIMEOUT_MS),
    )


def job_id_of(raw: object) -> JobId:
    """Return the job id of a request that may be malformed elsewhere, so that even its refusal can name the job."""
    job_id = raw.get("jobId") if isinstance(raw, Mapping) else None
    return job_id if isinstance(job_id, str) and _JOB_ID.fullmatch(job_id) else None


def success(request: ComputeRequest, values: list[int], measured: Measured) -> dict[str, Any]:
    """Return the answer to a request that was computed; ``values`` are in the order of its ops."""
    return {
        "success": True,
        "jobId": request.job_id,
        "results": [op.render(value) for op, value in zip(request.program.ops, values, strict=True)],
        "bytesProcessed": measured.bytes_processed,
        "objectSize": measured.object_size,
        "etag": measured.etag,
        "executionTimeMs": _ms(measured.execution_s),
        "fetchTimeMs": _ms(measured.fetch_s),
        "region": measured.region,
        "memoryUsedMb": measured.memory_used_mb,
    }


def failure(job_id: JobId, error: JobError, execution_s: float) -> dict[str, Any]:
    """Return the answer to a request that was not computed, with the error's type, message and known details."""
    wire: dict[str, Any] = {"type": error.type, "message": error.message, "retryable": error.retryable}
    wire.update({key: error.details[key] for key in _ERROR_DETAILS if key in error.details})
    return {"success": False, "jobId": job_id, "error": wire, "executionTimeMs": _ms(execution_s)}


def error_from_wire(raw: Mapping[str, Any]) -> JobError:
    """Return the exception that an answer's ``error`` stands for; a type not known here becomes ``Internal``."""
    wire_type = str(raw.get("type"))
    cls = error_class(wire_type)
    details = {key: raw[key] for key in _ERROR_DETAILS if key in raw}
    if raw.get("retryable") is not None and bool(raw["retryable"]) is not cls.retryable_by_default:
        details["retryable"] = bool(raw["retryable"])
    message = str(raw.get("message", "the substrate gave no message"))
    return cls(message if cls.type == wire_type else f"{wire_type}: {message}", details)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
