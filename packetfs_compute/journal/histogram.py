"""Durations in buckets, each a fifth longer than the one before, and percentiles of them; pure functions.

Four buckets double the time, so that a bucket's middle (of the logarithm) is within :data:`ERROR` of whatever is in it, from
ten microseconds to two hours. Buckets add up: a percentile can be had of any places over any time.
"""

import math
from collections.abc import Mapping
from typing import Final

__all__ = ["ERROR", "bucket_of", "middle_s", "percentile_s"]

_LEAST_S: Final = 1e-5
"""All that is shorter is in bucket 0."""
_MOST_S: Final = 7200.0
"""All that is longer is in the last one. No attempt is: an hour is the longest deadline."""
_PER_DOUBLING: Final = 4
ERROR: Final = 2 ** (1 / (2 * _PER_DOUBLING)) - 1
"""How far off a percentile may be, relative to it: 9 %."""


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that ``seconds`` is in."""
    if not seconds > _LEAST_S:
        return 0
    return 1 + int(_PER_DOUBLING * math.log2(min(seconds, _MOST_S) / _LEAST_S))


def middle_s(bucket: int) -> float:
    """Return the duration that a bucket stands for, in seconds."""
    return float(_LEAST_S * 2 ** ((bucket - 0.5) / _PER_DOUBLING)) if bucket > 0 else _LEAST_S


def percentile_s(counts: Mapping[int, int], share: float) -> float | None:
    """Return the duration that ``share`` of all (0 to 1) do not exceed, by nearest rank; ``None`` where there are none."""
    left = max(1, math.ceil(share * sum(counts.values())))
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left <= 0:
            return middle_s(bucket)
    return None
