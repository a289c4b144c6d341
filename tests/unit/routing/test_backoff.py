"""Full jitter: at random, below a bound that doubles with each try and is capped."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.routing.backoff import full_jitter_s

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("tries", "most_s"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 3.2), (6, 6.4), (7, 10), (8, 10), (10**9, 10)]
)
def test_its_bound_doubles_with_each_try_up_to_ten_seconds(tries: int, most_s: float) -> None:
    assert full_jitter_s(tries, lambda: ALMOST_ONE) == pytest.approx(most_s)
    assert full_jitter_s(tries, lambda: 0.5) == pytest.approx(most_s / 2)
    assert full_jitter_s(tries, lambda: 0.0) == 0


def test_base_and_cap_may_be_others() -> None:
    waits = [full_jitter_s(tries, lambda: ALMOST_ONE, base_s=1, cap_s=5) for tries in (1, 2, 3, 4)]
    assert waits == pytest.approx([2, 4, 5, 5])


def test_those_who_failed_together_do_not_come_back_together() -> None:
    rng = random.Random(7)
    waits = sorted(full_jitter_s(5, rng.random) for _ in range(1000))
    tenths = [sum(at * 0.32 <= wait < (at + 1) * 0.32 for wait in waits) for at in range(10)]
    assert sum((count - 100) ** 2 / 100 for count in tenths) < 27.9, "chi-square, 9 degrees of freedom, p = 0.001"


@patient
@given(st.integers(0, 10**12), st.floats(0, 1, exclude_max=True), st.floats(1e-6, 10), st.floats(1e-6, 1e4))
def test_it_is_within_its_bounds(tries: int, drawn: float, base_s: float, cap_s: float) -> None:
    assert 0 <= full_jitter_s(tries, lambda: drawn, base_s, cap_s) <= cap_s
