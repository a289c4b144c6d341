"""What follows a failed attempt: the whole table, by whose fault it was and what is left of the deadline."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.errors import (
    AttemptTimeout,
    BadPolicy,
    BadProgram,
    Busy,
    ForbiddenSource,
    Internal,
    JobError,
    NoSubstrate,
    RangeNotSatisfiable,
    SourceChanged,
    SourceFailed,
    SourceNotFound,
    TooLarge,
    Unauthorized,
)
from packetfs_compute.routing import Decision
from packetfs_compute.routing.recovery import (
    LEAST_ATTEMPT_S,
    MAX_ATTEMPTS,
    Again,
    Failed,
    after_failure,
    attempt_budget_s,
    may_retry,
)

PLENTY_S = 1000.0
ERRORS = (
    BadPolicy, BadProgram, ForbiddenSource, NoSubstrate, RangeNotSatisfiable, SourceChanged, SourceFailed, SourceNotFound,
    AttemptTimeout, Busy, Internal, TooLarge, Unauthorized,
)  # fmt: skip


class Fleet:
    """Places in the order in which they are preferred; remembers what it was asked to leave out."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[set[str]] = []

    def __call__(self, tried: Collection[str]) -> Decision:
        self.asked.append(set(tried))
        return Decision(next((name for name in self.names if name not in tried), None), ())


def failed(*attempts: tuple[str, JobError]) -> list[Failed]:
    return [Failed(place, error.type, error.fault, not error.retryable) for place, error in attempts]


def follow(
    *attempts: tuple[str, JobError],
    fleet: Fleet | None = None,
    remaining_s: float = PLENTY_S,
    granted: bool = True,
    drawn: float = 0.5,
) -> Again | None:
    fleet = fleet or Fleet("a", "b")
    return after_failure(attempts[-1][1], failed(*attempts), remaining_s, fleet, granted, lambda: drawn)


class TestTheProgramsFault:
    @pytest.mark.parametrize("cls", [cls for cls in ERRORS if cls.fault == "program"])
    def test_the_job_fails_at_once(self, cls: type[JobError]) -> None:
        fleet = Fleet("a", "b")
        assert follow(("a", cls("no", {"retryable": True})), fleet=fleet) is None
        assert fleet.asked == []
        assert not may_retry(cls("no"), failed(("a", cls("no"))))


class TestTheSourcesFault:
    @pytest.mark.parametrize("cls", [SourceNotFound, SourceChanged])
    def test_what_will_not_pass_fails_the_job(self, cls: type[JobError]) -> None:
        assert follow(("a", cls("no"))) is None
        assert follow(("a", SourceFailed("no", {"retryable": False}))) is None

    def test_what_may_pass_is_tried_again_at_the_same_place_after_a_jittered_wait(self) -> None:
        assert follow(("b", SourceFailed("no"))) == Again("b", 0.1)
        assert follow(("b", SourceFailed("no")), drawn=0.0) == Again("b", 0.0)
        assert follow(("a", SourceNotFound("no", {"retryable": True}))) == Again("a", 0.1)

    @pytest.mark.parametrize(("tries", "wait_s"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, None), (5, None)])
    def test_each_wait_is_longer_and_there_are_four_tries(self, tries: int, wait_s: float | None) -> None:
        again = follow(*[("a", SourceFailed("no"))] * tries)
        assert (again.delay_s if again else None) == (wait_s if wait_s is None else pytest.approx(wait_s))

    def test_only_its_own_failures_count_for_it(self) -> None:
        again = follow(*[("a", Busy("no"))] * 5, ("b", SourceFailed("no")))
        assert again == Again("b", pytest.approx(0.1))

    def test_a_budget_that_is_spent_fails_it(self) -> None:
        assert follow(("a", SourceFailed("no")), granted=False) is None

    @pytest.mark.parametrize(
        ("asked_s", "drawn", "wait_s"),
        [(7, 0.5, 7.0), (0.05, 0.5, 0.1), (0, 0.5, 0.1), (299.5, 0.99, 299.5), (0.15, 0.9, 0.18)],
    )
    def test_it_does_not_come_back_before_it_was_asked_to(self, asked_s: float, drawn: float, wait_s: float) -> None:
        assert follow(("a", SourceFailed("no", {"retry_after_s": asked_s})), drawn=drawn) == Again(
            "a", pytest.approx(wait_s)
        )

    @pytest.mark.parametrize(("remaining_s", "goes_on"), [(6.9, False), (7.0, False), (7.1, True), (-1, False)])
    def test_nor_after_the_deadline(self, remaining_s: float, goes_on: bool) -> None:
        again = follow(("a", SourceFailed("no", {"retry_after_s": 7})), remaining_s=remaining_s)
        assert (again is not None) is goes_on

    @pytest.mark.parametrize("asked", ["7", None, [], -1, float("nan")])
    def test_a_wish_that_makes_no_sense_is_none(self, asked: object) -> None:
        assert follow(("a", SourceFailed("no", {"retry_after_s": asked}))) == Again("a", pytest.approx(0.1))

    def test_nobody_waits_for_ever(self) -> None:
        assert follow(("a", SourceFailed("no", {"retry_after_s": float("inf")}))) is None


