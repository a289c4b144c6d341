"""How a scan is split: windows that cover the range exactly, and how wide they are chosen."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.errors import BadProgram
from packetfs_compute.names import MAX_RANGE_BYTES, MAX_WINDOWS
from packetfs_compute.scanning.plan import LEAST_WINDOW, MOST_WINDOW, Plan, Rate, plan_of, window_for

MIB = 1 << 20
GIB = 1 << 30
LOCAL = Rate(0.002, 1 / 500e6, 2, MAX_RANGE_BYTES)
LAMBDA = Rate(0.1, 1 / 80e6, 100, 512 * MIB)
SMALL = Rate(0.05, 1 / 50e6, 8, 16 * MIB)


class TestPlan:
    @patient
    @given(st.integers(0, 1 << 50), st.integers(0, 3000), st.integers(1, 500))
    def test_windows_cover_the_range_in_order_and_once(self, offset: int, length: int, window: int) -> None:
        plan = Plan(offset, length, window, None, None)
        at = offset
        for number, one in enumerate(plan):
            assert (one.number, one.offset) == (number, at)
            assert 0 < one.length <= window
            at += one.length
        assert at == offset + length
        assert plan.windows == len(list(plan))
        assert all(one.length == window for one in list(plan)[:-1])

    def test_it_is_kept_as_json(self) -> None:
        plan = Plan(7, 100, 10, 200, '"abc"')
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan

    def test_there_are_at_most_so_many_windows(self) -> None:
        assert plan_of(0, MAX_WINDOWS * 10, 10, None, None).windows == MAX_WINDOWS
        with pytest.raises(BadProgram) as caught:
            plan_of(0, MAX_WINDOWS * 10 + 1, 10, None, None)
        assert caught.value.details["field"] == "window"
        assert str(MIB) in str(caught.value.hint)
        assert plan_of(0, MAX_WINDOWS * 10 + 1, 10, None, None, chained_here=True).windows == MAX_WINDOWS + 1

    def test_a_range_longer_than_values_are_exact_for_is_refused(self) -> None:
        plan_of(0, MAX_RANGE_BYTES, GIB * 8, None, None)
        with pytest.raises(BadProgram, match=r"program\.length"):
            plan_of(0, MAX_RANGE_BYTES + 1, GIB * 8, None, None)


class TestWidth:
    def test_a_window_takes_a_second_or_two_where_it_runs(self) -> None:
        width = window_for(1000 * GIB, [LAMBDA], LAMBDA)
        assert 1 <= LAMBDA.overhead_s + width * LAMBDA.s_per_byte <= 2

    def test_a_fast_machine_gets_wide_ones(self) -> None:
        assert 64 * MIB <= window_for(100 * GIB, [LOCAL], LOCAL) <= MOST_WINDOW

    def test_a_small_object_is_shared_among_the_slots(self) -> None:
        assert window_for(320 * MIB, [LOCAL], LOCAL) == 40 * MIB
        assert window_for(320 * MIB, [LOCAL, LAMBDA], LOCAL) == LEAST_WINDOW

    def test_what_a_place_cannot_take_is_not_sent(self) -> None:
        assert window_for(100 * GIB, [LOCAL, SMALL], LOCAL) == SMALL.max_range_bytes
        tiny = Rate(0.05, 1e-9, 8, MIB)
        assert window_for(100 * GIB, [LOCAL, tiny], LOCAL) > LEAST_WINDOW, "a place of toys holds nobody back"

    def test_a_slow_place_does_not_make_them_tiny(self) -> None:
        assert window_for(100 * GIB, [LOCAL], Rate(5.0, 1e-3, 1, GIB)) >= LEAST_WINDOW

    @patient
    @given(
        st.integers(0, MAX_RANGE_BYTES),
        st.lists(
            st.builds(Rate, st.floats(0, 10), st.floats(0, 1), st.integers(1, 10_000), st.integers(1, MAX_RANGE_BYTES)),
            min_size=1,
            max_size=5,
        ),
    )
    def test_whatever_is_measured_the_plan_is_one(self, length: int, rates: list[Rate]) -> None:
        width = window_for(length, rates, rates[0])
        assert width >= min(
            LEAST_WINDOW,
            *(rate.max_range_bytes for rate in rates if rate.max_range_bytes >= LEAST_WINDOW),
            LEAST_WINDOW,
        )
        assert plan_of(0, length, width, None, None).windows <= MAX_WINDOWS
