"""The coordinator before a desk and a clock of the tests: whatever becomes of windows, and of itself, values are right."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from support.scans import DATA, Clock, FakeDesk, Job

from packetfs_compute import kernels
from packetfs_compute.deadline import Deadline, Token
from packetfs_compute.errors import (
    AttemptTimeout,
    BadProgram,
    BrokerUnavailable,
    Cancelled,
    ForbiddenSource,
    Internal,
    JobError,
    NoSubstrate,
    SourceChanged,
)
from packetfs_compute.names import MAX_JOB_ID_CHARS
from packetfs_compute.scanning import Scan, accept_scan
from packetfs_compute.scanning.combine import combined
from packetfs_compute.scanning.coordinator import MAX_TRIES, Coordinator, Terms
from packetfs_compute.scanning.plan import Plan, Window
from packetfs_compute.scanning.state import Found
from packetfs_compute.scanning.tally import Part, Progress, Tally
from packetfs_compute.scanning.windows import window_id, windows_glob

ETAG = '"v1"'
PLAN = Plan(100, 2000, 150, len(DATA), ETAG)
RANGE = DATA[100:2100]
OPS: list[dict[str, Any]] = [{"op": "crc32c"}, {"op": "counteq", "imm": 7}, {"op": "add", "imm": 1}]
ATTEMPT = {"substrate": "fly", "ok": False, "error": {"type": "busy", "message": "full"}, "seconds": 0.1}
_NEVER = 1e9


class Crash(Exception):
    """The coordinator's process dies."""


@dataclass
class FakeStore:
    before: Callable[[], object] = lambda: None
    parts: dict[int, Part] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def keep(self, parts: Mapping[int, Part]) -> None:
        self.before()
        self.parts.update(parts)
        self.before()

    def part(self, number: int) -> Part | None:
        self.before()
        return self.parts.get(number)

    def keep_tally(self, tally: Tally) -> None:
        self.before()
        self.tally = Tally.from_json(tally.to_json())

    def found(self) -> Found:
        return Found(PLAN, dict(self.parts), None, Tally.from_json(self.tally.to_json()))


class World:
    """All that a coordinator has around it."""

    def __init__(self, **terms: Any) -> None:
        self.clock = Clock()
        self.desk, self.store = FakeDesk(self.clock), FakeStore()
        self.terms = Terms(**{"policy": {}, "most_open": 4, **terms})
        self.token = Token()
        self.told: list[Progress] = []
        self.plan = PLAN
        self.ops = OPS
        self.budget_s = 10_000.0
        self.id = "s"

    @property
    def scan(self) -> Scan:
        return accept_scan(self.id, {"data_url": "https://host/object", "ops": self.ops}, None, None)

    def coordinator(self) -> Coordinator:
        deadline = Deadline(self.clock.now + self.budget_s, self.budget_s, self.clock, self.token)
        return Coordinator(
            self.scan, self.plan, self.store.found(), self.terms, self.desk, self.store, deadline,
            self.told.append, self.clock.sleep,
        )  # fmt: skip

    def run(self) -> list[Part]:
        parts = self.coordinator().run()
        assert sum(part.byte_count for part in parts) == self.plan.length
        ops = self.scan.program.ops
        values = combined(ops, [(part.values, part.byte_count) for part in parts])
        right = kernels.plan([(op.name, op.imm) for op in ops]).run(RANGE, [op.identity for op in ops])
        assert values == right
        return parts

    def fail(self, *numbers: int, times: int = 1, error: str = "internal", **info: Any) -> None:
        """Have the first ``times`` jobs of these windows fail."""
        left = dict.fromkeys(numbers, times)

        def fate(_: str, job: Job) -> None:
            number = (job.program["offset"] - PLAN.offset) // PLAN.window
            if left.get(number, 0):
                left[number] -= 1
                job.error = {"type": error, "message": "on purpose", **info}

        self.desk.fate = fate


