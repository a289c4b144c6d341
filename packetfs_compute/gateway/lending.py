"""The hub of a gateway: what it is made of, and what it counts."""

import functools
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from packetfs_compute.gateway.pool import Threads
from packetfs_compute.gateway.trusted import Trusted
from packetfs_compute.gateway.watching import Jobs
from packetfs_compute.settings import Settings
from packetfs_compute.signature import Verifier
from packetfs_compute.sources.guard import check_url
from packetfs_compute.volunteers import Hub, Stats, Tickets
from packetfs_compute.volunteers.redis import open_reputations

__all__ = ["COUNTED", "HubMetrics", "Lending", "counted", "open_lending"]

_GAUGES: Final = frozenset({"connected", "idle", "running", "under_way"})


class Lending:
    """The hub of this gateway, and who may come to it. ``verifier`` is ``None`` where requests need not be signed."""

    def __init__(self, hub: Hub, tickets: Tickets, trusted: Trusted, verifier: Verifier | None) -> None:
        self.hub = hub
        self.tickets = tickets
        self.verifier = verifier
        self._trusted = trusted

    def stats(self) -> dict[str, Any]:
        """Return what the hub counts, as JSON."""
        return counted(self.hub.stats())

    async def aclose(self) -> None:
        """Put all browsers out, and leave their checks."""
        await self.hub.aclose()
        self._trusted.close()


def open_lending(settings: Settings, jobs: Jobs, threads: Threads) -> Lending | None:
    """Return the lending of ``settings``, built without I/O; ``None`` where nothing says who may post programs."""
    if not settings.signing_keys and not settings.allow_unsigned:
        return None
    reputations = open_reputations(settings)
    secret = settings.browser_secret.encode() if settings.browser_secret else secrets.token_bytes(32)
    tickets = Tickets(secret, reputations.spend)
    trusted = Trusted(jobs, threads)
    verifier = Verifier(settings.signing_keys) if settings.signing_keys else None
    hub = Hub(reputations, trusted, tickets.redeem, check=functools.partial(check_url, settings=settings))
    return Lending(hub, tickets, trusted, verifier)


def counted(stats: Stats) -> dict[str, int]:
    """Return what a hub counts by the names that feeds and metrics have for it."""
    told = asdict(stats)
    return {"connected": told.pop("browsers"), **told}


class HubMetrics(Collector):
    """What a hub counts, for Prometheus. Counters are this gateway's own, to be summed over gateways."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Return the samples of now."""
        for name, value in counted(self._stats()).items():
            about = COUNTED[name]
            if name in _GAUGES:
                yield GaugeMetricFamily(f"packetfs_browsers_{name}", about, value)
            else:
                yield CounterMetricFamily(f"packetfs_browsers_{name}", about, value)


COUNTED: Final[Mapping[str, str]] = {
    "connected": "Browsers that are connected.",
    "idle": "Browsers that would be given a program.",
    "running": "Programs that browsers run.",
    "under_way": "Programs that the hub was given, those being checked included.",
    "rehanded": "Programs handed on because a browser was lost or failed.",
    "busy": "Programs refused because no browser was idle.",
    "checked": "Answers computed by a place of trust too.",
    "agreed": "Answers given out because two browsers found the same.",
    "tie_breaks": "Times that two browsers disagreed.",
    "banned": "Accounts banned for a wrong value.",
    "unclear": "Answers of another version of the object.",
    "doubted": "Sources that a browser could not read and a place of trust could.",
    "found_wrong": "Results given out that a second look found wrong.",
}
