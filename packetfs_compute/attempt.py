"""What an attempt that has ended teaches the fleet: what it cost, how long it took, and whether its place is to blame."""

from collections.abc import Mapping
from typing import Any

from packetfs_compute.errors import AttemptTimeout, JobError, TooLarge
from packetfs_compute.routing import Capabilities, Outcome, Wanted, attempt_usd
from packetfs_compute.routing.decide import UNKNOWN_BYTES
from packetfs_compute.routing.egress import usd_per_byte
from packetfs_compute.routing.estimate import surprise_of
from packetfs_compute.routing.recovery import attempt_budget_s

__all__ = ["outcome_of"]


def outcome_of(
    place: Capabilities,
    wanted: Wanted,
    ended: Mapping[str, Any] | JobError,
    seconds: float,
    expected_s: float,
    budget_s: float,
    jitter: float,
) -> Outcome:
    """Return what is learnt of an attempt at ``place`` that gave an answer, or an error.

    It took ``seconds``, was expected to take ``expected_s``, and might have taken ``budget_s``. A breaker that it opens
    stays open ``jitter`` times as long as the rule has it.
    """
    error = ended if isinstance(ended, JobError) else None
    byte_count = 0 if isinstance(ended, JobError) else int(ended["bytesProcessed"])
    usd = attempt_usd(place.prices, place.memory_mb, byte_count, seconds)
    if wanted.byte_count is None:  # the estimate was of a guess, and what was found may be a thousand times that
        expected_s *= max(1.0, byte_count / UNKNOWN_BYTES)
    return Outcome(
        ok=error is None,
        substrate_fault=error is not None and _blames(error, wanted, budget_s, expected_s),
        byte_count=byte_count,
        seconds=seconds,
        surprise_s=surprise_of(expected_s, seconds) if error is None else 0.0,
        cost_usd=usd + usd_per_byte(place, wanted.source) * byte_count,
        retry_after_s=_retry_after_s(error),
        jitter=jitter,
    )


def _blames(error: JobError, wanted: Wanted, budget_s: float, expected_s: float) -> bool:
    """Whether an attempt that ended with ``error`` says that its place is not well."""
    if isinstance(error, AttemptTimeout):
        # Not when it was given less time than it needs, nor when nobody knows how much it needs.
        return wanted.byte_count is not None and budget_s >= attempt_budget_s(budget_s + 1, expected_s, (), True)
    return error.fault == "substrate" and not isinstance(error, TooLarge)  # that was the job's size


def _retry_after_s(error: JobError | None) -> float:
    asked = error.details.get("retry_after_s") if error is not None and error.fault == "substrate" else None
    return float(asked) if isinstance(asked, (int, float)) and asked > 0 else 0.0
