"""What the kernels are to reach, as ratios of rates in one process, and the table of what they do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from _harness import ratio, size_text

__all__ = ["CACHED", "GOALS", "MEMORY", "Goal", "fastest", "goals_table"]

CACHED, MEMORY = 256 << 10, 256 << 20
"""Bytes: in the second-level cache, and far beyond all caches."""

READ = ("read", "")
SERIAL = ("fnv64", "portable")
"""FNV-1a 64 as every other package has it."""


@dataclass(frozen=True)
class Goal:
    """``ours`` is to be ``least`` times as fast as ``than`` over ``size`` bytes; both are an op and how a name begins."""

    ours: tuple[str, str]
    than: tuple[str, str]
    size: int
    least: float


def _both(ours: tuple[str, str], than: tuple[str, str], cached: float, memory: float) -> tuple[Goal, Goal]:
    return Goal(ours, than, CACHED, cached), Goal(ours, than, MEMORY, memory)


def _public(op: str) -> tuple[str, str]:
    return op, "kernels."


GOALS = (
    *_both(_public("counteq"), READ, 0.80, 0.90),
    *_both(_public("add"), READ, 0.80, 0.90),
    *_both(_public("xor"), READ, 0.90, 0.90),
    *_both(_public("crc32c"), READ, 0.45, 0.75),
    *_both(_public("fnv64"), READ, 0.12, 0.30),
    Goal(_public("fused"), READ, MEMORY, 0.20),
    *_both(_public("counteq"), ("counteq", "numba"), 2.5, 1.2),
    *_both(_public("counteq"), ("counteq", "numpy"), 5, 5),
    *_both(_public("add"), ("add", "numba"), 2.5, 1.2),
    *_both(_public("add"), ("add", "numpy"), 14, 14),
    *_both(_public("xor"), ("xor", "numpy"), 2, 1),
    *_both(_public("crc32c"), ("crc32c", "awscrt"), 1.1, 1.35),
    *_both(_public("crc32c"), ("crc32c", "crc32c (PyPI)"), 2, 2),
    *_both(_public("crc32c"), ("crc32c", "google-crc32c"), 2, 2),
    *_both(_public("fnv64"), SERIAL, 15, 9),
    Goal(("fnv64", "avx512"), SERIAL, CACHED, 11),
    Goal(("fnv64", "avx2"), SERIAL, CACHED, 6),
    Goal(("fnv64", "ssse3"), SERIAL, CACHED, 3),
    Goal(_public("fused"), ("fused", "five calls"), MEMORY, 1.6),
)

Rate = Callable[[tuple[str, str], int], float | None]
"""GB/s of the fastest whose op and beginning of a name these are, over so many bytes; ``None`` where none was measured."""


def goals_table(rate: Rate) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows, one for each goal whose both sides were measured.

    *At most* is how many times as fast as the peer reading alone is: more is in no kernel. Near a goal noise decides, so a
    hundredth less than it is met.
    """
    rows = []
    for goal in GOALS:
        ours, than, read = (rate(what, goal.size) for what in (goal.ours, goal.than, READ))
        if ours is None or than is None or read is None:
            continue
        measured, most = ours / than, read / than
        verdict = "yes" if measured >= 0.99 * goal.least else "no: not even reading is" if most < goal.least else "no"
        name = goal.ours[0] if goal.ours[1] == "kernels." else " ".join(goal.ours)
        against = "the read limit" if goal.than == READ else "the serial loop" if goal.than == SERIAL else goal.than[1]
        bound = "-" if goal.than in (READ, SERIAL) or goal.ours[0] == "fused" else ratio(most)
        rows.append([name, against, size_text(goal.size), f"{goal.least:g}", ratio(measured), bound, verdict])
    return ["", "times as fast as", "over", "goal", "measured", "at most", "met"], rows


def fastest(rates: Mapping[tuple[str, str], Mapping[int, float]]) -> Rate:
    """Return the :data:`Rate` of what was measured, by op and name."""

    def rate(what: tuple[str, str], size: int) -> float | None:
        exact = rates.get(what, {}).get(size)
        found = [
            by[size] for (op, name), by in rates.items() if op == what[0] and name.startswith(what[1]) and size in by
        ]
        return exact if exact is not None else max(found, default=None)

    return rate
