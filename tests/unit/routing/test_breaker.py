"""The circuit breaker: its whole table, how long it stays open, and how a place comes back."""

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.routing import breaker as module
from packetfs_compute.routing.breaker import (
    TRANSITIONS,
    Breaker,
    Event,
    State,
    next_breaker,
    opened_at,
    slow_start_share,
    state_at,
)

NOW = 1_700_000_000.0
CLOSED = Breaker("closed", NOW - 40, 0.0, 2)
OPEN = Breaker("open", NOW - 10, NOW + 10, 3)
DUE = Breaker("open", NOW - 30, NOW, 3)
HALF_OPEN = Breaker("half_open", NOW - 3, 0.0, 3, 1)

TABLE: list[tuple[Breaker, Event, Breaker]] = [
    (CLOSED, "success", CLOSED),
    (CLOSED, "failure", CLOSED),
    (CLOSED, "too_many", Breaker("open", NOW, NOW + 20, 3)),
    (CLOSED, "fallen", Breaker("open", NOW, NOW + 20, 3)),
    (CLOSED, "risen", CLOSED),
    (OPEN, "success", OPEN),
    (OPEN, "failure", OPEN),
    (OPEN, "too_many", OPEN),
    (OPEN, "fallen", Breaker("open", NOW - 10, NOW + 20, 3)),
    (OPEN, "risen", Breaker("half_open", NOW, 0.0, 3)),
    (DUE, "success", Breaker("half_open", NOW, 0.0, 3, 1)),
    (DUE, "failure", Breaker("open", NOW, NOW + 40, 4)),
    (DUE, "too_many", Breaker("open", NOW, NOW + 40, 4)),
    (DUE, "fallen", Breaker("open", NOW, NOW + 40, 4)),
    (DUE, "risen", DUE),
    (HALF_OPEN, "success", Breaker("half_open", NOW - 3, 0.0, 3, 2)),
    (HALF_OPEN, "failure", Breaker("open", NOW, NOW + 40, 4)),
    (HALF_OPEN, "too_many", Breaker("open", NOW, NOW + 40, 4)),
    (HALF_OPEN, "fallen", Breaker("open", NOW, NOW + 40, 4)),
    (HALF_OPEN, "risen", HALF_OPEN),
]


@pytest.mark.parametrize(("before", "event", "after"), TABLE)
def test_the_table(before: Breaker, event: Event, after: Breaker) -> None:
    assert next_breaker(before, event, NOW) == after


@pytest.mark.parametrize(("before", "event", "after"), TABLE)
def test_what_opened_it_is_known_by_its_moment(before: Breaker, event: Event, after: Breaker) -> None:
    stayed_open = before is OPEN or after == before
    assert opened_at(after, NOW) == (after.state == "open" and not stayed_open)
    assert not opened_at(after, NOW + 1)


def test_the_table_is_whole() -> None:
    states, events = get_args(State), get_args(Event)
    assert set(TRANSITIONS) == set(states)
    assert all(set(row) == set(events) for row in TRANSITIONS.values())
    assert {(state_at(before, NOW), event) for before, event, _ in TABLE} == {(s, e) for s in states for e in events}


def test_the_table_stands_in_the_modules_words() -> None:
    lines = [line.split() for line in (module.__doc__ or "").splitlines() if line.startswith("    ")]
    said = {(words[0], words[1]): words[2].rstrip(",") for words in lines if words[0] in TRANSITIONS}
    meant = {"open": "open", "reopen": "open", "renew": "open", "try": "half_open", "count": "closed"}
    assert said == {
        (state, event): meant.get(move, state) for state, row in TRANSITIONS.items() for event, move in row.items()
    }


@pytest.mark.parametrize(("before", "event", "after"), [row for row in TABLE if row[0] == row[2]])
def test_what_changes_nothing_gives_the_very_same(before: Breaker, event: Event, after: Breaker) -> None:
    assert next_breaker(before, event, NOW) is before


@pytest.mark.parametrize(
    ("breaker", "now", "state"),
    [
        (Breaker(), NOW, "closed"),
        (Breaker("closed", NOW, NOW + 9), NOW + 10, "closed"),
        (Breaker("open", NOW, NOW + 5), NOW, "open"),
        (Breaker("open", NOW, NOW + 5), NOW + 4.999, "open"),
        (Breaker("open", NOW, NOW + 5), NOW + 5, "half_open"),
        (Breaker("half_open", NOW), NOW + 1e6, "half_open"),
    ],
)
def test_an_open_one_whose_time_is_up_is_half_open(breaker: Breaker, now: float, state: State) -> None:
    assert state_at(breaker, now) == state