class TestTheSubstratesFault:
    @pytest.mark.parametrize("cls", [cls for cls in ERRORS if cls.fault == "substrate"])
    def test_the_best_that_has_not_failed_it_yet_is_next_and_at_once(self, cls: type[JobError]) -> None:
        fleet = Fleet("a", "b", "c")
        assert follow(("a", cls("no", {"retry_after_s": 60})), fleet=fleet) == Again("b")
        assert fleet.asked == [{"a"}]
        assert follow(("a", Busy("no")), ("b", cls("no")), fleet=Fleet("a", "b", "c"), granted=False) == Again("c")

    def test_a_place_where_the_source_failed_may_be_tried(self) -> None:
        assert follow(("a", SourceFailed("no")), ("b", Busy("no"))) == Again("a")

    def test_when_all_have_failed_the_best_is_tried_again_after_a_wait(self) -> None:
        fleet = Fleet("a", "b")
        assert follow(("a", Busy("no")), ("b", Busy("no")), fleet=fleet) == Again("a", pytest.approx(0.2))
        assert fleet.asked == [{"a", "b"}, set()]

    def test_and_not_before_it_asks_to_be(self) -> None:
        again = follow(("a", Busy("no")), ("b", Busy("no", {"retry_after_s": 9})))
        assert again == Again("a", 9.0)
        assert follow(("a", Busy("no", {"retry_after_s": 9})), fleet=Fleet("a"), remaining_s=9) is None
        assert follow(("a", Busy("no", {"retry_after_s": 9})), fleet=Fleet("a"), remaining_s=9.1) == Again("a", 9.0)

    def test_a_spent_budget_spaces_the_tries_out_and_does_not_fail_the_job(self) -> None:
        granted, refused = (follow(("a", Busy("no")), fleet=Fleet("a"), granted=granted) for granted in (True, False))
        assert granted == Again("a", pytest.approx(0.1))
        assert refused == Again("a", pytest.approx(1.6))

    @pytest.mark.parametrize("cls", [TooLarge, Unauthorized])
    def test_what_a_place_will_say_again_it_is_not_asked_again(self, cls: type[JobError]) -> None:
        assert follow(("a", cls("no")), fleet=Fleet("a")) is None
        assert follow(("a", cls("no")), ("b", Busy("no"))) == Again("b", pytest.approx(0.2))
        assert follow(("a", cls("no")), ("b", cls("no"))) is None

    def test_no_job_has_more_than_twelve_attempts(self) -> None:
        assert MAX_ATTEMPTS == 12
        assert follow(*[("a", Busy("no"))] * 11) is not None
        assert follow(*[("a", Busy("no"))] * 12) is None
        assert follow(*[("a", Busy("no"))] * 11, ("b", Busy("no")), fleet=Fleet("a", "b", "c")) is None

    def test_where_the_policy_leaves_nothing_else_the_job_fails(self) -> None:
        assert follow(("a", Busy("no")), fleet=Fleet()) is None