class TestWindows:
    def test_all_are_run_once_a_bounded_number_at_once(self) -> None:
        world = World()
        parts = world.run()
        assert set(world.desk.computed.values()) == {1}
        assert len(world.desk.computed) == len(parts) == PLAN.windows
        assert world.desk.most_open == 4
        assert parts[0].region == "here"
        assert sum(part.cost_usd for part in parts) == pytest.approx(0.01 * PLAN.windows)

    def test_nothing_of_them_is_left_at_the_desk(self) -> None:
        world = World()
        world.run()
        assert (world.desk.jobs, world.desk.cancelled) == ({}, [])

    def test_each_is_pinned_and_has_the_policy(self) -> None:
        world = World(policy={"exclude": ["fly"]})
        seen: list[Job] = []
        world.desk.fate = lambda _, job: seen.append(job)
        world.run()
        assert {job.program["etag"] for job in seen} == {ETAG}
        assert all(job.policy == {"exclude": ["fly"]} for job in seen)

    def test_a_scan_of_nothing_needs_none(self) -> None:
        world = World()
        world.plan = replace(PLAN, length=0)
        assert world.coordinator().run() == []
        assert world.desk.computed == {}

    @pytest.mark.parametrize("scan_id", ["x" * MAX_JOB_ID_CHARS, "any / name\n", "s.1", "-"])
    def test_whatever_the_scan_is_called_they_have_ids(self, scan_id: str) -> None:
        world = World()
        world.id = scan_id
        world.run()

    def test_progress_is_told_once_a_second_and_at_the_end(self) -> None:
        world = World()
        world.run()
        done = [one["bytes_done"] for one in world.told]
        assert done == sorted(done)
        assert 2 < len(world.told) <= world.clock.now - 1000 + 2
        last = world.told[-1]
        assert (last["bytes_done"], last["bytes_total"], last["windows_done"]) == (2000, 2000, PLAN.windows)
        assert (last["eta_s"], last["cost_usd"]) == (0, pytest.approx(0.01 * PLAN.windows))


class TestChain:
    def test_each_goes_on_from_the_one_before(self) -> None:
        world = World(most_open=1)
        world.ops = [{"op": "fnv64"}, *OPS]
        world.run()
        assert world.desk.most_open == 1

    def test_one_that_fails_holds_the_others_up(self) -> None:
        world = World(most_open=1)
        world.ops = [{"op": "crc32c"}, {"op": "fnv64"}]
        world.fail(3, times=2)
        world.run()
        assert world.desk.computed[PLAN.at(3).offset] == 3


class TestFailures:
    def test_a_window_is_run_anew_alone(self) -> None:
        world = World()
        world.fail(0, 5, times=MAX_TRIES, attempts=[ATTEMPT, {**ATTEMPT, "ok": True}])
        world.run()
        assert Counter(world.desk.computed.values()) == {1: PLAN.windows - 2, 1 + MAX_TRIES: 2}
        assert world.store.tally.failed == [ATTEMPT] * (2 * MAX_TRIES)

    def test_so_often_and_no_more(self) -> None:
        world = World()
        world.fail(2, times=MAX_TRIES + 1, error="source_failed", attempts=[ATTEMPT])
        with pytest.raises(JobError, match="on purpose") as caught:
            world.run()
        assert caught.value.type == "source_failed"
        assert caught.value.attempts == [ATTEMPT] * (MAX_TRIES + 1)
        assert world.store.parts, "what is done is kept"

    @pytest.mark.parametrize("error", ["forbidden_source", "bad_program", "source_changed", "source_not_found"])
    def test_what_no_other_time_would_mend_ends_the_scan(self, error: str) -> None:
        world = World()
        world.fail(1, error=error)
        with pytest.raises(JobError) as caught:
            world.run()
        assert caught.value.type == error
        assert max(world.desk.computed.values()) == 1

    def test_what_is_open_is_cancelled_then(self) -> None:
        world = World()

        def fate(job_id: str, job: Job) -> None:
            if job_id == "s.0":
                job.error = {"type": "forbidden_source", "message": "no"}
            else:
                job.ends_at = _NEVER

        world.desk.fate = fate
        with pytest.raises(ForbiddenSource):
            world.run()
        assert set(world.desk.cancelled) == {"s.1", "s.2", "s.3"}

    def test_one_that_somebody_cancelled_is_run_anew(self) -> None:
        world = World()
        world.desk.fate = lambda job_id, job: setattr(job, "cancelled", job_id == "s.4")
        world.run()
        assert world.desk.computed[PLAN.at(4).offset] == 2

    def test_one_that_is_forgotten_is_run_anew(self) -> None:
        world = World()
        coordinator = world.coordinator()
        coordinator.step()
        del world.desk.jobs["s.1"]
        coordinator.run()
        assert world.desk.computed[PLAN.at(1).offset] == 2

    def test_unless_another_coordinator_has_done_it(self) -> None:
        world = World()
        coordinator = world.coordinator()
        coordinator.step()
        del world.desk.jobs["s.1"]
        world.store.parts[1] = Part((1, 2, 3), 150, "fly", "iad")
        assert coordinator.run()[1].values == (1, 2, 3)
        assert world.desk.computed[PLAN.at(1).offset] == 1

    def test_an_id_that_somebody_else_has_is_passed_over(self) -> None:
        world = World()
        world.desk.refuse["s.3"] = BadProgram("job_id is taken", {"field": "job_id"})
        world.run()

    def test_a_window_that_the_desk_refuses_ends_the_scan(self) -> None:
        world = World()
        world.desk.refuse["s.3"] = BadProgram("too long", {"field": "program"})
        with pytest.raises(BadProgram, match="too long"):
            world.run()


