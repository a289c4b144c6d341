"""What a caller gets back: the values, and everything that is known about how they came to be."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from packetfs_compute.program import Program

__all__ = ["Attempt", "JobResult", "Timing", "job_result", "op_result"]


class AttemptError(TypedDict):
    """Why an attempt failed: a type of :mod:`packetfs_compute.errors`, and one line for a person."""

    type: str
    message: str


class Attempt(TypedDict):
    """One try on one substrate; ``error`` is ``None`` when ``ok``."""

    substrate: str
    ok: bool
    error: AttemptError | None
    seconds: float


class Timing(TypedDict):
    """Where a job's time went. ``queued_s`` is ``None`` when the publisher did not say when it published."""

    queued_s: float | None
    fetch_s: float
    compute_s: float
    total_s: float


class OpValue(TypedDict):
    """One operation's exact value: 16 hex digits for ``fnv64``, an integer for every other."""

    op: str
    imm: NotRequired[int]
    value: int | str


class JobResult(TypedDict):
    """A finished job. ``length`` is what was asked for, ``bytes_processed`` what the values are of; sizes are bytes.

    ``cached``: its values were known, so that nothing was read; ``substrate`` and ``region`` are where they were computed.
    """

    results: list[OpValue]
    job_id: str
    data_url: str
    offset: int
    length: int | None
    bytes_processed: int
    object_size: int | None
    etag: str | None
    substrate: str
    region: str
    attempts: list[Attempt]
    cost_usd: float
    cached: bool
    timing: Timing


def job_result(
    job_id: str,
    program: Program,
    answer: Mapping[str, Any],
    attempts: list[Attempt],
    *,
    cost_usd: float,
    queued_s: float | None,
    total_s: float,
    cached_from: str | None = None,
) -> JobResult:
    """Return the result of a job whose last attempt gave ``answer``, a successful response of the wire.

    ``cached_from``: no attempt did; its values were known, and were computed on that substrate.
    """
    fetch_s = answer["fetchTimeMs"] / 1000
    return {
        "results": answer["results"],
        "job_id": job_id,
        "data_url": program.data_url,
        "offset": program.offset,
        "length": program.length,
        "bytes_processed": answer["bytesProcessed"],
        "object_size": answer["objectSize"],
        "etag": answer["etag"],
        "substrate": attempts[-1]["substrate"] if cached_from is None else cached_from,
        "region": answer["region"],
        "attempts": attempts,
        "cost_usd": cost_usd,
        "cached": cached_from is not None,
        "timing": {
            "queued_s": queued_s,
            "fetch_s": round(fetch_s, 6),
            "compute_s": round(max(0.0, answer["executionTimeMs"] / 1000 - fetch_s), 6),
            "total_s": round(total_s, 6),
        },
    }


def op_result(result: JobResult) -> dict[str, Any]:
    """Return a one-operation result in the flat shape of the op tasks: ``{"op", "value", "imm"?, …meta}``."""
    (value,) = result["results"]
    return {**value, **{key: item for key, item in result.items() if key != "results"}}
