"""What has to be done now and then by somebody: probing the substrates, and sweeping the ledger.

`packetfs up` runs it as a process of its own (`packetfs upkeep`); elsewhere Celery beat sends the tasks that take one
turn each. Several at once are harmless: a probe more, and the sweeper's every step is atomic at the store.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from celery import Celery

from packetfs_compute.broker.sweeper import SweepReport, sweep
from packetfs_compute.celery import broker_errors
from packetfs_compute.errors import BrokerUnavailable, JobError
from packetfs_compute.fleet import Fleet
from packetfs_compute.names import LOCAL
from packetfs_compute.routing.breaker import opened_at
from packetfs_compute.routing.health import probe_due
from packetfs_compute.substrates import Substrate
from packetfs_compute.validation import show

__all__ = ["PROBE_TIMEOUT_S", "Prober", "run_turns", "sweep_turn"]

_log = logging.getLogger(__name__)

PROBE_TIMEOUT_S: Final = 2.0
_MAX_PROBES: Final = 16


@dataclass
class Prober:
    """Asks each substrate for its health when that is due, and tells the fleet."""

    fleet: Fleet
    substrates: Iterable[Substrate]
    clock: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    opened: Callable[[str, str, str], object] = lambda *_: None
    """Told of a breaker that a probe has opened: whose, ``probe``, and what was wrong; for the journal."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_MAX_PROBES, "packetfs-probe"))

    def turn(self) -> dict[str, bool]:
        """Probe what is due, all at once; return what was found. Raises :class:`BrokerUnavailable` without a fleet."""
        now = self.clock()
        health = {member.place.name: member.health for member in self.fleet.snapshot(now).members}
        # The local substrate is whoever consumes its queue, and that is known by their pulse.
        due = [
            one
            for one in self.substrates
            if one.capabilities.kind != LOCAL and probe_due(health[one.capabilities.name], now)
        ]
        asked = {self._pool.submit(_ailment, one): one.capabilities.name for one in due}
        done, late = wait(asked, PROBE_TIMEOUT_S + 1)
        silent = f"no answer within {PROBE_TIMEOUT_S:g} s"
        wrong = {asked[one]: one.result() for one in done} | dict.fromkeys((asked[one] for one in late), silent)
        for name, what in wrong.items():
            before, now = health[name].breaker.state, self.clock()
            after = self.fleet.probed(name, what is None, now, 0.75 + 0.5 * self.random()).breaker
            if after.state != before:
                _log.warning("%s: breaker %s, was %s", name, after.state, before)
            if what is not None and opened_at(after, now):
                self.opened(name, "probe", what)
        return {name: what is None for name, what in wrong.items()}

    def close(self) -> None:
        """Give up what is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def sweep_turn(app: Celery) -> SweepReport:
    """Sweep the ledger of ``app`` once; raises :class:`BrokerUnavailable` when its Redis does not answer."""
    try:
        report = sweep(app)
    except broker_errors(app) as error:
        raise BrokerUnavailable(f"the ledger's Redis does not answer: {' '.join(str(error).split())}") from error
    if report.resubmitted or report.given_up:
        _log.warning("published %d jobs again, gave %d up", report.resubmitted, report.given_up)
    return report


def run_turns(turns: Iterable[Callable[[], object]], stop: Callable[[float], bool], every_s: float = 1.0) -> None:
    """Take every turn, again and again, until ``stop(seconds)`` (a bounded wait) says so; an absent broker is waited for."""
    away = False
    while True:
        try:
            for turn in turns:
                turn()
            if away:
                _log.warning("the broker is back")
            away = False
        except BrokerUnavailable as error:
            if not away:
                _log.warning("%s", error)
            away = True
        if stop(every_s):
            return


def _ailment(substrate: Substrate) -> str | None:
    """Return what is wrong with a substrate; ``None`` where it says that it is well."""
    try:
        status = substrate.health(PROBE_TIMEOUT_S).get("status")
    except JobError as error:
        _log.info("%s: %s", substrate.capabilities.name, error)
        return error.message
    return None if status == "healthy" else f"its status is {show(status)}"
