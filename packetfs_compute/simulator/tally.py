"""What a simulation adds up, for the router and for the oracle alike, and the report that it ends as."""

from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

__all__ = ["GroupShare", "Report", "Tally", "Totals", "percentile"]

_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(slots=True)
class Tally:
    """One side's sums."""

    scores: dict[str, float] = field(default_factory=dict)
    """Score by kind of job."""
    platform_usd: float = 0.0
    egress_usd: float = 0.0
    latencies: "array[float]" = field(default_factory=lambda: array("f"))
    groups: dict[int, int] = field(default_factory=dict)
    """Jobs by the group that answered them."""

    def add(self, kind: str, score: float, seconds: float, usd: float, egress_usd: float, group: int) -> None:
        """Add one finished job."""
        self.scores[kind] = self.scores.get(kind, 0.0) + score
        self.platform_usd += usd
        self.egress_usd += egress_usd
        self.latencies.append(seconds)
        self.groups[group] = self.groups.get(group, 0) + 1

    @property
    def score(self) -> float:
        """Over all kinds."""
        return sum(self.scores.values())

    def totals(self) -> "Totals":
        """Return what a report says of it."""
        ordered = sorted(self.latencies)
        return Totals(
            score=self.score,
            usd=self.platform_usd + self.egress_usd,
            platform_usd=self.platform_usd,
            egress_usd=self.egress_usd,
            latency_s={f"p{of:g}": percentile(ordered, of) for of in _PERCENTILES},
        )


def percentile(ordered: list[float], of: float) -> float:
    """Return the ``of``-th percentile of sorted numbers, by the nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * of / 100))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """One side's numbers."""

    score: float
    usd: float
    platform_usd: float
    egress_usd: float
    latency_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GroupShare:
    """How many jobs a group answered."""

    name: str
    places: int
    jobs: int
    share: float
    oracle_share: float
    failed_attempts: int
    opened: int
    """How often breakers of its places opened."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a simulation went. Scores weigh dollars and seconds as decisions do."""

    scenario: str
    title: str
    seed: int
    jobs: int
    places: int
    publishers: int
    simulated_s: float
    wall_s: float
    router: Totals
    oracle: Totals
    regret: float
    """By how much the router's total score is above the oracle's, as a share of the oracle's."""
    regret_by_kind: Mapping[str, float]
    """The same for each kind of job of the mix."""
    groups: tuple[GroupShare, ...]
    attempts: int
    failed_attempts: int
    failovers: int
    moves: int
    """Jobs that a consumer moved on without an attempt, as its place's breaker had opened since."""
    failed_jobs: int
    misroutes: int
    """Jobs sent to a place whose true score was more than 5 % above the best one's at that moment."""
    misroute_share: float
    misroute_regret: float
    """What they cost: the part of the oracle's score by which their choices were worse than the best."""
    longest_queue: int
    """Most jobs that ever waited in one place."""
    sends: tuple[Mapping[str, int], ...] = ()
    """Attempts that began in each second of simulated time, by group."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, without ``sends``."""
        plain = asdict(self)
        del plain["sends"]
        return plain
