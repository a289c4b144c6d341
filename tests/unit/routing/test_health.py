"""What is measured of a substrate: one value after another, by functions of the last one, an event and a moment."""

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.routing import Health, Outcome
from packetfs_compute.routing.breaker import TRANSITIONS, TRIALS, Breaker
from packetfs_compute.routing.health import faded, probe_due, probed, recorded

NOW = 1_700_000_000.0
GOOD = Outcome(ok=True, byte_count=2_000_000, seconds=0.5, cost_usd=0.25)
BAD = Outcome(ok=False, substrate_fault=True, seconds=0.1, cost_usd=0.5)
SOURCE_BAD = Outcome(ok=False, seconds=0.1)


def after(*outcomes: Outcome, health: Health | None = None, now: float = NOW) -> Health:
    health = health or Health()
    for outcome in outcomes:
        health, _ = recorded(health, outcome, now)
    return health


class TestRecorded:
    def test_a_good_attempt(self) -> None:
        assert after(GOOD) == Health(
            at=NOW, weight=1, sum_x=2, sum_y=0.5, sum_xx=4, sum_xy=1, calls=1, budget=100, attempts=1,
            byte_count=2_000_000, cost_usd=0.25,
        )  # fmt: skip

    def test_an_attempt_that_failed_by_the_places_fault(self) -> None:
        assert after(BAD) == Health(
            at=NOW, surprise_s=5, calls=1, failures=1, streak=1, budget=100, attempts=1, cost_usd=0.5
        )

    def test_one_that_failed_by_anothers_fault_is_no_judgement(self) -> None:
        assert after(SOURCE_BAD) == Health(at=NOW, budget=100, attempts=1)
        assert after(BAD, BAD, SOURCE_BAD).streak == 2, "and does not break a streak"

    def test_nor_does_it_close_a_breaker_that_is_half_open(self) -> None:
        half_open = Health(breaker=Breaker("half_open", NOW, 0.0, 1))
        assert after(*[SOURCE_BAD] * 9, health=half_open).breaker == half_open.breaker
        assert after(*[GOOD] * 3, health=half_open).breaker.state == "closed"

    def test_the_value_before_is_left_alone(self) -> None:
        before = after(GOOD)
        copy = replace(before)
        recorded(before, BAD, NOW + 5)
        probed(before, False, NOW + 5)
        assert before == copy

    @pytest.mark.parametrize(
        ("outcomes", "state"),
        [
            ([BAD] * 4, "closed"),
            ([BAD] * 5, "open"),
            ([BAD] * 4 + [GOOD, BAD], "open"),
            ([GOOD] * 3 + [BAD], "closed"),
            ([GOOD] * 4 + [BAD], "closed"),
            ([GOOD] * 3 + [BAD] * 2, "open"),
            ([GOOD] * 7 + [BAD] * 2, "open"),
            ([GOOD] * 8 + [BAD] * 2, "closed"),
            ([GOOD] * 40 + [BAD] * 4, "closed"),
            ([GOOD] * 40 + [BAD] * 5, "open"),
            ([SOURCE_BAD] * 100, "closed"),
            ([BAD] * 4 + [SOURCE_BAD] * 9 + [BAD], "open"),
        ],
    )
    def test_five_failures_in_a_row_or_a_success_rate_below_four_fifths_open_it(
        self, outcomes: list[Outcome], state: str
    ) -> None:
        health = after(*outcomes)
        assert health.breaker.state == state
        assert health.opened == (state == "open")

    def test_what_fades_fades_at_its_own_pace(self) -> None:
        health = faded(replace(after(GOOD, BAD), budget=7.0), NOW + 3)
        for name, tau_s in (("weight", 300), ("sum_x", 300), ("sum_y", 300), ("sum_xx", 300), ("sum_xy", 300),
                            ("surprise_s", 10), ("calls", 30), ("failures", 30)):  # fmt: skip
            assert getattr(health, name) == pytest.approx(getattr(after(GOOD, BAD), name) * math.exp(-3 / tau_s)), name
        assert health.budget == pytest.approx(37)
        assert (health.at, health.streak, health.attempts) == (NOW + 3, 1, 2)

    def test_a_clock_that_went_back_fades_nothing_and_is_not_followed(self) -> None:
        health = after(GOOD, BAD)
        assert faded(health, NOW - 100) == health
        assert recorded(health, GOOD, NOW - 100)[0].at == NOW

    @pytest.mark.parametrize(("asked_s", "busy_s"), [(0.5, 0.5), (300, 300), (301, 300), (1e9, 300)])
    def test_it_is_left_alone_as_long_as_it_asks_up_to_five_minutes(self, asked_s: float, busy_s: float) -> None:
        assert after(replace(BAD, retry_after_s=asked_s)).busy_until == NOW + busy_s

    def test_a_shorter_wish_does_not_take_back_a_longer_one(self) -> None:
        wishes = [replace(BAD, retry_after_s=asked_s) for asked_s in (9, 2, 0)]
        assert after(*wishes).busy_until == NOW + 9

    def test_when_it_is_well_again_its_past_is_forgotten(self) -> None:
        opened = after(*[replace(BAD, jitter=1.0)] * 5)
        health = after(GOOD, GOOD, GOOD, health=opened, now=NOW + 5)
        assert health.breaker == Breaker("closed", NOW + 5, 0.0, 1)
        assert (health.calls, health.failures, health.streak, health.surprise_s) == (0, 0, 0, 0)
        assert health.attempts == 8
        assert health.weight == 3, "what attempts take is still known"

    def test_the_retry_budget(self) -> None:
        wants = replace(SOURCE_BAD, wants_retry=True)
        health, granted = Health(budget=0.9), []
        for _ in range(7):
            health, grant = recorded(health, wants, health.at)
            granted.append(grant)
        assert granted == [True, False, False, False, False, True, False], "each call earns a fifth, a retry costs one"
        assert recorded(replace(health, budget=0.0), wants, health.at + 0.1)[1], "and each second earns ten"
        assert not recorded(Health(), SOURCE_BAD, NOW)[1], "nobody asked"


