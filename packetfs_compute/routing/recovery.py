"""What follows a failed attempt: by whose fault it was, and by what is left of the job's deadline.

========== ==================================================================================================
fault      what follows
========== ==================================================================================================
program    the job fails at once: no place and no later time would help
source     the same place again after a wait with full jitter, where the error may pass and the retry budget
           allows it; not before the source's Retry-After
substrate  the best place that has not failed it yet, at once; when all have, the best of them after a wait, not
           before its Retry-After
========== ==================================================================================================

Nothing begins that cannot end: a wait that reaches past the deadline fails the job now, with the error that it had.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from packetfs_compute.errors import JobError
from packetfs_compute.routing.backoff import full_jitter_s
from packetfs_compute.routing.decide import Decision

__all__ = ["MAX_ATTEMPTS", "Again", "Failed", "after_failure", "attempt_budget_s", "may_retry"]

MAX_ATTEMPTS: Final = 12
"""Most attempts of one job, over all places."""
MAX_SOURCE_TRIES: Final = 4
LEAST_ATTEMPT_S: Final = 3.0
_PATIENCE: Final = 8.0
"""How many times its estimate an attempt may take before another place is tried, if there is one."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One failed attempt: where, the error type that it ended with, and its fault."""

    substrate: str
    type: str
    fault: str
    final: bool = False
    """Whether the same place would say the same again."""


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt: on ``substrate``, not before ``delay_s`` from now."""

    substrate: str
    delay_s: float = 0.0


def may_retry(error: JobError, failed: Sequence[Failed]) -> bool:
    """Whether the job would try the same place again after ``error``, which then costs the retry budget."""
    if error.fault == "program" or len(failed) >= MAX_ATTEMPTS:
        return False
    return error.fault == "substrate" or (error.retryable and _count(failed, "source") < MAX_SOURCE_TRIES)


def after_failure(
    error: JobError,
    failed: Sequence[Failed],
    remaining_s: float,
    choose: Callable[[Collection[str]], Decision],
    granted: bool,
    random: Callable[[], float],
) -> Again | None:
    """Return what to try after ``error``, the last of the attempts in ``failed``; ``None`` is to give up.

    ``choose`` decides anew, without the places that it is given; ``granted`` is the retry budget's answer.
    """
    if not may_retry(error, failed):
        return None
    last = failed[-1].substrate
    if error.fault == "source":
        wait_s = _wait_s(error, _count(failed, "source"), random)
        return Again(last, wait_s) if granted and wait_s < remaining_s else None
    tried = {one.substrate for one in failed if one.fault == "substrate"}
    other = choose(tried).substrate
    if other is not None:
        return Again(other)
    best = choose({one.substrate for one in failed if one.final}).substrate
    if best is None:
        return None
    # All have failed. The budget does not fail a job that no place has had a fair chance at; it spaces the tries out.
    wait_s = _wait_s(error, len(failed) if granted else len(failed) + 4, random)
    return Again(best, wait_s) if wait_s < remaining_s else None


def attempt_budget_s(remaining_s: float, expected_s: float, failed: Sequence[Failed], alternatives: bool) -> float:
    """Return how long an attempt may take: all that remains, or less where another place could have a turn then.

    Each attempt that ran out of time gives the next one twice as much, so that a source that is slow everywhere gets it.
    """
    if not alternatives:
        return remaining_s
    timeouts = sum(one.type == "timeout" for one in failed)
    return float(min(remaining_s, max(LEAST_ATTEMPT_S, _PATIENCE * expected_s) * 2 ** min(timeouts, 16)))


def _wait_s(error: JobError, tries: int, random: Callable[[], float]) -> float:
    asked = error.details.get("retry_after_s")
    asked_s = float(asked) if isinstance(asked, (int, float)) and asked >= 0 else 0.0
    return max(full_jitter_s(tries, random), asked_s)


def _count(failed: Sequence[Failed], fault: str) -> int:
    return sum(one.fault == fault for one in failed)
