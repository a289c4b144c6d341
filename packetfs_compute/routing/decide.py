"""Where a job runs: a pure function of the job, the fleet's survey, the policy, and a source of random numbers.

Every candidate is scanned, since they are few. For each: what it will take (queue wait + overhead + bytes x slope), what
it will cost (the platform's formula + egress from the source), and why it may not run the job, if so. The score is
dollars + value of time x seconds, divided by the chance of success; the least wins, near-ties at random. The whole table
is returned, so that `packetfs explain` prints the very decision that the router makes.

*Veto* by the caller's wish or by what cannot fit is final. Veto by health alone is not: when nothing else is left, the
least bad is used rather than none (panic): one that comes back slowly before one that is busy, that before one whose
breaker is open, and all before one whose queue nobody consumes.

``sent`` is what the deciding process has itself sent since the snapshot: without it a publisher would send all of a
second's jobs to the one place that was idle, and with it counted once for each of the other publishers, who do the same,
they do not herd either.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from packetfs_compute.routing.egress import FREE, Locality, usd_per_byte
from packetfs_compute.routing.policy import Goal, Policy, unwanted
from packetfs_compute.routing.prices import attempt_usd
from packetfs_compute.routing.snapshot import BUSY, SLOW, Outlook, Survey

__all__ = ["NEAR", "UNKNOWN_BYTES", "Candidate", "Decision", "Wanted", "decide", "weights"]

UNKNOWN_BYTES: Final = 8 << 20
"""What a range of unknown length ("to the end") is taken for."""
BALANCED_USD_PER_S: Final = 0.001
"""The value of time where the caller names none: $3.60 an hour, so that a millisecond is worth what a Lambda request costs
five times over, and 10 s outweigh the egress of 100 MB."""
_WEIGHTS: Final[dict[Goal, tuple[float, float]]] = {"cheapest": (1.0, 1e-7), "fastest": (1e-4, 1.0)}
"""Weights of dollars and seconds at the two ends; the small one only decides between equals."""
NEAR: Final = 1.05
"""Scores within five percent of the least are equals, and one of them is drawn."""
_ALIKE: Final = 1.1
"""The same where other publishers decide as well: they all have the same estimates, so what is noise in them would send
them all to the same place. Learnt in the simulator (docs/routing.md): half the regret that 1.05 has."""
_SNAPSHOT_S: Final = 1.0
_GOOD_LOAD: Final = 0.7
"""Of its slots, what a place can have busy on average before its queue grows by mere chance."""
_LEAST_ROOM: Final = 1e-3
_NOTHING_SENT: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a job a decision depends on. ``byte_count`` is ``None`` where the range ends at the object's end."""

    byte_count: int | None
    scheme: str = "https"
    source: Locality = FREE
    spent_s: float = 0.0
    """How much of its deadline has passed already."""
    spent_usd: float = 0.0
    """What its attempts so far have cost."""
    secret: bool = False
    """Whether whoever is given its URL may read the object: a presigned one."""


class Candidate(NamedTuple):
    """One row of the table. ``score`` is dollars, however the goal weighs them; ``seconds`` is wait and run together."""

    substrate: str
    wait_s: float
    run_s: float
    seconds: float
    usd: float
    egress_usd: float
    success: float
    score: float
    veto: str | None
    by_health: bool
    """Whether the veto is one of health, which a panic overrides."""
    share: float
    """Of its traffic, what it may get now; less than 1 in a slow start."""
    severity: int = 0
    """How much a veto of health is to be heeded where nothing else is left."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The choice, and the table it was made from. ``substrate`` is ``None`` where every place is vetoed for good."""

    substrate: str | None
    candidates: tuple[Candidate, ...]
    panic: bool = False

    @property
    def chosen(self) -> Candidate | None:
        """The winner's row."""
        return next((row for row in self.candidates if row.substrate == self.substrate), None)

    @property
    def vetoes(self) -> dict[str, str]:
        """Why each vetoed place is."""
        return {row.substrate: row.veto for row in self.candidates if row.veto is not None}


def decide(
    wanted: Wanted,
    policy: Policy,
    fleet: Survey,
    random: Callable[[], float],
    sent: Mapping[str, int] = _NOTHING_SENT,
    tried: Collection[str] = (),
    coming: float = 0.0,
) -> Decision:
    """Choose for one job.

    ``tried`` are places that failed it already; ``random`` gives numbers in [0, 1). ``coming`` is how many jobs like this
    one the other publishers send in a second.
    """
    money, time = weights(policy)
    rows = tuple(
        _candidate(
            wanted, policy, outlook, money, time, sent.get(outlook.place.name, 0) * fleet.publishers, tried, random
        )
        for outlook in fleet.outlooks
    )
    fit = [(row, outlook) for row, outlook in zip(rows, fleet.outlooks, strict=True) if row.veto is None]
    panic = False
    if not fit:
        ill = [(row, outlook) for row, outlook in zip(rows, fleet.outlooks, strict=True) if row.by_health]
        least = min((row.severity for row, _ in ill), default=0)
        fit = [(row, outlook) for row, outlook in ill if row.severity == least]
        panic = bool(fit)
    if not fit:
        return Decision(None, rows)
    if coming:
        return Decision(_shared(fit, coming, time, random), rows, panic)
    best = min(row.score for row, _ in fit)
    near = [row for row, _ in fit if row.score <= best * NEAR]
    if policy.goal == "cheapest":  # of those that cost the same, one of the fast
        soonest = min(row.seconds for row in near)
        near = [row for row in near if row.seconds <= soonest * NEAR]
    chosen = near[0] if len(near) == 1 else near[int(random() * len(near))]
    return Decision(chosen.substrate, rows, panic)


