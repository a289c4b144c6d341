"""What people ask of the system beside its results: where a job would run and why, and how the fleet is; both as JSON."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from packetfs_compute.celery import router_of
from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.job import accept_job
from packetfs_compute.names import task_of
from packetfs_compute.router import wanted_of
from packetfs_compute.routing import Decision, Member, Policy, Wanted, attempt_usd
from packetfs_compute.routing.breaker import state_at
from packetfs_compute.routing.estimate import learnt
from packetfs_compute.settings import Settings

__all__ = ["Explained", "explained", "fleet_document"]

_GB: Final = 10**9


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision as the router would make it now. ``measured``: by the fleet's health, not by declarations alone."""

    decision: Decision
    wanted: Wanted
    policy: Policy
    measured: bool
    took_s: float

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "substrate": self.decision.substrate,
            "panic": self.decision.panic,
            "measured": self.measured,
            "byte_count": self.wanted.byte_count,
            "candidates": [row._asdict() for row in self.decision.candidates],
        }


def explained(program: object, policy: object, settings: Settings) -> Explained:
    """Decide for a job as JSON, with nothing run; raises the ``JobError`` of what is wrong with it.

    Where no Redis answers, the decision is by what the substrates declare, as it is for a publisher that has seen no
    snapshot yet.
    """
    job = accept_job("explain", program, policy)
    router = router_of(settings)
    try:
        router.refresh()
        measured = True
    except BrokerUnavailable:
        measured = False
    arguments = {**job.program.to_wire(), "policy": policy}
    parsed, wanted = wanted_of(task_of("program"), (), arguments, settings)
    started_s = time.perf_counter()
    decision = router.decide(wanted, parsed)
    return Explained(decision, wanted, parsed, measured, time.perf_counter() - started_s)


def fleet_document(members: Iterable[Member], now: float) -> dict[str, Any]:
    """Return the substrates of a snapshot: health, load, what is learnt of them, prices."""
    return {"substrates": [_member(member, now) for member in members]}


def _member(member: Member, now: float) -> dict[str, Any]:
    place, health = member.place, member.health
    line = learnt(place, health, now)
    return {
        "name": place.name,
        "kind": place.kind,
        "provider": place.provider,
        "region": place.region,
        "trust": place.trust,
        "breaker": state_at(health.breaker, now),
        "overhead_s": line.overhead_s,
        "s_per_byte": line.s_per_byte,
        "usd_per_job_gb": attempt_usd(place.prices, place.memory_mb, _GB, line.seconds(_GB)),
        "declared_slots": place.slots,
        "health": asdict(health),
    }