class TestMayRetry:
    @pytest.mark.parametrize("cls", ERRORS)
    def test_it_tells_whether_the_budget_would_be_asked(self, cls: type[JobError]) -> None:
        error = cls("no")
        wanted = error.fault == "substrate" or (error.fault == "source" and error.retryable)
        assert may_retry(error, failed(("a", error))) is wanted

    @pytest.mark.parametrize(("tries", "may"), [(1, True), (3, True), (4, False)])
    def test_a_source_has_four_tries(self, tries: int, may: bool) -> None:
        error = SourceFailed("no")
        assert may_retry(error, failed(*[("a", error)] * tries)) is may


class TestBudget:
    TIMEOUT = Failed("a", "timeout", "substrate")
    BUSY = Failed("a", "busy", "substrate")

    @pytest.mark.parametrize(
        ("remaining_s", "expected_s", "failed", "alternatives", "budget_s"),
        [
            (300, 0.1, [], True, LEAST_ATTEMPT_S),
            (300, 2, [], True, 16),
            (300, 100, [], True, 300),
            (1, 0.1, [], True, 1),
            (300, 0.1, [], False, 300),
            (300, 2, [TIMEOUT], True, 32),
            (300, 0.1, [TIMEOUT, BUSY, TIMEOUT], True, 4 * LEAST_ATTEMPT_S),
            (300, 0.1, [BUSY, BUSY], True, LEAST_ATTEMPT_S),
            (300, 0.1, [TIMEOUT] * 12, True, 300),
            (300, 0.1, [TIMEOUT] * 1000, True, 300),
            (300, 0.1, [TIMEOUT], False, 300),
        ],
    )  # fmt: skip
    def test_it_is_eight_times_the_estimate_or_all_where_there_is_no_alternative(
        self, remaining_s: float, expected_s: float, failed: list[Failed], alternatives: bool, budget_s: float
    ) -> None:
        assert attempt_budget_s(remaining_s, expected_s, failed, alternatives) == budget_s

    @patient
    @given(st.floats(0.001, 3600), st.floats(0, 3600), st.integers(0, 12), st.booleans())
    def test_it_is_never_more_than_remains(self, remaining_s: float, expected_s: float, n: int, others: bool) -> None:
        assert 0 < attempt_budget_s(remaining_s, expected_s, [self.TIMEOUT] * n, others) <= remaining_s


_attempts = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.builds(
            lambda cls, more: cls("no", more),
            st.sampled_from(ERRORS),
            st.fixed_dictionaries({}, optional={"retry_after_s": st.floats(0, 600), "retryable": st.booleans()}),
        ),
    ),
    min_size=1,
    max_size=14,
)


@patient
@given(_attempts, st.floats(-10, 400), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_what_follows_can_end_and_keeps_to_what_was_asked(
    attempts: list[tuple[str, JobError]], remaining_s: float, granted: bool, drawn: float
) -> None:
    last, error = attempts[-1]
    again = follow(*attempts, fleet=Fleet(*"abc"), remaining_s=remaining_s, granted=granted, drawn=drawn)
    if again is None:
        return
    assert error.fault != "program"
    assert len(attempts) < MAX_ATTEMPTS
    assert again.delay_s == 0 or again.delay_s < remaining_s
    if error.fault == "source":
        assert granted
        assert again.substrate == last
        assert again.delay_s >= error.details.get("retry_after_s", 0)
    else:
        fresh = set("abc") - {place for place, one in attempts if one.fault == "substrate"}
        assert (again.substrate in fresh) if fresh else again.delay_s >= error.details.get("retry_after_s", 0)
