"""A worker's leases and its pulse: kept alive while they are true, and not a moment longer."""

import threading
import time
from collections.abc import Callable

import pytest
from support.processes import wait_until

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import BrokerUnavailable, Cancelled
from packetfs_compute.fleet import LEASE_S, Leased, StubFleet
from packetfs_compute.routing import Capabilities
from packetfs_compute.settings import Settings
from packetfs_compute.worker import Leases, Pulse, current_dispatcher, substrate_of_queue

PLACES = [Capabilities(name, "own", 256, 1 << 30, 60, frozenset({"https"})) for name in ("local", "fly")]
ONE = Leased("fly", "j1")


class Hearing(StubFleet):
    """A fleet that keeps what it hears, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(PLACES)
        self.renewed: list[set[Leased]] = []
        self.away = False

    def renew(self, leases, now):  # type: ignore[no-untyped-def]
        held = list(leases)
        self.renewed.append(set(held))
        if self.away:
            raise BrokerUnavailable("away")
        return super().renew(held, now)

    def consuming(self, consumer, slots, now, ttl_s):  # type: ignore[no-untyped-def]
        if self.away:
            raise BrokerUnavailable("away")
        super().consuming(consumer, slots, now, ttl_s)


class TestLeases:
    def test_a_lease_is_renewed_while_it_is_held(self) -> None:
        fleet, now = Hearing(), 1000.0
        leases = Leases(fleet, lambda: now, every_s=0.01)
        assert fleet.begin(ONE, now)
        with leases.hold(ONE):
            now += LEASE_S - 1
            wait_until(lambda: len(fleet.renewed) >= 2, "it is renewed")
            assert fleet.snapshot(now + LEASE_S - 2).members[1].health.in_flight == 1
        count = len(fleet.renewed)
        assert all(held == {ONE} for held in fleet.renewed)
        time.sleep(0.1)
        assert len(fleet.renewed) <= count + 1, "nothing is held any more"

    def test_several_are_renewed_in_one_call(self) -> None:
        fleet = Hearing()
        leases = Leases(fleet, every_s=0.01)
        other = Leased("local", "j2")
        with leases.hold(ONE), leases.hold(other):
            wait_until(lambda: {ONE, other} in fleet.renewed, "both at once")

    def test_the_thread_ends_with_the_last_and_comes_back_with_the_next(self) -> None:
        leases = Leases(Hearing(), every_s=0.01)
        names = lambda: [thread.name for thread in threading.enumerate()]  # noqa: E731
        for _ in range(3):
            with leases.hold(ONE):
                assert "packetfs-leases" in names()
            wait_until(lambda: "packetfs-leases" not in names(), "the thread ends")

    def test_a_store_that_is_away_for_a_while_is_asked_again(self) -> None:
        fleet = Hearing()
        fleet.away = True
        with Leases(fleet, every_s=0.01).hold(ONE):
            wait_until(lambda: len(fleet.renewed) >= 3, "it goes on asking")


def hold(leases: Leases, work: Callable[[Deadline], object]) -> None:
    """Run an attempt that does ``work`` with its deadline."""
    with leases.hold(ONE):
        work(Deadline.after(30))


def until_told(deadline: Deadline) -> None:
    wait_until(lambda: deadline.token is not None and deadline.token.cancelled, "it is told")


class TestCancelled:
    def test_an_attempt_learns_of_it_by_its_deadline(self) -> None:
        fleet, goes_on = Hearing(), []

        def work(deadline: Deadline) -> None:
            deadline.remaining_s()
            fleet.cancelled.add("j1")
            until_told(deadline)
            deadline.remaining_s()
            goes_on.append(True)

        leases = Leases(fleet, every_s=0.01)
        with leases.hold(Leased("local", "other")):
            other = Deadline.after(30)
            with pytest.raises(Cancelled):
                hold(leases, work)
            assert other.remaining_s() > 0, "the other job is still wanted"
        assert not goes_on

    def test_whatever_it_brings_is_not_wanted(self) -> None:
        fleet = Hearing()
        fleet.cancelled.add("j1")
        with pytest.raises(Cancelled):
            hold(Leases(fleet, every_s=0.01), until_told)

    def test_the_same_job_twice_is_held_to_the_end_of_each(self) -> None:
        fleet = Hearing()
        leases = Leases(fleet, every_s=0.01)

        def work(deadline: Deadline) -> None:
            hold(leases, lambda _: None)
            told = len(fleet.renewed)
            wait_until(lambda: {ONE} in fleet.renewed[told:], "it is still held")
            fleet.cancelled.add("j1")
            until_told(deadline)

        with pytest.raises(Cancelled):
            hold(leases, work)


def pulse(fleet: StubFleet, polled: dict[str, float], busy: Callable[[], int] = lambda: 0, now: float = 100.0) -> Pulse:
    return Pulse(fleet, "w@host", {"local": 2, "fly": 8}, polled, busy, clock=lambda: now)


class TestPulse:
    def test_only_what_the_broker_has_answered_lately_is_consumed(self) -> None:
        polled = {"packetfs.local": 99.0, "packetfs.fly": 91.0}
        assert pulse(Hearing(), polled).consumed() == {"local": 2}
        assert pulse(Hearing(), {}).consumed() == {}

    def test_a_worker_whose_slots_are_taken_asks_for_nothing_and_is_well(self) -> None:
        assert pulse(Hearing(), {}, lambda: 2).consumed() == {"local": 2}
        assert pulse(Hearing(), {}, lambda: 8).consumed() == {"local": 2, "fly": 8}

    def test_it_is_heard_until_it_stops(self) -> None:
        fleet = Hearing()
        beating = pulse(fleet, {"packetfs.fly": 99.0})
        beating.start()
        wait_until(lambda: fleet.consumers(time.time())["fly"] == {"w@host"}, "it is heard")
        assert fleet.consumers(time.time())["local"] == frozenset()
        beating.stop()
        assert fleet.consumers(time.time())["fly"] == frozenset()

    def test_a_store_that_is_away_ends_nothing(self) -> None:
        fleet = Hearing()
        fleet.away = True
        beating = pulse(fleet, {"packetfs.fly": 99.0})
        beating.start()
        time.sleep(0.05)
        assert any(thread.name == "packetfs-pulse" for thread in threading.enumerate())
        beating.stop()


@pytest.mark.parametrize(
    ("queue", "substrate"),
    [("packetfs.local", "local"), ("packetfs.fly-a", "fly-a"), ("local", None), ("packetfs.nowhere", None),
     ("packetfs.", None), ("celery", None), ("", None), (None, None)],
)  # fmt: skip
def test_which_substrate_a_queue_is_of(queue: str | None, substrate: str | None) -> None:
    from packetfs_compute.places import SubstrateSpec

    settings = Settings(substrates=(SubstrateSpec("fly-a", "stub"),))
    assert substrate_of_queue(queue, settings) == substrate


def test_a_process_has_one_dispatcher() -> None:
    assert current_dispatcher() is current_dispatcher()
