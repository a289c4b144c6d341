"""The wire between a dispatcher and a substrate, version 1: ``POST /compute`` and its answer.

Requests are parsed strictly, since they are input. Answers are built here and nowhere else. One that came over a network
is input too: :func:`parse_answer` takes only what can be the answer to this very request, and :func:`error_from_wire`
turns a failure back into the exception that it was. The shapes are those of the JSON Schemas in ``remote/contract/``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from packetfs_compute.errors import Internal, JobError, error_class
from packetfs_compute.names import (
    DEFAULT_TIMEOUT_MS,
    MAX_ETAG_CHARS,
    MAX_INTEGER,
    MAX_JOB_ID_CHARS,
    MAX_RANGE_BYTES,
    MAX_TIMEOUT_MS,
    OPS,
    PROTOCOL,
)
from packetfs_compute.program import Op, Program, parse_program
from packetfs_compute.retry_after import MAX_RETRY_AFTER_S
from packetfs_compute.validation import STRONG_ETAG, bad, integer, require_object, show

__all__ = [
    "ComputeRequest",
    "JobId",
    "Measured",
    "error_from_wire",
    "failure",
    "job_id_of",
    "parse_answer",
    "parse_health",
    "parse_request",
    "success",
]

JobId = str | None

_JOB_ID: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_JOB_ID_CHARS}}}")
_REQUEST_FIELDS: Final = frozenset({"jobId", "program", "timeout"})
_ERROR_DETAILS: Final = ("field", "hint", "object_size", "retry_after_s")
"""The details that cross the wire. ``attempts`` and ``job_id`` are the dispatcher's to add."""
_CACHE: Final = ("HIT", "MISS", "PARTIAL", None)
_HEX64: Final = re.compile(r"[0-9a-f]{16}")
_ERROR_TYPE: Final = re.compile(r"[a-z_]{1,32}")
_NOT_A_SUBSTRATES: Final = frozenset({"bad_policy", "no_substrate", "cancelled"})
"""What only a dispatcher can find: from a substrate, it would end a job that another one could do."""
_MAX_TEXT_CHARS: Final = 64
_MAX_MESSAGE_CHARS: Final = 2000
_LARGEST: Final = 1e12
"""Any measurement beyond it, in milliseconds or MB, is nonsense."""


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
    cache: str | None = None
    """Where the bytes came from: ``HIT`` is all from a cache, ``PARTIAL`` some, ``MISS`` none; ``None`` is no cache."""


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
        "cache": measured.cache,
    }


def failure(job_id: JobId, error: JobError, execution_s: float) -> dict[str, Any]:
    """Return the answer to a request that was not computed, with the error's type, message and known details."""
    wire: dict[str, Any] = {"type": error.type, "message": error.message, "retryable": error.retryable}
    wire.update({key: error.details[key] for key in _ERROR_DETAILS if key in error.details})
    return {"success": False, "jobId": job_id, "error": wire, "executionTimeMs": _ms(execution_s)}


def parse_answer(raw: object, request: ComputeRequest) -> dict[str, Any]:
    """Return the answer in ``raw``, a JSON value from a place that is not to be trusted yet, with its known fields alone.

    Raises :class:`Internal`, naming the field, for anything that cannot be the answer to ``request``: other operations
    or another order, a value out of its range, other bytes than were asked for, another version, another job's id. (A
    failure may have no job id: a request that was refused may not have been read.) What a failure says is made fit to
    be shown: printable and bounded.
    """
    answer = _object(raw, "")
    job_id, succeeded = answer.get("jobId"), answer.get("success")
    if not isinstance(succeeded, bool):
        raise _untrusted("success", f"is {show(succeeded)}")
    if job_id != request.job_id and (succeeded or job_id is not None):
        raise _untrusted("jobId", f"is {show(job_id)}, not that of the request")
    parsed = _parse_success(answer, request) if succeeded else {"error": _parse_error(answer.get("error"))}
    took = _number(answer.get("executionTimeMs"), "executionTimeMs")
    return {"success": succeeded, "jobId": request.job_id, **parsed, "executionTimeMs": took}


def parse_health(raw: object) -> dict[str, Any]:
    """Return the ``GET /health`` answer in ``raw``, with its known fields alone; raise :class:`Internal` for no such."""
    health, where = _object(raw, ""), "limits"
    limits = _object(health.get(where), where)
    if (health.get("status"), health.get("protocol")) != ("healthy", PROTOCOL):
        raise _untrusted("status", f"is {show(health.get('status'))}, of protocol {show(health.get('protocol'))}")
    ops = health.get("ops")
    if not isinstance(ops, list) or not all(op in OPS for op in ops):
        raise _untrusted("ops", f"is {show(ops)}")
    texts = {key: _text(health.get(key), key) for key in ("version", "region", "kernel")}
    bounds = {
        key: _integer(limits.get(key), f"{where}.{key}", 1, MAX_INTEGER) for key in ("maxRangeBytes", "maxTimeoutMs")
    }
    return {"status": "healthy", "protocol": PROTOCOL, **texts, "ops": list(ops), where: bounds}


def error_from_wire(raw: Mapping[str, Any]) -> JobError:
    """Return the exception that an answer's ``error`` stands for; a type not known here becomes ``Internal``."""
    wire_type, said = raw.get("type"), raw.get("message")
    cls = error_class(wire_type) if isinstance(wire_type, str) else Internal
    details = {key: raw[key] for key in _ERROR_DETAILS if key in raw}
    if raw.get("retryable") is not None and bool(raw["retryable"]) is not cls.retryable_by_default:
        details["retryable"] = bool(raw["retryable"])
    message = said if isinstance(said, str) and said else "the substrate gave no message"
    unknown = isinstance(wire_type, str) and wire_type != cls.type
    return cls(f"{wire_type}: {message}" if unknown else message, details)