def _shared(fit: list[tuple[Candidate, Outlook]], coming: float, time: float, random: Callable[[], float]) -> str:
    """Draw a place so that ``coming`` jobs a second, each drawn like this one, fill the places in order of their score.

    Equals get their part by the room that they have. What they have no room for goes on to the next best, if that costs
    less than to wait.
    """
    while True:
        least = min(row.score for row, _ in fit)
        equals = [(row.substrate, _room(outlook)) for row, outlook in fit if row.score <= least * _ALIKE]
        room = sum(one for _, one in equals)
        if room >= coming or random() * coming < room:
            break
        rest = [(row, outlook) for row, outlook in fit if row.score > least * _ALIKE]
        wait_s = _SNAPSHOT_S / 2 * (coming / room - 1)  # the mean over the time until the next snapshot shows it
        if not rest or min(row.score for row, _ in rest) > least + time * wait_s:
            break
        fit, coming = rest, coming - room
    left = random() * room
    for name, one in equals:
        left -= one
        if left < 0:
            return name
    return equals[-1][0]


def _room(outlook: Outlook) -> float:
    """Return how many jobs a place can take until the next snapshot and still be no fuller than is good for it."""
    turns = 1 + _SNAPSHOT_S / outlook.line.mean_s
    return max(_LEAST_ROOM, _GOOD_LOAD * outlook.slots * turns - outlook.ahead)


def weights(policy: Policy) -> tuple[float, float]:
    """Return what a dollar and a second weigh in the score of a job with ``policy``."""
    if policy.goal != "balanced":
        return _WEIGHTS[policy.goal]
    per_hour = policy.value_of_time_usd_per_hour
    return (1.0, BALANCED_USD_PER_S if per_hour is None else max(per_hour / 3600, 1e-7))


def _candidate(
    wanted: Wanted,
    policy: Policy,
    outlook: Outlook,
    money: float,
    time: float,
    sent: int,
    tried: Collection[str],
    random: Callable[[], float],
) -> Candidate:
    place, line = outlook.place, outlook.line
    byte_count = UNKNOWN_BYTES if wanted.byte_count is None else wanted.byte_count
    waiting = outlook.ahead + sent + 1 - outlook.slots
    wait_s = waiting * line.mean_s / outlook.slots if waiting > 0 else 0.0
    run_s = line.overhead_s + line.s_per_byte * byte_count + line.surprise_s
    seconds = wait_s + run_s
    egress = usd_per_byte(place, wanted.source) * byte_count if wanted.source.usd_per_gb else 0.0
    usd = attempt_usd(place.prices, place.memory_mb, byte_count, run_s) + egress
    veto, by_health, severity = _veto(wanted, policy, outlook, run_s, seconds, usd, tried), False, 0
    if veto is None:
        veto, severity = outlook.unwell, outlook.severity
        if veto is None and outlook.most is not None and outlook.ahead + sent >= outlook.most:
            veto, severity = f"breaker half-open, {outlook.most} tries are under way", BUSY
        if veto is None and outlook.share < 1 and random() >= outlook.share:
            veto, severity = f"slow start, {outlook.share:.0%} of its traffic", SLOW
        by_health = veto is not None
    score = (money * usd + time * seconds) / outlook.success
    return Candidate(
        place.name, wait_s, run_s, seconds, usd, egress, outlook.success, score, veto, by_health, outlook.share,
        severity,
    )  # fmt: skip


def _veto(
    wanted: Wanted, policy: Policy, outlook: Outlook, run_s: float, seconds: float, usd: float, tried: Collection[str]
) -> str | None:
    """Return the first reason that speaks against a place for good."""
    place = outlook.place
    reason = unwanted(policy, place)
    if reason is not None:
        return reason
    if wanted.scheme not in place.schemes and wanted.scheme != "s3":
        return f"does not read {wanted.scheme}:"
    if wanted.secret and place.trust != "own":
        return "may not be given a presigned URL: it is not our own"
    if wanted.byte_count is not None and wanted.byte_count > place.max_range_bytes:
        return f"takes at most {place.max_range_bytes} bytes"
    if run_s > place.max_duration_s:
        return f"would take {run_s:.1f} s and stops at {place.max_duration_s:g} s"
    if policy.max_cost_usd is not None and wanted.spent_usd + usd > policy.max_cost_usd:
        return (
            f"would cost ${usd:.3g}, policy.max_cost_usd leaves ${max(0.0, policy.max_cost_usd - wanted.spent_usd):.3g}"
        )
    if policy.deadline_s is not None and wanted.spent_s + seconds > policy.deadline_s:
        return (
            f"would take {seconds:.3g} s, policy.deadline_s leaves {max(0.0, policy.deadline_s - wanted.spent_s):.3g} s"
        )
    if place.name in tried:
        return "tried, and failed"
    return None
