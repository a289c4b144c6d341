"""The dashboard's feed: how all places are, what ended when and how fast, the last jobs; a pure function."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from packetfs_compute.broker.ledger import LedgerStats
from packetfs_compute.journal.counts import Tally, summed
from packetfs_compute.journal.histogram import percentile_s
from packetfs_compute.journal.reader import Reading
from packetfs_compute.journal.writer import STEP_S
from packetfs_compute.routing import Member
from packetfs_compute.routing.breaker import state_at

__all__ = ["overview_document"]

_WINDOW_S: Final = 60
_NOTHING: Final = Tally()


def overview_document(
    reading: Reading,
    members: Sequence[Member],
    consumers: Mapping[str, Collection[str]],
    ledger: LedgerStats,
    report: Mapping[str, Any],
    now: float,
    browsers: Mapping[str, Any] | None = None,
    flower: str | None = None,
) -> dict[str, Any]:
    """Return the feed of ``now`` (Unix seconds), as JSON.

    ``report`` is what is unwell, as ``/health`` says it; ``browsers`` is what the gateway's hub says of itself.
    """
    window = summed(reading.steps[-(_WINDOW_S // STEP_S) :])
    return {
        "at": round(now, 3),
        "window_s": _WINDOW_S,
        "ledger": {
            "open": ledger.open,
            "overdue_s": round(ledger.overdue_s, 3),
            "resubmitted": ledger.resubmitted,
            "given_up": ledger.given_up,
        },
        "unwell": report["unwell"],
        "status": report["status"],
        "substrates": [_substrate(member, reading, window, consumers, now) for member in members],
        "series": _series(reading, [member.place.name for member in members]),
        "scans": list(reading.scans),
        "recent": list(reading.jobs),
        "browsers": None if browsers is None else dict(browsers),
        "links": {"flower": flower, "docs": "/docs", "metrics": "/metrics"},
    }


def _substrate(
    member: Member, reading: Reading, window: Mapping[str, Tally], consumers: Mapping[str, Collection[str]], now: float
) -> dict[str, Any]:
    place, health = member.place, member.health
    lately, day = window.get(place.name, _NOTHING), reading.day.get(place.name, _NOTHING)
    slots = [count for count in (place.slots, health.slots) if count is not None]
    return {
        "name": place.name,
        "kind": place.kind,
        "provider": place.provider,
        "region": place.region,
        "trust": place.trust,
        "breaker": _breaker(member, reading.opened.get(place.name), now),
        "depth": health.depth,
        "in_flight": health.in_flight,
        "slots": min(slots, default=None),
        "consumers": len(consumers.get(place.name, ())),
        "jobs": {
            "done_per_s": lately.done / _WINDOW_S,
            "failed_per_s": lately.failed.total() / _WINDOW_S,
            "done": day.done,
            "cached": day.cached,
            "failed": dict(day.failed),
        },
        "attempts": {"ok": day.ok, "failed": dict(day.bad)},
        "latency_s": {
            "count": lately.buckets.total(),
            "p50": lately.percentile_s(0.5),
            "p95": lately.percentile_s(0.95),
            "p99": lately.percentile_s(0.99),
        },
        "bytes_per_s": lately.byte_count / _WINDOW_S,
        "bytes": day.byte_count,
        "usd_per_hour": lately.usd * 3600 / _WINDOW_S,
        "usd": day.usd,
    }


def _breaker(member: Member, cause: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    breaker = member.health.breaker
    state = state_at(breaker, now)
    return {
        "state": state,
        "since": breaker.since or None,
        "until": breaker.until if state == "open" else None,
        "times": breaker.times,
        "cause": cause,
    }


def _series(reading: Reading, names: Sequence[str]) -> dict[str, Any]:
    steps = reading.steps
    all_buckets = [sum((tally.buckets for tally in step.values()), Counter[int]()) for step in steps]
    return {
        "step_s": STEP_S,
        "from": reading.begun,
        "done": {name: [step.get(name, _NOTHING).done for step in steps] for name in names},
        "failed": {name: [step.get(name, _NOTHING).failed.total() for step in steps] for name in names},
        "usd": [sum(tally.usd for tally in step.values()) for step in steps],
        "p50_s": [percentile_s(buckets, 0.5) for buckets in all_buckets],
        "p95_s": [percentile_s(buckets, 0.95) for buckets in all_buckets],
    }