class TestVersions:
    @pytest.mark.parametrize(
        "more", [{"object_size": len(DATA) + 1}, {"etag": '"v2"'}, {"object_size": 1, "etag": None}]
    )
    def test_another_is_never_mixed_in(self, more: dict[str, Any]) -> None:
        world = World()
        world.desk.fate = lambda job_id, job: job.more.update(more if job_id == "s.7" else {})
        with pytest.raises(SourceChanged):
            world.run()

    def test_an_unpinned_one_is_known_by_its_size(self) -> None:
        world = World()
        world.plan = replace(PLAN, etag=None)
        world.desk.fate = lambda _, job: job.more.update({"etag": None})
        world.run()
        world = World()
        world.plan = replace(PLAN, etag=None)
        world.desk.fate = lambda job_id, job: job.more.update({"object_size": 9} if job_id == "s.7" else {})
        with pytest.raises(SourceChanged, match="9 bytes"):
            world.run()

    def test_a_range_that_is_no_longer_there_is_another_version(self) -> None:
        world = World()
        world.fail(9, error="range_not_satisfiable")
        with pytest.raises(SourceChanged):
            world.run()

    def test_a_value_over_other_bytes_is_none(self) -> None:
        world = World()
        world.desk.fate = lambda _, job: job.more.update({"bytes_processed": 149})
        with pytest.raises(Internal, match="149"):
            world.run()


@pytest.mark.parametrize("scan_id", ["s", "x" * 128, "no id for a job"])
def test_all_ids_of_windows_match_one_pattern(scan_id: str) -> None:
    ids = [window_id(scan_id, PLAN.at(3), tries, hedge=hedge) for tries in (0, 2) for hedge in (False, True)]
    assert all(fnmatchcase(one, windows_glob(scan_id)) for one in ids)
    assert not fnmatchcase(window_id("another", PLAN.at(3), 0), windows_glob(scan_id))


def late(world: World, job_id: str = "s.9") -> None:
    def fate(one: str, job: Job) -> None:
        if one == job_id:
            job.ends_at = _NEVER

    world.desk.fate = fate


