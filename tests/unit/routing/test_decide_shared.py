"""What the simulator taught: many publishers' jobs share places by room, and a failure among many is one."""

import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from packetfs_compute.places import Prices
from packetfs_compute.routing import Capabilities, Health, Member, Outcome, Policy, Snapshot, Wanted, decide, survey
from packetfs_compute.routing.breaker import Breaker
from packetfs_compute.routing.estimate import learnt
from packetfs_compute.routing.health import FAILURE_S, recorded

NOW = 1_700_000_000.0
PLACE = Capabilities("a", "own", 1024, 1 << 45, 3600.0, frozenset({"https"}), overhead_s=0.1, bytes_per_s=1e9, slots=10)
JOB = Wanted(0)


def drawn(*places: Capabilities | Member, coming: float, draws: int = 2000, publishers: int = 1) -> Counter[str | None]:
    members = tuple(one if isinstance(one, Member) else Member(one, Health(at=NOW)) for one in places)
    fleet = survey(Snapshot(members, NOW, publishers), NOW)
    rng = Random(8)
    return Counter(decide(JOB, Policy(), fleet, rng.random, coming=coming).substrate for _ in range(draws))


B = replace(PLACE, name="b")


def test_without_others_the_best_is_picked() -> None:
    dear = replace(B, overhead_s=0.108)
    assert drawn(PLACE, dear, coming=0.0) == {"a": 2000}


def test_equals_share_by_the_room_that_they_have() -> None:
    big = replace(B, slots=30)
    assert drawn(PLACE, big, coming=1.0)["b"] == pytest.approx(1500, rel=0.05)
    full = Member(PLACE, Health(at=NOW, in_flight=9, weight=100.0, sum_y=500.0))  # 5 s each: nine stay for long
    assert drawn(full, B, coming=1.0)["a"] < 20


def test_what_differs_by_less_than_a_tenth_is_equal_and_by_more_is_not() -> None:
    assert set(drawn(PLACE, replace(B, overhead_s=0.108), coming=1.0)) == {"a", "b"}
    assert set(drawn(PLACE, replace(B, overhead_s=0.112), coming=1.0)) == {"a"}


def test_what_does_not_fit_goes_to_the_next_best_if_that_costs_less_than_to_wait() -> None:
    room = 0.7 * 10 * (1 + 1 / 0.1)  # jobs until the next snapshot, at 0.1 s each
    slower, dear = replace(B, overhead_s=0.2, slots=1000), replace(B, slots=1000, prices=Prices(usd_per_request=1.0))
    assert drawn(PLACE, slower, coming=room)["b"] == 0
    assert drawn(PLACE, slower, coming=4 * room)["b"] == pytest.approx(1500, rel=0.05)
    assert drawn(PLACE, dear, coming=4 * room)["b"] == 0


def test_in_a_panic_they_share_as_well() -> None:
    shut = Health(at=NOW, breaker=Breaker("open", NOW, NOW + 9, 1))
    assert set(drawn(Member(PLACE, shut), Member(B, shut), coming=5.0)) == {"a", "b"}


class TestFailuresAmongMany:
    GOOD = Outcome(ok=True, seconds=0.1)
    BAD = Outcome(ok=False, substrate_fault=True, seconds=0.1)

    def health(self, *outcomes: Outcome) -> Health:
        health = Health()
        for outcome in outcomes:
            health, _ = recorded(health, outcome, NOW)
        return health

    def test_the_last_one_counts_in_full(self) -> None:
        assert learnt(PLACE, self.health(*[self.GOOD] * 99, self.BAD), NOW).surprise_s == FAILURE_S

    def test_one_that_a_good_attempt_has_followed_counts_as_one_of_so_many(self) -> None:
        health = self.health(*[self.GOOD] * 98, self.BAD, self.GOOD)
        assert learnt(PLACE, health, NOW).surprise_s == pytest.approx(FAILURE_S / 100)
        assert learnt(PLACE, health, NOW + 10).surprise_s == pytest.approx(FAILURE_S / 100 / math.e)
        later, _ = recorded(health, self.GOOD, NOW + 10)
        assert learnt(PLACE, later, NOW + 10).surprise_s < FAILURE_S / 100

    def test_a_place_of_which_half_fails_stays_bad(self) -> None:
        health = self.health(*[self.BAD, self.GOOD] * 3)
        assert learnt(PLACE, health, NOW).surprise_s == pytest.approx(FAILURE_S / 2)

    def test_slowness_is_no_failure(self) -> None:
        slow = Outcome(ok=True, seconds=9.0, surprise_s=8.9)
        assert learnt(PLACE, self.health(*[self.GOOD] * 99, slow, self.GOOD), NOW).surprise_s == 8.9
        assert learnt(PLACE, self.health(self.BAD, *[self.GOOD] * 99, slow, self.GOOD), NOW).surprise_s == 8.9