class TestProbed:
    def test_three_bad_ones_in_a_row_open_the_breaker(self) -> None:
        health, states = Health(), []
        for ok in (False, False, True, False, False, False, False):
            health = probed(health, ok, NOW)
            states.append((health.probe_streak, health.breaker.state))
        assert states == [(-1, "closed"), (-2, "closed"), (1, "closed"), (-1, "closed"), (-2, "closed"), (-3, "open"),
                          (-4, "open")]  # fmt: skip
        assert health.opened == 1

    def test_as_long_as_they_are_bad_it_stays_open(self) -> None:
        health = Health()
        for passed in range(0, 3000, 2):
            health = probed(health, False, NOW + passed)
        assert health.breaker.until > NOW + 2998
        assert (health.breaker.times, health.opened) == (1, 1)

    def test_two_good_ones_let_it_try_before_its_time(self) -> None:
        health = after(*[BAD] * 5)
        health = probed(health, True, NOW + 1)
        assert health.breaker.state == "open"
        health = probed(health, True, NOW + 2)
        assert (health.breaker.state, health.breaker.trials) == ("half_open", 0)
        assert health.streak == 5, "good attempts cure it, not probes"

    def test_they_say_when_they_were(self) -> None:
        assert probed(Health(), True, NOW).probed_at == NOW
        assert probed(Health(), False, NOW).probed_at == NOW

    @pytest.mark.parametrize(
        ("health", "every_s"),
        [
            (Health(), 2),
            (Health(probe_streak=1), 2),
            (Health(probe_streak=2), 10),
            (Health(probe_streak=99), 10),
            (Health(probe_streak=-1), 2),
            (Health(probe_streak=9, streak=1), 2),
            (Health(probe_streak=9, breaker=Breaker("open", NOW, NOW + 9, 1)), 2),
            (Health(probe_streak=9, breaker=Breaker("half_open", NOW, 0.0, 1)), 2),
        ],
    )
    def test_one_is_due_every_ten_seconds_or_every_two_where_it_is_not_sure(
        self, health: Health, every_s: float
    ) -> None:
        health = replace(health, probed_at=NOW)
        assert [probe_due(health, NOW + passed) for passed in (0, every_s - 0.01, every_s, every_s + 100)] == [
            False, False, True, True,
        ]  # fmt: skip

    def test_one_that_was_never_probed_is_due(self) -> None:
        assert probe_due(Health(), NOW)


_outcomes = st.builds(
    Outcome,
    ok=st.booleans(),
    substrate_fault=st.booleans(),
    byte_count=st.integers(0, 1 << 45),
    seconds=st.floats(0, 3600),
    surprise_s=st.floats(0, 3600),
    cost_usd=st.floats(0, 1e3),
    retry_after_s=st.floats(0, 1e9),
    wants_retry=st.booleans(),
    jitter=st.floats(0.75, 1.25),
).map(lambda outcome: replace(outcome, substrate_fault=outcome.substrate_fault and not outcome.ok))


@patient
@given(st.lists(st.tuples(st.sampled_from([-5.0, 0.0, 0.1, 7.0, 400.0]), _outcomes | st.booleans()), max_size=60))
def test_any_history_leaves_a_legal_value(history: list[tuple[float, Outcome | bool]]) -> None:
    health, now = Health(), NOW
    for passed_s, event in history:
        before, now = health, now + passed_s
        health = probed(before, event, now) if isinstance(event, bool) else recorded(before, event, now)[0]
        assert all(math.isfinite(getattr(health, f.name)) for f in fields(Health) if f.name not in ("breaker", "slots"))
        assert 0 <= health.failures <= health.calls + 1e-9
        assert 0 <= health.budget <= 100
        assert min(health.weight, health.sum_x, health.sum_y, health.sum_xx, health.sum_xy, health.surprise_s) >= 0
        assert health.attempts >= before.attempts
        assert health.opened >= before.opened
        assert health.breaker.state in TRANSITIONS
        assert 0 <= health.breaker.trials < TRIALS
        assert health.at >= before.at
