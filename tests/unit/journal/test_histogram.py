"""Percentiles of bucketed durations: near the true ones, for any durations at all."""

import math
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packetfs_compute.journal.histogram import ERROR, bucket_of, middle_s, percentile_s

DURATIONS = st.lists(st.floats(1e-5, 7200.0), min_size=1, max_size=200)


def nearest_rank(durations: list[float], share: float) -> float:
    return sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]


@given(DURATIONS, st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
@example([0.1] * 99 + [9.0], 0.99)
@example([0.1] * 98 + [9.0] * 2, 0.99)
def test_a_percentile_is_within_the_buckets_error_of_the_true_one(durations: list[float], share: float) -> None:
    told = percentile_s(Counter(map(bucket_of, durations)), share)
    assert told is not None
    true = nearest_rank(durations, share)
    assert true / (1 + ERROR) * (1 - 1e-9) <= told <= true * (1 + ERROR) * (1 + 1e-9)


@given(DURATIONS, DURATIONS)
def test_buckets_of_two_places_or_times_add_up(some: list[float], more: list[float]) -> None:
    both = Counter(map(bucket_of, some)) + Counter(map(bucket_of, more))
    assert percentile_s(both, 0.95) == percentile_s(Counter(map(bucket_of, some + more)), 0.95)


def test_the_error_is_about_a_tenth() -> None:
    assert 0.05 < ERROR < 0.1


def test_nothing_has_no_percentile() -> None:
    assert percentile_s({}, 0.5) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, float("nan")])
def test_what_is_too_short_to_be_told_apart_is_in_the_first(seconds: float) -> None:
    assert bucket_of(seconds) == 0
    assert middle_s(0) == 1e-5


@pytest.mark.parametrize("seconds", [7200.0, 1e9, float("inf")])
def test_what_is_longer_than_any_attempt_is_in_the_last(seconds: float) -> None:
    assert bucket_of(seconds) == bucket_of(7200.0) < 128
