"""What a substrate declares about itself: facts that hold whatever its health."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Capabilities", "Trust"]

Trust = Literal["any", "verified", "own"]
"""Who runs the place: anyone, anyone whose results are checked, or ourselves and vendors under contract with us."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Declared facts of one substrate. Sizes are bytes unless the name says otherwise."""

    name: str
    trust: Trust
    memory_mb: int
    max_range_bytes: int
    max_duration_s: float
    schemes: frozenset[str]
    """URL schemes that it reads itself; ``s3`` is presigned at dispatch for the ones that lack it."""