def _parse_success(answer: Mapping[str, Any], request: ComputeRequest) -> dict[str, Any]:
    program = request.program
    processed = _integer(answer.get("bytesProcessed"), "bytesProcessed", 0, MAX_RANGE_BYTES)
    size = answer.get("objectSize")
    if size is not None:
        size = _integer(size, "objectSize", program.offset + processed, MAX_INTEGER)
    wanted = size - program.offset if program.length is None and size is not None else program.length
    if wanted is not None and processed != wanted:
        raise _untrusted("bytesProcessed", f"is {processed}, where {wanted} bytes were asked for")
    results, cache, memory = answer.get("results"), answer.get("cache"), answer.get("memoryUsedMb")
    if not isinstance(results, list) or len(results) != len(program.ops):
        raise _untrusted("results", f"is {show(results)}, where {len(program.ops)} were asked for")
    if cache not in _CACHE:
        raise _untrusted("cache", f"is {show(cache)}")
    pairs = enumerate(zip(results, program.ops, strict=True))
    return {
        "results": [_parse_result(raw, op, processed, f"results[{at}]") for at, (raw, op) in pairs],
        "bytesProcessed": processed,
        "objectSize": size,
        "etag": _parse_etag(answer.get("etag"), program.etag),
        "fetchTimeMs": _number(answer.get("fetchTimeMs"), "fetchTimeMs"),
        "region": _text(answer.get("region"), "region"),
        "memoryUsedMb": None if memory is None else _number(memory, "memoryUsedMb"),
        "cache": cache,
    }


def _parse_result(raw: object, op: Op, processed: int, field: str) -> dict[str, Any]:
    """Return one entry of ``results``, which must be of ``op`` and possible over ``processed`` bytes."""
    result = _object(raw, field)
    value = result.get("value")
    if op.name == "fnv64":
        if not isinstance(value, str) or not _HEX64.fullmatch(value):
            raise _untrusted(f"{field}.value", f"is {show(value)}")
        rendered = op.render(int(value, 16))
    else:
        most = {"counteq": processed, "crc32c": 0xFFFFFFFF, "xor": 255, "add": 255 * processed}[op.name]
        rendered = op.render(_integer(value, f"{field}.value", 0, most))
    if {**result, "value": rendered["value"]} != rendered or isinstance(result.get("imm"), bool):
        raise _untrusted(field, f"is not of {op.name}, which was asked for there")
    if processed == 0 and rendered != op.render(op.identity):
        raise _untrusted(f"{field}.value", f"is {show(value)} of no bytes at all")
    return rendered


def _parse_etag(etag: object, pinned: str | None) -> str | None:
    if pinned is not None and etag != pinned:
        raise _untrusted("etag", f"is {show(etag)}, where {show(pinned)} was pinned")
    if etag is None:
        return None
    if not isinstance(etag, str) or len(etag) > MAX_ETAG_CHARS or not STRONG_ETAG.fullmatch(etag):
        raise _untrusted("etag", f"is {show(etag)}, which is no strong one")
    return etag


def _parse_error(raw: object) -> dict[str, Any]:
    error = _object(raw, "error")
    wire_type, message, retryable = error.get("type"), error.get("message"), error.get("retryable")
    if not isinstance(wire_type, str) or not _ERROR_TYPE.fullmatch(wire_type) or wire_type in _NOT_A_SUBSTRATES:
        raise _untrusted("error.type", f"is {show(wire_type)}")
    if not isinstance(message, str) or not message:
        raise _untrusted("error.message", f"is {show(message)}")
    if not isinstance(retryable, bool):
        raise _untrusted("error.retryable", f"is {show(retryable)}")
    parsed: dict[str, Any] = {"type": wire_type, "message": _shown(message), "retryable": retryable}
    for key in ("field", "hint"):
        if key in error:
            if not isinstance(error[key], str):
                raise _untrusted(f"error.{key}", f"is {show(error[key])}")
            parsed[key] = _shown(error[key])
    if "object_size" in error:
        parsed["object_size"] = _integer(error["object_size"], "error.object_size", 0, MAX_INTEGER)
    if "retry_after_s" in error:
        parsed["retry_after_s"] = min(_number(error["retry_after_s"], "error.retry_after_s"), MAX_RETRY_AFTER_S)
    return parsed


def _object(raw: object, field: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise _untrusted(field, f"is {show(raw)}")
    return raw


def _integer(raw: object, field: str, low: int, high: int) -> int:
    try:
        return integer(raw, field, low, high)
    except JobError:
        raise _untrusted(field, f"is {show(raw)}, not an integer from {low} to {high}") from None


def _number(raw: object, field: str) -> float:
    """Return a measurement: finite (NaN is in no range), and not below zero."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 0 <= raw <= _LARGEST:
        raise _untrusted(field, f"is {show(raw)}")
    return raw


def _text(raw: object, field: str) -> str:
    if not isinstance(raw, str) or len(raw) > _MAX_TEXT_CHARS or not raw.isprintable():
        raise _untrusted(field, f"is {show(raw)}")
    return raw


def _shown(text: str) -> str:
    """Return a stranger's text fit for a terminal and a log: in one line, without control characters, bounded."""
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_MESSAGE_CHARS])


def _untrusted(field: str, problem: str) -> Internal:
    return Internal(
        f"the substrate's answer cannot be trusted: {field or 'it'} {problem}", {"field": f"answer.{field}".strip(".")}
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
