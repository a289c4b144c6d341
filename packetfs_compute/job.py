"""A job as it goes from attempt to attempt: what was asked, and the trail of what has been tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from packetfs_compute.errors import BadPolicy, JobError, error_class
from packetfs_compute.presigned import is_presigned
from packetfs_compute.program import Program, parse_program
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Policy, Wanted, locality, parse_policy
from packetfs_compute.routing.recovery import MAX_ATTEMPTS, Failed
from packetfs_compute.settings import Settings
from packetfs_compute.validation import bad

__all__ = ["Job", "Trail", "accept_job", "wanted_for"]

_SCHEMES: Final = frozenset({"http", "https", "s3", "file"})
_LATEST_UNIX_S: Final = 1e11
_MAX_MESSAGE_CHARS: Final = 300


@dataclass(slots=True)
class Trail:
    """What a job's attempts have done so far. It grows with each, and travels in the message's headers."""

    attempts: list[Attempt] = field(default_factory=list)
    spent_usd: float = 0.0
    moves: int = 0
    """How often the job was moved on without an attempt."""
    waited: bool = False
    """Whether it has waited for its turn on a place that failed it before."""
    queued_s: float | None = None
    """How long it waited for its first attempt."""
    failed: list[Failed] = field(default_factory=list)

    def add(self, substrate: str, error: JobError | None, seconds: float, cost_usd: float) -> Attempt:
        """Add one attempt and return it as results show it."""
        self.spent_usd += cost_usd
        told = None
        if error is not None:
            told = {"type": error.type, "message": error.message[:_MAX_MESSAGE_CHARS]}
        attempt: Attempt = {"substrate": substrate, "ok": error is None, "error": told, "seconds": seconds}  # type: ignore[typeddict-item]
        self.attempts.append(attempt)
        return attempt

    def failed_places(self) -> set[str]:
        """Return the places that failed the job by their own fault."""
        return {one.substrate for one in self.failed if one.fault == "substrate"}

    def last_error(self) -> JobError | None:
        """Return what the last attempt ended with, when it failed."""
        error = self.attempts[-1]["error"] if self.attempts else None
        return None if error is None else error_class(error["type"])(error["message"])

    def to_header(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "attempts": self.attempts,
            "spent_usd": self.spent_usd,
            "moves": self.moves,
            "waited": self.waited,
            "queued_s": self.queued_s,
            "final": sorted({one.substrate for one in self.failed if one.final}),
        }

    @classmethod
    def from_header(cls, raw: object) -> "Trail":
        """Return the trail of a header; what makes no sense in it is as good as absent."""
        if not isinstance(raw, Mapping):
            return cls()
        attempts = [one for one in _list(raw.get("attempts")) if _is_attempt(one)][:MAX_ATTEMPTS]
        final = _list(raw.get("final"))
        failed = [
            Failed(where, error["type"], error_class(error["type"]).fault, where in final)
            for where, error in ((one["substrate"], one["error"]) for one in attempts)
            if error is not None
        ]
        return cls(
            attempts=attempts,
            spent_usd=_measured(raw.get("spent_usd")) or 0.0,
            moves=int(_measured(raw.get("moves")) or 0),
            waited=raw.get("waited") is True,
            queued_s=_measured(raw.get("queued_s")),
            failed=failed,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A program with its policy and id. ``submitted_at`` is the publisher's wall clock in Unix seconds, when known."""

    id: str
    program: Program
    policy: Policy
    submitted_at: float | None = None
    trail: Trail = field(default_factory=Trail)
    window_of: str | None = None
    """The scan that it is a window of."""

    def queued_s(self, wall: float) -> float | None:
        """Return how long ago it was submitted; two hosts' clocks must not make that less than nothing."""
        return None if self.submitted_at is None else max(0.0, round(wall - self.submitted_at, 6))


def wanted_for(
    url: str, byte_count: int | None, settings: Settings, *, spent_s: float = 0.0, spent_usd: float = 0.0
) -> Wanted:
    """Return what of a job its place depends on: of its URL the scheme, where the source stands, and what it gives away.

    A scheme that no place reads is taken for https: the attempt gives it its typed error.
    """
    scheme = "file" if url.startswith("/") else url.partition(":")[0].lower()
    where = locality(url, settings.egress, settings.s3_region, settings.s3_endpoint_url)
    known = scheme if scheme in _SCHEMES else "https"
    return Wanted(byte_count, known, where, spent_s, spent_usd, secret=known == "s3" or is_presigned(url))


def accept_job(
    job_id: str,
    raw_program: object,
    raw_policy: object,
    raw_submitted_at: object = None,
    raw_trail: object = None,
    *,
    scan: bool = False,
    window_of: object = None,
) -> Job:
    """Return the job of a program and a policy as JSON; raise the ``JobError`` that names what is wrong with them.

    ``scan``: it is to be split into windows. A submission time or a trail that makes no sense is as good as none: they are
    headers, not the caller's input.
    """
    trail = Trail.from_header(raw_trail)
    try:
        program, policy = parse_program(raw_program), parse_policy(raw_policy)
        if policy.append_only:
            _check_append_only(program.data_url, scan=scan)
        whose = window_of if isinstance(window_of, str) else None
        return Job(job_id, program, policy, _moment(raw_submitted_at), trail, whose)
    except JobError as error:
        error.details.update(job_id=job_id, attempts=trail.attempts)
        raise


def _check_append_only(url: str, *, scan: bool) -> None:
    if not scan:
        raise bad("policy.append_only", "is for scans alone", "leave it out, or scan the object", BadPolicy)
    if url.partition("://")[0].lower() not in ("http", "https", "s3"):
        raise bad(
            "policy.append_only", "is of objects whose values are kept, and a local file's are not",
            "leave it out, or give its URL (http, https, s3)", BadPolicy,
        )  # fmt: skip


def _moment(raw: object) -> float | None:
    number = _number(raw)
    return number if number is not None and abs(number) < _LATEST_UNIX_S else None


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not -1e300 < raw < 1e300:
        return None
    return float(raw)


def _measured(raw: object) -> float | None:
    """Return a number that is not below zero: a negative one would lift the cap on cost, or the bound on moves."""
    number = _number(raw)
    return None if number is None or number < 0 else number


def _list(raw: object) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _is_attempt(raw: object) -> bool:
    if not isinstance(raw, Mapping) or set(raw) != {"substrate", "ok", "error", "seconds"}:
        return False
    error = raw["error"]
    told = error is None or (
        isinstance(error, Mapping)
        and set(error) == {"type", "message"}
        and all(isinstance(v, str) for v in error.values())
    )
    return (
        told
        and raw["ok"] is (error is None)
        and isinstance(raw["substrate"], str)
        and _measured(raw["seconds"]) is not None
    )
