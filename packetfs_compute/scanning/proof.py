"""The proof of a head: two of its windows are run over the new version, and must come to what they came to in the earlier.

The caller has declared that the object only grows; this holds the declaration against some of the bytes. They run as jobs,
where any window would, and what they cost is the scan's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from packetfs_compute.deadline import Deadline
from packetfs_compute.scanning.around import WindowDesk
from packetfs_compute.scanning.combine import joined
from packetfs_compute.scanning.coordinator import Coordinator, Terms
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import Mark, onward
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.state import Found
from packetfs_compute.scanning.tally import Part, Tally

__all__ = ["disproved"]


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """A store that keeps nothing: who goes on with a scan proves its head anew."""

    def keep(self, parts: Mapping[int, Part]) -> None:
        """Keep nothing."""

    def part(self, number: int) -> None:
        """Return nothing."""

    def keep_tally(self, tally: Tally) -> None:
        """Keep nothing."""


def disproved(
    scan: Scan,
    whole: Plan,
    marks: Sequence[Mark],
    terms: Terms,
    desk: WindowDesk,
    tally: Tally,
    deadline: Deadline,
    sleep: Callable[[float], object],
) -> str | None:
    """Return which of ``marks`` is not so in the version of ``whole``, in words; ``None`` where all are.

    What went wrong and what it cost is added to ``tally``. Raises the ``JobError`` that a window ended with.
    """
    for number, mark in enumerate(marks):
        ops = onward(scan.program.ops, mark.before)
        asked = replace(scan, id=f"{scan.id}.was{number}", program=replace(scan.program, ops=ops))
        length = mark.end - mark.start
        plan = replace(whole, offset=mark.start, length=length, window=length)
        (part,) = Coordinator(
            asked, plan, Found(tally=tally), terms, desk, _Nowhere(), deadline, lambda _: None, sleep
        ).run()
        tally.failed_usd += part.cost_usd
        if tuple(joined(ops, mark.before, part.values, length)) != mark.after:
            return f"bytes {mark.start} to {mark.end} are not what they were"
    return None
