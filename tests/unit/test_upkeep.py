"""Upkeep: who is probed when, what comes of it, and that an absent broker is waited for."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from packetfs_compute.errors import BrokerUnavailable, Internal, JobError
from packetfs_compute.fleet import StubFleet
from packetfs_compute.routing import Capabilities
from packetfs_compute.upkeep import Prober, run_turns

NOW = 1_700_000_000.0


class Place:
    """A substrate whose health is what it is told."""

    def __init__(self, name: str, kind: str = "fly", healthy: bool | JobError | float = True) -> None:
        self.capabilities = Capabilities(name, "own", 256, 1 << 30, 60, frozenset({"https"}), kind=kind)
        self.healthy = healthy
        self.asked = 0

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError("a probe runs nothing")

    def health(self, timeout_s: float) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self.healthy, JobError):
            raise self.healthy
        return {"status": "healthy" if self.healthy else "draining"}


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def prober(*places: Place) -> tuple[Prober, StubFleet, Clock]:
    clock, fleet = Clock(), StubFleet(place.capabilities for place in places)
    return Prober(fleet, places, clock, lambda: 0.5), fleet, clock


def state(fleet: StubFleet, now: float, at: int = 0) -> str:
    return fleet.snapshot(now).members[at].health.breaker.state


def test_a_place_that_is_well_is_asked_every_ten_seconds_once_that_is_sure() -> None:
    place = Place("fly")
    probing, _, clock = prober(place)
    asked = []
    for _ in range(30):
        clock.now += 1
        if probing.turn():
            asked.append(clock.now - NOW)
    assert asked == [1, 3, 13, 23]


def test_a_place_that_does_not_answer_is_asked_every_two_seconds_and_shut_out_after_three() -> None:
    place = Place("fly", healthy=Internal("connection refused"))
    probing, fleet, clock = prober(place)
    states = []
    for _ in range(8):
        clock.now += 1
        if probing.turn():
            states.append(state(fleet, clock.now))
    assert states == ["closed", "closed", "open", "open"]
    place.healthy = True
    for _ in range(4):
        clock.now += 1
        probing.turn()
    assert state(fleet, clock.now) == "half_open", "after two answers it may try"


def test_it_is_told_once_what_opened_a_breaker() -> None:
    told: list[tuple[str, str, str]] = []
    places = Place("fly", healthy=Internal("connection refused")), Place("sick", healthy=False), Place("well")
    probing, _, clock = prober(*places)
    probing.opened = lambda *what: told.append(what)
    for _ in range(5):
        clock.now += 2
        probing.turn()
    assert sorted(told) == [("fly", "probe", "connection refused"), ("sick", "probe", "its status is 'draining'")]


def test_a_place_that_hangs_until_its_breaker_opens_is_told_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetfs_compute.upkeep.PROBE_TIMEOUT_S", -0.9)
    told: list[tuple[str, str, str]] = []
    release = threading.Event()

    class Hanging(Place):
        def health(self, timeout_s: float) -> dict[str, Any]:
            release.wait(20)
            return super().health(timeout_s)

    probing, _, clock = prober(Hanging("a"))
    probing.opened = lambda *what: told.append(what)
    for _ in range(4):
        clock.now += 2
        probing.turn()
    release.set()
    probing.close()
    assert told == [("a", "probe", "no answer within -0.9 s")]


def test_an_answer_that_is_not_well_is_none() -> None:
    probing, fleet, clock = prober(Place("fly", healthy=False))
    for _ in range(3):
        clock.now += 2
        assert probing.turn() == {"fly": False}
    assert state(fleet, clock.now) == "open"


def test_this_machine_is_known_by_its_pulse_and_not_asked() -> None:
    local, fly = Place("local", "local"), Place("fly")
    probing, _, clock = prober(local, fly)
    clock.now += 2
    assert probing.turn() == {"fly": True}
    assert (local.asked, fly.asked) == (0, 1)


def test_a_place_that_hangs_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetfs_compute.upkeep.PROBE_TIMEOUT_S", -0.8)
    release = threading.Event()

    class Hanging(Place):
        def health(self, timeout_s: float) -> dict[str, Any]:
            release.wait(20)
            return super().health(timeout_s)

    probing, _, clock = prober(Hanging("a"), Place("b"))
    clock.now += 2
    assert probing.turn() == {"a": False, "b": True}
    release.set()
    probing.close()


def test_turns_are_taken_until_it_is_stopped_and_an_absent_broker_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    def broken() -> None:
        calls.append("broken")
        if len(calls) < 6:
            raise BrokerUnavailable("nobody is there")

    stops = iter([False] * 5 + [True])
    run_turns((broken, lambda: calls.append("next")), lambda seconds: next(stops))
    assert calls.count("broken") == 6
    assert calls.count("next") == 1
    told = [record.message for record in caplog.records]
    assert told == ["nobody is there", "the broker is back"], "once, not at every turn"


def test_a_defect_is_not_hidden() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_turns((broken,), lambda seconds: True)
