"""The few places of a large fleet that are worth a look for one class of jobs, found once a snapshot.

A decision scans every candidate, at two microseconds each: nothing for a dozen, too much for thousands. Jobs of one class
(policy, source, and size within a factor of eight) rank the places almost alike, so the whole fleet is scored once for a
class (:func:`rank`), by :func:`decide` itself, and its jobs are then decided among a few with their own numbers
(:func:`pick`).

*The best are spread.* Estimates are noisy, so the two dozen that seem best of a thousand alike are the luckiest, and the
same for all who look: they would be overrun while the others idle. So each publisher has a number of its own for each
place, by which it thinks the place up to a quarter worse, and keeps what then seems best. A place that is better by more
than that is in every list. The survey that comes back says how many publishers are likely to look at the same place, since
that is how often what one of them sent has to be counted (see :func:`decide`). A few places are drawn from all of the
rest, so that one whose queue has just emptied, or that the class's middle size does not suit, is seen as well.
"""

import bisect
import heapq
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from packetfs_compute.routing.decide import UNKNOWN_BYTES, Wanted, decide
from packetfs_compute.routing.policy import Policy
from packetfs_compute.routing.snapshot import Survey

__all__ = ["MANY", "Ranking", "class_of", "pick", "rank", "size_class"]

MANY: Final = 64
"""A fleet of more places than this is worth a shortlist."""
KEEP: Final = 24
EXTRA: Final = 4
_BITS: Final = 3
_SPREAD: Final = 1.25
"""Learnt in the simulator (docs/routing.md): what two like places' estimates differ by, for a class of small jobs."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The places of a survey that may run jobs of a class: how ill each is, its score, and its number, in this order."""

    fleet: Survey
    places: tuple[tuple[int, float, int], ...]


def size_class(byte_count: int | None) -> int:
    """Return the class of a size: within one, sizes differ by less than a factor of eight."""
    return (UNKNOWN_BYTES if byte_count is None else byte_count).bit_length() // _BITS


def class_of(wanted: Wanted, policy: Policy) -> Hashable:
    """Return what jobs have in common that may share a ranking."""
    return policy, wanted.source, wanted.scheme, size_class(wanted.byte_count)


def rank(wanted: Wanted, policy: Policy, fleet: Survey, random: Callable[[], float]) -> Ranking:
    """Score all of ``fleet`` for jobs like ``wanted``."""
    typical = replace(wanted, byte_count=_middle(size_class(wanted.byte_count)), spent_s=0.0, spent_usd=0.0)
    places = []
    for at, row in enumerate(decide(typical, policy, fleet, random).candidates):
        if row.veto is not None and not row.by_health:
            continue
        # A slow start, and how many try a half-open breaker, are looked at anew for each job.
        severity = 0 if fleet.outlooks[at].unwell is None else row.severity
        places.append((severity, row.score, at))
    return Ranking(fleet, tuple(sorted(places)))


def pick(
    ranking: Ranking, drawn: Sequence[float], random: Callable[[], float], keep: int = KEEP, extra: int = EXTRA
) -> Survey:
    """Return the survey with ``keep`` of the best places and ``extra`` others; all of it where no place will do.

    ``drawn`` are the publisher's own numbers in [0, 1), one for each place of the fleet: the same ones each time, so that
    it keeps its places from snapshot to snapshot.
    """
    fleet, places = ranking.fleet, ranking.places
    if len(places) <= keep:
        return fleet
    severity, score, _ = places[keep - 1]
    # Beyond this none can seem better than the first ``keep`` do at their worst.
    pool = places[: bisect.bisect_right(places, (severity, score * _SPREAD, len(drawn)))]
    best = heapq.nsmallest(keep, ((ill, score * (1 + (_SPREAD - 1) * drawn[at]), score, at) for ill, score, at in pool))
    chosen = {one[-1] for one in best}
    chosen.update(places[int(random() * len(places))][-1] for _ in range(extra))
    worst = best[-1][0], max(score for _, _, score, _ in best), len(drawn)
    as_good = bisect.bisect_right(places, worst)
    publishers = max(1, round(fleet.publishers * keep / as_good))
    return Survey(tuple(fleet.outlooks[at] for at in sorted(chosen)), fleet.at, publishers)


def _middle(of: int) -> int:
    return int(2 ** (of * _BITS + (_BITS - 1) / 2))
