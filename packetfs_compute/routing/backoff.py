"""How long to wait before another try: full jitter, so that those who failed together do not come back together.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: of the jittered forms, rand(0, min(cap, base 2^n))
does the least work.
"""

from collections.abc import Callable
from typing import Final

__all__ = ["full_jitter_s"]

_BASE_S: Final = 0.1
_CAP_S: Final = 10.0


def full_jitter_s(tries: int, random: Callable[[], float], base_s: float = _BASE_S, cap_s: float = _CAP_S) -> float:
    """Return the seconds to wait after ``tries`` failed tries (from 1); ``random`` gives a number in [0, 1)."""
    return random() * float(min(cap_s, base_s * 2 ** min(tries, 32)))
