"""How a scan is split: which windows, and how wide they are. Pure.

A window is to take a second or two: long enough that what a job costs beside its bytes does not show, short enough that one
that is lost costs little, that progress is seen, and that the places end together. So its width follows from what the fleet
has learnt of the place that would run it. It is at most a quarter of each slot's part of the object, at least 4 MiB, at most
what every place takes that would run it, and never so small that there would be more than 20,000.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from packetfs_compute.names import MAX_RANGE_BYTES, MAX_WINDOWS
from packetfs_compute.validation import bad

__all__ = ["LEAST_WINDOW", "MOST_WINDOW", "Plan", "Rate", "Window", "changed_size", "plan_of", "window_for"]

LEAST_WINDOW: Final = 4 << 20
MOST_WINDOW: Final = 256 << 20
_STEP: Final = 1 << 20
_SECONDS: Final = 1.5
_TURNS: Final = 4
"""How many windows each slot is to have at least, so that a slow one holds up little at the end."""


@dataclass(frozen=True, slots=True)
class Window:
    """One range of the object, ``[offset, offset + length)``, by its place in the order, from 0."""

    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What is known of a place that may run windows: seconds of one as a line over its bytes, and its bounds."""

    overhead_s: float
    s_per_byte: float
    slots: int
    max_range_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The range ``[offset, offset + length)`` of one version of the object, in windows of ``window`` bytes.

    ``etag`` is what each window is pinned to; ``None`` where the source gives no strong one. ``object_size`` is then all
    that can be held against a window that saw another version; ``None`` where not even that is known.
    """

    offset: int
    length: int
    window: int
    object_size: int | None
    etag: str | None
    chained_here: bool = False
    """Whether the windows are read in order by the coordinator's own process; then there may be any number of them."""

    @property
    def windows(self) -> int:
        """How many there are."""
        return -(-self.length // self.window)

    def at(self, number: int) -> Window:
        """Return one of them."""
        start = number * self.window
        return Window(number, self.offset + start, min(self.window, self.length - start))

    def __iter__(self) -> Iterator[Window]:
        return map(self.at, range(self.windows))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Plan":
        """Return the plan that :meth:`to_json` told."""
        return cls(**raw)


def plan_of(
    offset: int, length: int, window: int, object_size: int | None, etag: str | None, *, chained_here: bool = False
) -> Plan:
    """Return the plan of a range; raise :class:`~packetfs_compute.errors.BadProgram` where a given window is too narrow."""
    if length > MAX_RANGE_BYTES:
        raise bad("program.length", f"comes to {length} bytes", f"scan at most {MAX_RANGE_BYTES} bytes at once")
    plan = Plan(offset, length, window, object_size, etag, chained_here)
    if plan.windows > MAX_WINDOWS and not chained_here:
        least = _up(-(-length // MAX_WINDOWS))
        raise bad("window", f"of {window} bytes makes {plan.windows} windows", f"use {least} or more, or leave it out")
    return plan


def changed_size(plan: Plan, object_size: int | None) -> bool:
    """Whether an object of this size is another version than the scan's."""
    return None not in (plan.object_size, object_size) and object_size != plan.object_size


def window_for(length: int, rates: Sequence[Rate], chosen: Rate) -> int:
    """Return how wide the windows of a range of ``length`` bytes are to be.

    ``rates`` are the places that may run them, ``chosen`` is the one that would run the first.
    """
    fits = [rate.max_range_bytes for rate in (*rates, chosen) if rate.max_range_bytes >= LEAST_WINDOW]
    wide = max(0.0, _SECONDS - chosen.overhead_s) / max(chosen.s_per_byte, 1e-15)
    fair = length / (_TURNS * max(1, sum(rate.slots for rate in rates)))
    width = _up(int(min(wide, fair, MOST_WINDOW)))
    width = min(max(width, LEAST_WINDOW), MOST_WINDOW, *fits)
    return max(width, _up(-(-length // MAX_WINDOWS)))


def _up(count: int) -> int:
    """Return the next whole MiB, which blocks in caches are aligned to."""
    return -(-count // _STEP) * _STEP