def test_it_stays_open_for_five_seconds_doubling_up_to_three_hundred() -> None:
    breaker, now, times = Breaker(), NOW, []
    for _ in range(40):
        breaker = next_breaker(breaker, "too_many", now)
        times.append(breaker.until - now)
        now = breaker.until
    assert times[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert set(times[8:]) == {300}


@pytest.mark.parametrize("jitter", [0.75, 1.0, 1.25])
def test_its_time_is_jittered(jitter: float) -> None:
    assert next_breaker(Breaker(), "too_many", NOW, jitter).until == NOW + 5 * jitter
    assert next_breaker(OPEN, "fallen", NOW, jitter).until == NOW + 20 * jitter


@pytest.mark.parametrize(("closed_for_s", "times"), [(0, 4), (299, 4), (300, 4), (301, 1), (1e6, 1)])
def test_after_a_calm_time_it_begins_with_the_short_one_again(closed_for_s: float, times: int) -> None:
    breaker = next_breaker(Breaker("closed", NOW - closed_for_s, 0.0, 3), "too_many", NOW)
    assert breaker.times == times
    assert breaker.until - NOW == 5 * 2 ** (times - 1)


def test_three_good_trials_close_it() -> None:
    breaker, states = DUE, []
    for passed in range(3):
        breaker = next_breaker(breaker, "success", NOW + passed)
        states.append(breaker.state)
    assert states == ["half_open", "half_open", "closed"]
    assert breaker == Breaker("closed", NOW + 2, 0.0, 3)


def test_trials_of_an_earlier_time_do_not_count() -> None:
    breaker = HALF_OPEN
    for event, now in (("success", NOW), ("failure", NOW), ("success", NOW + 40), ("success", NOW + 41)):
        breaker = next_breaker(breaker, event, now)  # type: ignore[arg-type]
    assert (breaker.state, breaker.trials) == ("half_open", 2)


class TestSlowStart:
    @pytest.mark.parametrize(
        ("passed_s", "share"), [(-5, 0.1), (0, 0.1), (10, 0.4), (15, 0.55), (20, 0.7), (30, 1.0), (31, 1.0), (1e6, 1.0)]
    )
    def test_a_tenth_grows_to_all_in_thirty_seconds(self, passed_s: float, share: float) -> None:
        assert slow_start_share(Breaker("closed", NOW, 0.0, 1), NOW + passed_s) == pytest.approx(share)

    @pytest.mark.parametrize("breaker", [Breaker(), Breaker("closed", NOW, 0.0, 0), OPEN, HALF_OPEN])
    def test_one_that_did_not_come_back_has_its_whole_share(self, breaker: Breaker) -> None:
        assert slow_start_share(breaker, NOW) == 1.0


_passed_s = st.sampled_from([0.0, 0.5, 4.0, 6.0, 50.0, 299.0, 400.0])
_events = st.lists(st.tuples(st.sampled_from(get_args(Event)), _passed_s, st.floats(0.75, 1.25)), max_size=80)


@patient
@given(_events)
def test_any_events_leave_a_legal_value(events: list[tuple[Event, float, float]]) -> None:
    breaker, now = Breaker(), NOW
    values = [breaker]
    for event, passed_s, jitter in events:
        now += passed_s
        breaker = next_breaker(breaker, event, now, jitter)
        values.append(breaker)
        assert breaker.state in TRANSITIONS
        assert 0 <= breaker.trials < module.TRIALS
        assert breaker.trials == 0 or breaker.state == "half_open"
        assert (breaker.until > 0) == (breaker.state == "open")
        assert breaker.since <= now
        assert breaker.state != "open" or breaker.until <= now + 300 * 1.25
        assert 0.1 <= slow_start_share(breaker, now) <= 1
    legal = {("closed", "open"), ("open", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed"),
             ("half_open", "half_open")}  # fmt: skip
    assert {(a.state, b.state) for a, b in pairwise(values) if a is not b} <= legal
