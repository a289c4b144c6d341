"""What one moment's picture of the fleet means for each place, whatever the job."""

from dataclasses import replace

import pytest

from packetfs_compute.routing import Capabilities, Health, Member, Snapshot, survey, unmeasured
from packetfs_compute.routing.breaker import Breaker
from packetfs_compute.routing.estimate import learnt
from packetfs_compute.routing.snapshot import Outlook

NOW = 1_700_000_000.0
HALF_OPEN = Breaker("half_open", NOW, 0.0, 1)
PLACE = Capabilities("fly", "own", 256, 1 << 40, 900, frozenset({"https"}))


def outlook(health: Health, place: Capabilities = PLACE) -> Outlook:
    (found,) = survey(Snapshot((Member(place, health),)), NOW).outlooks
    return found


def test_of_a_fleet_that_nothing_is_known_of() -> None:
    places = [PLACE, replace(PLACE, name="other", slots=3)]
    snapshot = unmeasured(places)
    assert [(member.place, member.health) for member in snapshot.members] == [(place, Health()) for place in places]
    found = survey(snapshot, NOW)
    assert (found.at, found.publishers) == (0.0, 1)
    assert [(one.place, one.slots, one.ahead, one.share, one.unwell) for one in found.outlooks] == [
        (places[0], 8, 0, 1.0, None),
        (places[1], 3, 0, 1.0, None),
    ]
    assert [one.success for one in found.outlooks] == pytest.approx([0.99, 0.99])


def test_it_says_when_it_was_and_how_many_publishers_look() -> None:
    found = survey(Snapshot((), NOW - 3, 7), NOW)
    assert (found.outlooks, found.at, found.publishers) == ((), NOW - 3, 7)


def test_the_line_is_the_learnt_one() -> None:
    health = Health(at=NOW - 5, weight=3, sum_x=30, sum_y=4, sum_xx=400, sum_xy=50, surprise_s=2)
    assert outlook(health).line == learnt(PLACE, health, NOW)


@pytest.mark.parametrize(
    ("declared", "consumers", "slots"),
    [(None, None, 8), (40, None, 40), (None, 6, 6), (40, 6, 6), (3, 6, 3), (1, 1, 1), (None, 1000, 1000)],
)
def test_slots_are_what_it_declares_and_what_its_consumers_run_whichever_is_less(
    declared: int | None, consumers: int | None, slots: int
) -> None:
    assert outlook(Health(slots=consumers), replace(PLACE, slots=declared)).slots == slots


def test_what_runs_and_what_is_queued_is_ahead() -> None:
    assert outlook(Health(in_flight=3, depth=4)).ahead == 7


@pytest.mark.parametrize(
    ("calls", "failures", "success"),
    [
        (0, 0, 0.99),
        (5, 0, 9.95 / 10),
        (5, 5, 4.95 / 10),
        (95, 95, 0.05),
        (1e6, 1e6, 0.05),
        (1e6, 0, 1.0),
        (15, 5, 14.95 / 20),
    ],
)
def test_its_chance_of_success_leans_on_a_good_one_and_is_never_nothing(
    calls: float, failures: float, success: float
) -> None:
    assert outlook(Health(at=NOW, calls=calls, failures=failures)).success == pytest.approx(success, abs=1e-5)


@pytest.mark.parametrize(
    ("health", "unwell"),
    [
        (Health(), None),
        (Health(slots=1), None),
        (Health(slots=0), "nobody consumes its queue"),
        (Health(breaker=Breaker("open", NOW - 1, NOW + 4, 1)), "breaker open for 4.0 s more"),
        (Health(breaker=Breaker("open", NOW - 5, NOW, 1)), None),
        (Health(breaker=HALF_OPEN, in_flight=2, depth=1), None),
        (Health(busy_until=NOW + 7.25), "asked to be left alone for 7.2 s"),
        (Health(busy_until=NOW), None),
        (Health(breaker=Breaker("closed", NOW, 0.0, 1)), None),
        (Health(breaker=Breaker("open", NOW, NOW + 9, 1), busy_until=NOW + 1, slots=0), "nobody consumes its queue"),
        (Health(breaker=Breaker("open", NOW, NOW + 9, 1), busy_until=NOW + 1), "breaker open for 9.0 s more"),
    ],
)  # fmt: skip
def test_why_its_health_speaks_against_it(health: Health, unwell: str | None) -> None:
    assert outlook(health).unwell == unwell


@pytest.mark.parametrize(
    ("breaker", "share"),
    [(Breaker(), 1.0), (Breaker("closed", NOW, 0.0, 1), 0.1), (Breaker("closed", NOW - 10, 0.0, 1), 0.4),
     (Breaker("closed", NOW - 30, 0.0, 1), 1.0), (Breaker("open", NOW, NOW + 5, 1), 1.0)],
)  # fmt: skip
def test_a_place_that_came_back_has_a_share(breaker: Breaker, share: float) -> None:
    assert outlook(Health(breaker=breaker)).share == pytest.approx(share)


@pytest.mark.parametrize(
    ("breaker", "most"),
    [(Breaker(), None), (Breaker("open", NOW, NOW + 5, 1), None), (Breaker("open", NOW - 5, NOW, 1), 3), (HALF_OPEN, 3),
     (Breaker("closed", NOW, 0.0, 1), None)],
)  # fmt: skip
def test_one_whose_breaker_is_half_open_takes_three(breaker: Breaker, most: int | None) -> None:
    assert outlook(Health(breaker=breaker)).most == most


def test_and_what_it_did_before_is_not_held_against_it() -> None:
    bad = Health(at=NOW, calls=50, failures=50, surprise_s=5, weight=1, sum_y=3)
    tried, shut = (outlook(replace(bad, breaker=breaker)) for breaker in (HALF_OPEN, Breaker("open", NOW, NOW + 5, 1)))
    assert (tried.success, tried.line.surprise_s) == (pytest.approx(0.99), 0)
    assert (shut.success, shut.line.surprise_s) == (pytest.approx(4.95 / 55), 5)
    assert tried.line.mean_s == shut.line.mean_s
