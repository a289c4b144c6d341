"""What an attempt will take: the declared line, the learnt one, and what a surprise adds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.routing import Capabilities, Health, Outcome
from packetfs_compute.routing.estimate import Line, learnt, surprise_of
from packetfs_compute.routing.health import recorded

NOW = 1_700_000_000.0
MB = 10**6
PLACE = Capabilities(
    "fly", "own", 256, 1 << 40, 900, frozenset({"https"}), overhead_s=0.05, bytes_per_s=1e8
)  # 1 s for 100 MB


def after(attempts: list[tuple[int, float]], health: Health | None = None, now: float = NOW) -> Health:
    health = health or Health()
    for byte_count, seconds in attempts:
        health, _ = recorded(health, Outcome(ok=True, byte_count=byte_count, seconds=seconds), now)
    return health


def test_with_nothing_measured_it_is_what_is_declared() -> None:
    line = learnt(PLACE, Health(), NOW)
    assert line.overhead_s == pytest.approx(0.05)
    assert line.s_per_byte == pytest.approx(1e-8)
    assert line.mean_s == pytest.approx(0.05)
    assert line.surprise_s == 0
    assert line.seconds(0) == pytest.approx(0.05)
    assert line.seconds(500 * MB) == pytest.approx(5.05)


@pytest.mark.parametrize(("overhead_s", "s_per_mb"), [(0.05, 0.01), (0.3, 0.002), (2.0, 0.0001), (0.0, 0.05)])
def test_a_line_is_learnt_from_attempts_that_lie_on_it(overhead_s: float, s_per_mb: float) -> None:
    sizes = [1, 10, 50, 100, 200, 400]
    health = after([(size * MB, overhead_s + s_per_mb * size) for size in sizes * 500])
    line = learnt(PLACE, health, NOW)
    assert line.overhead_s == pytest.approx(overhead_s, abs=2e-3)
    assert line.s_per_byte * MB == pytest.approx(s_per_mb, rel=0.02, abs=1e-5)


def test_a_line_that_was_declared_right_stays_exact() -> None:
    health = after([(size * MB, 0.05 + size / 100) for size in (0, 3, 7, 1000)])
    line = learnt(PLACE, health, NOW)
    assert (line.overhead_s, line.s_per_byte) == (pytest.approx(0.05), pytest.approx(1e-8))


def test_no_other_line_fits_the_attempts_and_what_is_declared_better() -> None:
    attempts = [(4 * MB, 0.5), (64 * MB, 1.1), (8 * MB, 0.4)]

    def misfit(overhead_s: float, s_per_mb: float) -> float:
        measured = sum((seconds - overhead_s - s_per_mb * byte_count / MB) ** 2 for byte_count, seconds in attempts)
        return measured + (overhead_s - 0.05) ** 2 + 100**2 * (s_per_mb - 0.01) ** 2

    line = learnt(PLACE, after(attempts), NOW)
    overhead_s, s_per_mb = line.overhead_s, line.s_per_byte * MB
    least = misfit(overhead_s, s_per_mb)
    for step in (1e-2, 1e-4):
        others = [(overhead_s + a * step, s_per_mb + b * step / 100) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        assert all(misfit(*other) > least for other in others)
    assert line.mean_s == pytest.approx((0.5 + 1.1 + 0.4 + 0.05) / 4)


@pytest.mark.parametrize(
    ("byte_count", "seconds"),
    [(100 * MB, 9.0), (100 * MB, 0.1), (8 * MB, 0.9), (8 * MB, 0.01), (1 * MB, 0.001), (0, 2.0)],
)
def test_ten_attempts_outweigh_what_was_declared(byte_count: int, seconds: float) -> None:
    declared = learnt(PLACE, Health(), NOW).seconds(byte_count)
    learnt_s = learnt(PLACE, after([(byte_count, seconds)] * 10), NOW).seconds(byte_count)
    assert abs(learnt_s - seconds) < abs(learnt_s - declared)


@pytest.mark.parametrize(("byte_count", "seconds"), [(8 * MB, 0.4), (0, 0.4), (1000, 3.0), (8 * MB, 1.0)])
def test_attempts_that_all_are_alike_leave_a_sane_slope(byte_count: int, seconds: float) -> None:
    line = learnt(PLACE, after([(byte_count, seconds)] * 1000), NOW)
    assert line.seconds(byte_count) == pytest.approx(seconds, rel=0.01, abs=1e-3)
    assert seconds <= line.seconds(100 * MB) < seconds + 2


def test_where_more_bytes_took_less_the_slope_is_flat() -> None:
    health = after([(1 * MB, 5.0), (400 * MB, 0.1)] * 50)
    line = learnt(PLACE, health, NOW)
    assert line.s_per_byte == 0
    assert line.overhead_s == pytest.approx((50 * 5.1 + 0.05) / 101)


def test_where_the_line_would_begin_below_nothing_it_goes_through_the_origin() -> None:
    health = after([(100 * MB, 1.0), (200 * MB, 50.0)] * 50)
    line = learnt(PLACE, health, NOW)
    assert line.overhead_s == 0
    assert line.s_per_byte * MB == pytest.approx(
        (50 * (100 * 1.0 + 200 * 50.0) + 100**2 * 0.01) / (50 * (100**2 + 200**2) + 100**2)
    )


def test_what_was_learnt_is_forgotten_in_time() -> None:
    health = after([(100 * MB, 9.0)] * 100)
    seconds = [learnt(PLACE, health, NOW + passed).seconds(100 * MB) for passed in (0, 300, 900, 3000, 30_000)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 8.5
    assert seconds[-1] == pytest.approx(1.05)
    half = learnt(PLACE, health, NOW + 300)
    assert half.mean_s == pytest.approx((900 / math.e + 0.05) / (100 / math.e + 1))


def test_a_clock_that_went_back_forgets_nothing() -> None:
    health = after([(100 * MB, 9.0)] * 10)
    assert learnt(PLACE, health, NOW - 50) == learnt(PLACE, health, NOW)


class TestSurprise:
    @pytest.mark.parametrize(
        ("expected_s", "seconds", "surprise_s"),
        [(1.0, 1.0, 0.0), (1.0, 3.0, 0.0), (1.0, 3.1, 2.1), (1.0, 0.1, 0.0), (0.001, 0.005, 0.0), (0.001, 0.02, 0.0),
         (0.001, 0.022, 0.021), (0.0, 0.5, 0.5), (10.0, 300.0, 290.0)],
    )  # fmt: skip
    def test_it_is_what_is_beyond_the_usual_scatter(self, expected_s: float, seconds: float, surprise_s: float) -> None:
        assert surprise_of(expected_s, seconds) == pytest.approx(surprise_s)

    def test_it_counts_at_once_and_fades(self) -> None:
        health, _ = recorded(Health(), Outcome(ok=True, byte_count=0, seconds=0.05, surprise_s=4.0), NOW)
        usual = learnt(PLACE, health, NOW + 1e4).seconds(0)
        assert learnt(PLACE, health, NOW).seconds(0) == pytest.approx(4.0 + usual, rel=1e-3)
        assert learnt(PLACE, health, NOW + 10).surprise_s == pytest.approx(4.0 / math.e)
        assert learnt(PLACE, health, NOW + 200).surprise_s < 1e-6

    def test_a_lesser_one_does_not_take_away_a_greater(self) -> None:
        health = after([])
        for surprise_s in (4.0, 1.0, 0.0):
            health, _ = recorded(health, Outcome(ok=True, surprise_s=surprise_s), NOW)
        assert learnt(PLACE, health, NOW).surprise_s == 4.0


_attempts = st.lists(st.tuples(st.integers(0, 1 << 45), st.floats(0, 3600)), max_size=40)
_places = st.builds(
    Capabilities, st.just("x"), st.just("own"), st.just(1), st.just(1), st.just(1.0), st.just(frozenset()),
    overhead_s=st.floats(0, 3600), bytes_per_s=st.floats(1, 1e15),
)  # fmt: skip


@patient
@given(_places, _attempts, st.floats(0, 1e5), st.integers(0, 1 << 45), st.integers(0, 1 << 45))
def test_it_is_never_negative_and_more_bytes_never_take_less(
    place: Capabilities, attempts: list[tuple[int, float]], passed_s: float, byte_count: int, more: int
) -> None:
    line = learnt(place, after(attempts), NOW + passed_s)
    for value in (line.overhead_s, line.s_per_byte, line.surprise_s):
        assert value >= 0
        assert math.isfinite(value)
    assert line.mean_s > 0
    assert 0 <= line.seconds(byte_count) <= line.seconds(byte_count + more)


@patient
@given(st.floats(0, 3600), st.floats(0, 3600))
def test_a_surprise_is_never_more_than_what_it_took(expected_s: float, seconds: float) -> None:
    assert 0 <= surprise_of(expected_s, seconds) <= seconds


def test_a_line_adds_up() -> None:
    assert Line(0.5, 1e-6, 1.0, 2.0).seconds(2_000_000) == 4.5