class TestHedges:
    def test_a_late_window_is_run_a_second_time_elsewhere_and_the_first_is_stopped(self) -> None:
        world = World(policy={"exclude": ["lambda"]}, elsewhere=lambda _, place: place == "local")
        seen: dict[str, Job] = {}
        late(world)
        fate = world.desk.fate
        world.desk.fate = lambda job_id, job: (seen.__setitem__(job_id, job), fate(job_id, job))
        world.run()
        assert world.store.tally.hedges == 1
        assert seen["s.9.h"].policy == {"exclude": ["lambda", "local"]}
        assert "s.9" in world.desk.cancelled
        assert world.clock.now < 1060

    def test_the_first_answer_counts_whichever_it_is(self) -> None:
        world = World(elsewhere=lambda _window, _place: True)

        def fate(job_id: str, job: Job) -> None:
            if job_id.startswith("s.9"):
                job.ends_at = _NEVER if job_id.endswith("h") else world.clock.now + 8

        world.desk.fate = fate
        world.run()
        assert world.store.tally.hedges == 1
        assert "s.9.h" in world.desk.cancelled

    def test_its_failure_is_not_the_windows(self) -> None:
        world = World(elsewhere=lambda _window, _place: True)

        def fate(job_id: str, job: Job) -> None:
            if job_id == "s.9":
                job.ends_at += 20
            if job_id == "s.9.h":
                job.error = {"type": "internal", "message": "died"}

        world.desk.fate = fate
        world.run()
        assert world.desk.computed[PLAN.at(9).offset] == 2

    def test_there_is_none_without_another_place(self) -> None:
        world = World(elsewhere=lambda _window, _place: False)
        world.budget_s = 60
        late(world)
        with pytest.raises(AttemptTimeout):
            world.run()
        assert world.desk.computed[PLAN.at(9).offset] == 1

    def test_they_are_few(self) -> None:
        world = World(elsewhere=lambda _window, _place: True, most_open=20)
        world.budget_s = 60
        world.desk.fate = lambda job_id, job: setattr(
            job, "ends_at", _NEVER if int(job_id.split(".")[1]) > 6 else job.ends_at
        )
        with pytest.raises(AttemptTimeout):
            world.run()
        assert world.store.tally.hedges == 1, "a twentieth of fourteen, and one at least"

    def test_what_nobody_has_begun_with_is_moved_and_not_hedged(self) -> None:
        world = World(elsewhere=lambda _window, _place: True, most_open=20)
        world.budget_s = 60

        def fate(job_id: str, job: Job) -> None:
            if int(job_id.split(".")[1]) > 6 and not job_id.endswith("h"):
                job.ends_at, job.begun = _NEVER, False

        world.desk.fate = fate
        world.run()
        assert world.store.tally.hedges == 0
        assert world.desk.cancelled == [f"s.{number}" for number in range(7, PLAN.windows)]
        assert not set(world.desk.cancelled) & set(world.desk.jobs), "nothing is kept of what was cancelled"

    def test_a_place_that_windows_are_late_at_gets_no_more_of_them(self) -> None:
        world = World(elsewhere=lambda _window, _place: True, most_open=4)
        excluded: dict[str, Any] = {}

        def fate(job_id: str, job: Job) -> None:
            excluded[job_id] = job.policy.get("exclude")
            if int(job_id.split(".")[1]) in (5, 6, 7) and not job_id.endswith("h"):
                job.ends_at, job.begun = _NEVER, False
            job.more["substrate"] = "another" if job.policy.get("exclude") else "there"

        world.desk.fate, world.desk.place = fate, "local"
        world.run()
        moved = [one for one in excluded if one.endswith("h")]
        assert moved == ["s.5.h", "s.6.h", "s.7.h"]
        after = list(excluded)[list(excluded).index("s.7.h") + 1 :]
        assert after
        assert all(excluded[one] == ["local"] for one in after)

    def test_it_gets_them_again_once_it_has_done_one(self) -> None:
        world = World(elsewhere=lambda _window, _place: True, most_open=4)
        excluded: dict[str, Any] = {}

        def fate(job_id: str, job: Job) -> None:
            excluded[job_id] = job.policy.get("exclude")
            if int(job_id.split(".")[1]) in (5, 6, 7) and not job_id.endswith("h"):
                job.ends_at, job.begun = _NEVER, False

        world.desk.fate = fate  # the stub calls every place local
        world.run()
        assert excluded["s.13"] is None

    def test_what_is_moved_costs_nothing_more(self) -> None:
        world = World(elsewhere=lambda _window, _place: True, estimate_usd=0.01, cap_usd=0.01 * PLAN.windows)

        def fate(job_id: str, job: Job) -> None:
            if job_id == "s.13":
                job.ends_at, job.begun = _NEVER, False

        world.desk.fate = fate
        world.run()
        assert world.desk.cancelled == ["s.13"]

    def test_what_is_as_slow_as_the_others_is_not_late(self) -> None:
        world = World(elsewhere=lambda _window, _place: True)
        world.desk.fate = lambda _, job: setattr(job, "ends_at", job.ends_at + 30)
        world.run()
        assert world.store.tally.hedges == 0


def test_attempts_that_failed_within_a_windows_job_are_told() -> None:
    world = World()
    world.desk.fate = lambda job_id, job: job.more.update(attempts=[ATTEMPT] if job_id == "s.3" else [])
    world.run()
    assert world.store.tally.failed == [ATTEMPT]
    assert world.store.tally.failed_usd == 0.0, "their cost is in the window's"


