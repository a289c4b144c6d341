"""What an attempt will take: a line over its bytes, learnt by least squares, and leaning on what the place declares.

The declared overhead weighs as much as one attempt over no bytes, and the declared slope as much as one over 100 MB
would (ridge regression towards both). So a place that nobody has tried has an estimate, one whose jobs all are small
keeps a sane slope whatever its overhead turns out to be, and ten real attempts outweigh what was declared.
"""

import math
from dataclasses import dataclass
from typing import Final

from packetfs_compute.routing.capabilities import Capabilities
from packetfs_compute.routing.health import FAILURE_S, TAU_LEARN_S, TAU_OUTCOME_S, TAU_SURPRISE_S, Health

__all__ = ["Line", "learnt", "surprise_of"]

_PRIOR_MB: Final = 100.0
_PRIOR_WEIGHT: Final = 1.0
_SURPRISING: Final = 3.0
"""How many times the estimate an attempt takes before it is a surprise and not the usual scatter …"""
_NEGLIGIBLE_S: Final = 0.02
"""… and by how much at least."""
_ROUNDING: Final = 1.001


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of an attempt as overhead + bytes x slope, and of a mean one."""

    overhead_s: float
    s_per_byte: float
    mean_s: float
    surprise_s: float = 0.0
    """What a recent surprise adds for now."""

    def seconds(self, byte_count: float) -> float:
        """Return what an attempt over ``byte_count`` bytes is expected to take once it runs."""
        return self.overhead_s + self.s_per_byte * byte_count + self.surprise_s


def learnt(place: Capabilities, health: Health, now: float) -> Line:
    """Return the line of ``place`` at ``now``, from what it declares and what was measured."""
    passed_s = max(0.0, now - health.at)
    fade = math.exp(-passed_s / TAU_LEARN_S)
    firm = _PRIOR_WEIGHT * _PRIOR_MB**2
    declared_slope = 1e6 / place.bytes_per_s
    w = fade * health.weight + _PRIOR_WEIGHT
    sx = fade * health.sum_x
    sy = fade * health.sum_y + _PRIOR_WEIGHT * place.overhead_s
    sxx = fade * health.sum_xx + firm
    sxy = fade * health.sum_xy + firm * declared_slope
    slope = (w * sxy - sx * sy) / (w * sxx - sx * sx)  # the declared part keeps the divisor above zero
    if slope < 0:
        slope, overhead = 0.0, sy / w
    else:
        overhead = (sy - slope * sx) / w
        if overhead < 0:
            # A line through the origin has only its slope left to learn, and what is declared of that must not weigh more
            # than a mean attempt does: were all of them small, a hundred could not move it.
            typical = min(firm, health.sum_xx / health.weight) if health.weight else firm
            slope = (sxy - (firm - typical) * declared_slope) / (sxx - firm + typical)
            overhead = 0.0
    measured = fade * health.weight
    mean = (fade * health.sum_y + place.overhead_s) / (measured + 1)
    surprise = _surprise_s(health) * math.exp(-passed_s / TAU_SURPRISE_S)
    return Line(overhead, slope / 1e6, max(mean, 1e-6), surprise)


def _surprise_s(health: Health) -> float:
    """Return what is left of a surprise, as of ``health.at``.

    A failure counts as five seconds at once. But when an attempt after it was good, it was one of so many, and adds no more
    than it costs them on average: else one in ten thousand would send all jobs of a busy place elsewhere for ten seconds.
    That a failure is behind it shows in how far both have faded: what it adds by tau 10 s, its count by tau 30 s.
    """
    if health.streak or not health.failures:
        return health.surprise_s
    of_failures = FAILURE_S * min(1.0, health.failures) ** (TAU_OUTCOME_S / TAU_SURPRISE_S)
    if health.surprise_s > of_failures * _ROUNDING:
        return health.surprise_s
    return health.surprise_s * health.failures / max(health.calls, 1.0)


def surprise_of(expected_s: float, seconds: float) -> float:
    """Return by how much an attempt was slower than the usual scatter explains; 0 for most."""
    beyond = seconds - expected_s
    return beyond if seconds > _SURPRISING * expected_s and beyond > _NEGLIGIBLE_S else 0.0