class TestCost:
    def test_the_cap_is_held_by_what_is_open_too(self) -> None:
        world = World(estimate_usd=0.01, cap_usd=0.0301, most_open=10)
        with pytest.raises(NoSubstrate, match="max_cost_usd") as caught:
            world.run()
        assert world.desk.most_open == 3
        assert sum(part.cost_usd for part in world.store.parts.values()) <= 0.0301
        assert caught.value.details["windows_left"] == PLAN.windows - 3

    def test_a_cap_that_suffices_is_no_hindrance(self) -> None:
        World(estimate_usd=0.01, cap_usd=0.01 * PLAN.windows, most_open=100).run()

    def test_what_windows_turn_out_to_cost_counts(self) -> None:
        world = World(estimate_usd=0.001, cap_usd=0.05, most_open=1)
        with pytest.raises(NoSubstrate):
            world.run()
        assert len(world.store.parts) == 5

    def test_attempts_that_failed_count(self) -> None:
        world = World(estimate_usd=0.01, cap_usd=0.01 * PLAN.windows, most_open=1)
        world.fail(0, attempts=[ATTEMPT])
        with pytest.raises(NoSubstrate):
            world.run()
        assert len(world.store.parts) == PLAN.windows - 1

    def test_a_window_whose_share_is_spent_may_have_what_is_left(self) -> None:
        world = World(policy={"max_cost_usd": 0.01}, estimate_usd=0.01, cap_usd=1.0, most_open=1)
        seen: list[Any] = []
        world.fail(2, error="no_substrate", attempts=[ATTEMPT])
        fate = world.desk.fate
        world.desk.fate = lambda job_id, job: (fate(job_id, job), seen.append(job.policy["max_cost_usd"]))
        world.run()
        assert [cap for cap in seen if cap != 0.01] == [pytest.approx(1.0 - 0.03 - 0.01)], (
            "of three that are done, and of its own that failed"
        )

    def test_without_a_cap_a_policy_that_leaves_no_place_ends_it(self) -> None:
        world = World()
        world.fail(2, error="no_substrate")
        with pytest.raises(NoSubstrate):
            world.run()


class TestEnds:
    def test_who_cancels_it_stops_all_that_is_open(self) -> None:
        world = World()
        world.desk.fate = lambda _, job: setattr(job, "ends_at", _NEVER)
        coordinator = world.coordinator()
        coordinator.step()
        world.token.cancel()
        with pytest.raises(Cancelled):
            coordinator.run()
        assert sorted(world.desk.cancelled) == ["s.0", "s.1", "s.2", "s.3"]

    def test_so_does_its_deadline(self) -> None:
        world = World()
        world.budget_s = 2.5
        with pytest.raises(AttemptTimeout):
            world.run()
        assert len(world.store.parts) == 8
        assert world.desk.cancelled

    def test_a_broker_that_is_away_is_waited_for(self) -> None:
        world = World()
        weather = random.Random(1)

        def away() -> None:
            if weather.random() < 0.4:
                raise BrokerUnavailable("away")

        world.desk.before = away
        world.run()
        assert set(world.desk.computed.values()) == {1}


@pytest.mark.parametrize("chained", [False, True])
def test_who_takes_over_after_a_crash_at_any_point_does_only_what_is_left(chained: bool) -> None:
    for at in itertools.count(1):
        world = World(most_open=1 if chained else 3)
        world.ops = [*OPS, *([{"op": "fnv64"}] if chained else [])]
        calls = itertools.count(1)

        def die(at: int = at, calls: "itertools.count[int]" = calls) -> None:
            if next(calls) == at:
                raise Crash

        world.desk.before = world.store.before = die
        try:
            world.run()
        except Crash:
            world.run()
            assert set(world.desk.computed.values()) == {1}, f"something was done twice after a crash at {at}"
        else:
            break
    assert at > 3 * PLAN.windows


def test_a_scan_remembers_what_went_wrong_before_it_was_taken_over() -> None:
    world = World()
    world.fail(0, attempts=[ATTEMPT])
    first = world.coordinator()
    for _ in range(8):
        first.step()
        world.clock.now += 0.5
    world.desk.before = world.store.before = lambda: None
    second = world.coordinator()
    second.run()
    assert second.tally.failed == [ATTEMPT]


def test_a_window_is_a_job_over_its_own_bytes() -> None:
    world = World()
    seen: list[Window] = []
    world.desk.fate = lambda _, job: seen.append(Window(0, job.program["offset"], job.program["length"]))
    world.run()
    assert [(one.offset, one.length) for one in seen] == [(one.offset, one.length) for one in PLAN]
