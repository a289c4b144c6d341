"""Attempts of a job: what a substrate is asked, what becomes of its answer, and where the job goes on.

The places are scripted; the fleet, the choice among them and all arithmetic are the real ones, under a clock of the test's.
"""

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from packetfs_compute import dispatch
from packetfs_compute.cache import StubCache
from packetfs_compute.dispatch import Course, Dispatcher
from packetfs_compute.embedded.files import serve_file
from packetfs_compute.errors import (
    AttemptTimeout,
    BadPolicy,
    BadProgram,
    BrokerUnavailable,
    Busy,
    Cancelled,
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
from packetfs_compute.fleet import Fleet, FleetChooser, Leased, StubFleet
from packetfs_compute.job import Job, accept_job
from packetfs_compute.names import LOCAL
from packetfs_compute.places import EgressRule, Prices, SubstrateSpec
from packetfs_compute.program import Op, Program
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Capabilities, Health, Outcome, Policy
from packetfs_compute.routing.recovery import LEAST_ATTEMPT_S, MAX_ATTEMPTS, Again
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_substrate
from packetfs_compute.wire import failure, parse_request

WALL = 1_700_000_000.0
URL = "https://host/object"
PROGRAM = Program(URL, (Op("crc32c"),), 5, 90, '"v1"')
TO_THE_END = replace(PROGRAM, length=None)
BAD = Outcome(ok=False, substrate_fault=True)
ALL_FAULTS = (Busy, AttemptTimeout, Internal, TooLarge, Unauthorized)


def answer(byte_count: int = 90) -> dict[str, Any]:
    return {
        "success": True, "jobId": "j1", "results": [{"op": "crc32c", "value": 7}], "bytesProcessed": byte_count,
        "objectSize": 100, "etag": '"v1"', "executionTimeMs": 12.5, "fetchTimeMs": 11.9, "region": "iad", "memoryUsedMb": 34,
    }  # fmt: skip


DONE = answer()
Script = list[Mapping[str, Any] | JobError]


class Clocks:
    """A monotonic clock and a wall clock that move together, when somebody sleeps or works."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return 5000.0 + self.passed_s

    def wall(self) -> float:
        return WALL + self.passed_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed_s += seconds


@dataclass
class Place:
    """A substrate that takes ``seconds`` for each answer of its script; the last one is given again and again."""

    capabilities: Capabilities
    script: Script
    clocks: Clocks
    seconds: float = 0.25
    requests: list[dict[str, Any]] = field(default_factory=list)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        said = self.script[min(len(self.requests), len(self.script) - 1)]
        self.requests.append(json.loads(json.dumps(request)))
        self.clocks.passed_s += self.seconds
        return failure("j1", said, self.seconds) if isinstance(said, JobError) else dict(said)

    def health(self, timeout_s: float) -> dict[str, Any]:
        raise AssertionError("nobody asked for health")


class Watcher:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.outcomes: list[Outcome] = []
        self.opened: list[bool] = []
        self.courses: list[Course] = []

    def attempt(self, job: Job, attempt: Attempt, outcome: Outcome, *, opened: bool) -> None:
        self.opened.append(opened)
        self.told.append(("attempt", job.id, attempt["substrate"], attempt["ok"]))
        self.outcomes.append(outcome)

    def moved(self, job: Job, substrate: str, again: Again) -> None:
        self.told.append(("moved", job.id, substrate, again))

    def finished(self, job: Job, substrate: str, error: JobError | None, course: Course) -> None:
        self.courses.append(course)
        self.told.append(("finished", job.id, substrate, type(error).__name__))


class World:
    """A fleet of scripted places, and a dispatcher of it."""

    def __init__(self, settings: Settings, scripts: Mapping[str, Script], **facts: Mapping[str, Any]) -> None:
        self.clocks = Clocks()
        self.places = {
            name: Place(self._capabilities(at, name, facts.get(name, {})), script, self.clocks)
            for at, (name, script) in enumerate(scripts.items())
        }
        self.settings = replace(settings, substrates=tuple(SubstrateSpec(name, "stub") for name in scripts))
        self.fleet = StubFleet(place.capabilities for place in self.places.values())
        self.watcher = Watcher()
        self.held: list[str] = []
        self.dispatcher = self.another(self.fleet)

    @staticmethod
    def _capabilities(at: int, name: str, facts: Mapping[str, Any]) -> Capabilities:
        """Return facts that make a place the better the earlier it is named."""
        plain = Capabilities(name, "own", 512, 1000, 900, frozenset({"http", "https"}), kind="stub", region="iad",
                             overhead_s=0.01 * (1 + at), bytes_per_s=1e9)  # fmt: skip
        return replace(plain, **facts)

    def another(self, fleet: Fleet) -> Dispatcher:
        """Return a dispatcher of this world, as another worker would have it."""
        chooser = FleetChooser(self.fleet, self.clocks.wall, lambda: 0.5)
        return Dispatcher(
            self.settings, fleet, chooser, (self.watcher,), self.hold, clock=self.clocks.clock, wall=self.clocks.wall,
            sleep=self.clocks.sleep, random=lambda: 0.5,
        )  # fmt: skip

    @contextmanager
    def hold(self, leased: Leased) -> Iterator[None]:
        self.held.append(leased.substrate)
        yield
        self.held.append(f"not {leased.substrate}")

    def job(self, program: Program = PROGRAM, policy: Policy | None = None, queued_s: float = 0.0) -> Job:
        return Job("j1", program, policy or Policy(), self.clocks.wall() - queued_s)

    def health(self, name: str) -> Health:
        members = self.fleet.snapshot(self.clocks.wall()).members
        return next(member.health for member in members if member.place.name == name)

    def requests(self, name: str) -> list[dict[str, Any]]:
        return self.places[name].requests

    def break_(self, name: str) -> None:
        """Open the breaker of a place."""
        for _ in range(5):
            self.fleet.record(Leased(name, "other"), BAD, self.clocks.wall())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the function that makes a world, whose places are all that there are."""

    def make(*, settings: Settings | None = None, scripts: Mapping[str, Script] | None = None, **facts: Any) -> World:
        made = World(settings or Settings(timeout_s=30), scripts or {"a": [DONE]}, **facts)
        monkeypatch.setattr(
            dispatch, "load_substrate", lambda name, given: made.places.get(name) or load_substrate(name, given)
        )
        return made

    return make


Make = Any


class TestDone:
    def test_a_job_that_is_done(self, world: Make) -> None:
        here: World = world()
        result = here.dispatcher.run(here.job(queued_s=2), "a")
        assert not isinstance(result, Again)
        assert here.requests("a") == [{"program": PROGRAM.to_wire(), "timeout": 28_000, "jobId": "j1"}]
        assert result["results"] == DONE["results"]
        assert (result["job_id"], result["data_url"], result["offset"], result["length"]) == ("j1", URL, 5, 90)
        assert (result["bytes_processed"], result["object_size"], result["etag"]) == (90, 100, '"v1"')
        assert result["attempts"] == [{"substrate": "a", "ok": True, "error": None, "seconds": 0.25}]
        assert (result["substrate"], result["region"], result["cost_usd"]) == ("a", "iad", 0.0)
        assert result["timing"] == {"queued_s": 2.0, "fetch_s": 0.0119, "compute_s": 0.0006, "total_s": 2.25}
        assert json.loads(json.dumps(result)) == result

    def test_it_is_recorded_and_its_slot_given_back(self, world: Make) -> None:
        here: World = world(a={"slots": 1, "prices": Prices(usd_per_request=0.5)})
        here.dispatcher.run(here.job(), "a")
        health = here.health("a")
        assert (health.attempts, health.byte_count, health.cost_usd) == (1, 90, 0.5)
        assert (health.weight, health.sum_y, health.calls, health.failures) == (1, 0.25, 1, 0)
        assert health.in_flight == 0
        assert here.held == ["a", "not a"]

    def test_the_observer_is_told(self, world: Make) -> None:
        here: World = world()
        here.dispatcher.run(here.job(), "a")
        assert here.watcher.told == [("attempt", "j1", "a", True), ("finished", "j1", "a", "NoneType")]

    def test_several_may_watch(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]})
        other = type(here.watcher)()
        replace(here.dispatcher, observers=(here.watcher, other)).run_here(here.job(), "a")
        assert other.told == here.watcher.told
        assert len(other.told) == 4

    def test_they_are_told_how_the_job_came_to_be_where_it_ended(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]})
        here.dispatcher.run_here(here.job(queued_s=2), "a")
        (course,) = here.watcher.courses
        assert course.decision is not None
        assert course.decision.vetoes == {"a": "tried, and failed"}
        assert (course.decision.substrate, course.decided_at, course.total_s) == ("b", WALL + 0.25, 2.5)

    def test_of_a_job_that_no_place_may_run_they_are_told_why(self, world: Make) -> None:
        here: World = world()
        with pytest.raises(NoSubstrate):
            here.dispatcher.run(here.job(policy=Policy(exclude=("a",)), queued_s=2), "a")
        (course,) = here.watcher.courses
        assert course.decision is not None
        assert (course.decision.substrate, set(course.decision.vetoes), course.total_s) == (None, {"a"}, 2.0)

    def test_the_attempt_that_opens_the_breaker_is_told_of_as_such(self, world: Make) -> None:
        here: World = world(scripts={"a": [Internal("no")]})  # alone, and so tried though its breaker is open
        for _ in range(8):
            here.dispatcher.run(here.job(), "a")
        assert here.watcher.opened == [False] * 4 + [True] + [False] * 3
        assert here.health("a").breaker.state == "open"

    def test_nobody_need_watch(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]})
        result = replace(here.dispatcher, observers=()).run_here(here.job(), "a")
        assert result["substrate"] == "b"


class TestFailed:
    @pytest.mark.parametrize(
        "cls", [BadProgram, ForbiddenSource, RangeNotSatisfiable, SourceNotFound, SourceChanged, TooLarge, Unauthorized]
    )
    def test_what_no_other_attempt_would_mend_is_a_typed_error_that_carries_it(
        self, world: Make, cls: type[JobError]
    ) -> None:
        here: World = world(scripts={"a": [cls("no luck", {"hint": "try later", "object_size": 9})]})
        with pytest.raises(cls) as caught:
            here.dispatcher.run(here.job(), "a")
        error = caught.value
        assert type(error) is cls
        assert str(error) == "no luck"
        assert (error.hint, error.details["object_size"]) == ("try later", 9)
        assert error.details["job_id"] == "j1"
        assert error.attempts == [
            {"substrate": "a", "ok": False, "error": {"type": cls.type, "message": "no luck"}, "seconds": 0.25}
        ]
        assert error.args[1] == error.details
        assert json.loads(json.dumps(error.details)) == error.details
        assert here.health("a").in_flight == 0
        assert here.watcher.told[-1] == ("finished", "j1", "a", cls.__name__)

    @pytest.mark.parametrize("cls", ALL_FAULTS)
    def test_what_the_place_did_sends_the_job_to_another_with_the_same_id(
        self, world: Make, cls: type[JobError]
    ) -> None:
        here: World = world(scripts={"a": [cls("no", {"retry_after_s": 9})], "b": [DONE]})
        job = here.job()
        assert here.dispatcher.run(job, "a") == Again("b", 0.0)
        result = here.dispatcher.run(job, "b")
        assert not isinstance(result, Again)
        assert [request["jobId"] for request in here.requests("a") + here.requests("b")] == ["j1", "j1"]
        assert [(one["substrate"], one["ok"]) for one in result["attempts"]] == [("a", False), ("b", True)]
        assert result["attempts"][0]["error"] == {"type": cls.type, "message": "no"}
        assert result["substrate"] == "b"
        assert here.watcher.told == [
            ("attempt", "j1", "a", False), ("moved", "j1", "a", Again("b")), ("attempt", "j1", "b", True),
            ("finished", "j1", "b", "NoneType"),
        ]  # fmt: skip

    def test_when_all_have_failed_the_best_is_tried_again_after_a_wait(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no"), DONE], "b": [Busy("no", {"retry_after_s": 3})]})
        job = here.job()
        assert [here.dispatcher.run(job, "a"), here.dispatcher.run(job, "b")] == [Again("b"), Again("a", 3.0)]
        assert job.trail.waited
        here.clocks.sleep(3)
        result = here.dispatcher.run(job, "a")
        assert not isinstance(result, Again)
        assert [one["substrate"] for one in result["attempts"]] == ["a", "b", "a"]

    def test_a_place_alone_is_tried_again(self, world: Make) -> None:
        here: World = world(scripts={"a": [Internal("no"), DONE]})
        result = here.dispatcher.run_here(here.job(), "a")
        assert [one["ok"] for one in result["attempts"]] == [False, True]
        assert here.clocks.slept == [pytest.approx(0.1)]

    @pytest.mark.parametrize(
        ("cls", "failures"),
        [
            (Busy, 1),
            (Internal, 1),
            (Unauthorized, 1),
            (SourceFailed, 0),
            (SourceNotFound, 0),
            (BadProgram, 0),
            (TooLarge, 0),
        ],
    )
    def test_only_the_places_own_fault_is_held_against_it(
        self, world: Make, cls: type[JobError], failures: int
    ) -> None:
        here: World = world(scripts={"a": [cls("no")], "b": [DONE]})
        with suppress(cls):
            here.dispatcher.run(here.job(), "a")
        health = here.health("a")
        assert (health.failures, health.calls, health.attempts) == (failures, failures, 1)

    def test_a_place_that_asks_to_be_left_alone_is(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no", {"retry_after_s": 7})], "b": [DONE]})
        here.dispatcher.run(here.job(), "a")
        assert here.health("a").busy_until == here.clocks.wall() + 7

    def test_a_source_that_asks_for_it_makes_no_place_busy(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceFailed("no", {"retry_after_s": 7})], "b": [DONE]})
        here.dispatcher.run(here.job(), "a")
        assert here.health("a").busy_until == 0


class TestTheSourcesFault:
    @pytest.mark.parametrize(
        ("asked", "delay_s"), [({}, 0.1), ({"retry_after_s": 7}, 7.0), ({"retry_after_s": 0.01}, 0.1)]
    )
    def test_it_is_tried_again_here_after_a_wait(self, world: Make, asked: dict[str, Any], delay_s: float) -> None:
        here: World = world(scripts={"a": [SourceFailed("no", asked), DONE], "b": [DONE]})
        job = here.job()
        again = here.dispatcher.run(job, "a")
        assert again == Again("a", pytest.approx(delay_s))
        assert not job.trail.waited
        assert not isinstance(here.dispatcher.run(job, "a"), Again)

    def test_four_times_and_no_more(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceFailed("no")], "b": [DONE]})
        with pytest.raises(SourceFailed) as caught:
            here.dispatcher.run_here(here.job(), "a")
        assert [one["substrate"] for one in caught.value.attempts] == ["a"] * 4
        assert here.clocks.slept == pytest.approx([0.1, 0.2, 0.4])

    def test_not_when_it_asks_for_more_time_than_there_is(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceFailed("no", {"retry_after_s": 30})]})
        with pytest.raises(SourceFailed):
            here.dispatcher.run(here.job(), "a")

    def test_not_when_the_retry_budget_is_spent(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceFailed("no")], "b": [DONE]})

        def spend() -> bool:
            wants = Outcome(ok=False, wants_retry=True)
            return here.fleet.record(Leased("a", "other"), wants, here.clocks.wall())[1]

        while spend():
            pass
        while not spend():  # each call earns a fifth of one: now less than that is left
            pass
        here.places["a"].seconds = 0.0
        with pytest.raises(SourceFailed) as caught:
            here.dispatcher.run(here.job(), "a")
        assert len(caught.value.attempts) == 1

    def test_a_failover_costs_no_retry(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]})
        here.dispatcher.run_here(here.job(), "a")
        assert [outcome.wants_retry for outcome in here.watcher.outcomes] == [False, False]


class TestDeadline:
    @pytest.mark.parametrize(
        ("policy_s", "settings_s", "queued_s", "timeout_ms"),
        [(None, 30, 0, 30_000), (None, 30, 10, 20_000), (5, 30, 0, 5000), (5, 30, 4.5, 500), (60, 30, 0, 60_000),
         (None, 0.001, 0, 1), (3600, 30, 0, 3_600_000), (None, 30, 29.9996, 1)],
    )  # fmt: skip
    def test_one_spans_the_job_from_its_submission(
        self, world: Make, policy_s: float | None, settings_s: float, queued_s: float, timeout_ms: int
    ) -> None:
        here: World = world(settings=Settings(timeout_s=settings_s))
        here.dispatcher.run(here.job(policy=Policy(deadline_s=policy_s), queued_s=queued_s), "a")
        assert abs(here.requests("a")[0]["timeout"] - timeout_ms) <= 1
        assert parse_request(here.requests("a")[0]).timeout_ms >= 1

    @pytest.mark.parametrize("queued_s", [30, 30.001, 1e9])
    def test_spent_in_the_queue_there_is_no_attempt(self, world: Make, queued_s: float) -> None:
        here: World = world()
        with pytest.raises(AttemptTimeout) as caught:
            here.dispatcher.run(here.job(queued_s=queued_s), "a")
        assert here.requests("a") == []
        assert caught.value.details == {"job_id": "j1", "attempts": []}
        assert here.watcher.told == [("finished", "j1", "a", "AttemptTimeout")]

    @pytest.mark.parametrize("ahead_s", [0.001, 5, 1e6])
    def test_a_publishers_clock_that_runs_ahead_gives_no_more_time(self, world: Make, ahead_s: float) -> None:
        here: World = world()
        result = here.dispatcher.run_here(here.job(queued_s=-ahead_s), "a")
        assert here.requests("a")[0]["timeout"] == 30_000
        assert result["timing"]["queued_s"] == 0.0
        assert result["timing"]["total_s"] == 0.25

    def test_a_publisher_that_did_not_say_when(self, world: Make) -> None:
        here: World = world()
        result = here.dispatcher.run_here(Job("j1", PROGRAM, Policy()), "a")
        assert here.requests("a")[0]["timeout"] == 30_000
        assert result["timing"]["queued_s"] is None
        assert result["timing"]["total_s"] == 0.25

    def test_one_spans_all_attempts(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]})
        here.places["a"].seconds = 3.0
        result = here.dispatcher.run_here(here.job(policy=Policy(deadline_s=10), queued_s=2), "a")
        assert here.requests("b")[0]["timeout"] == 5000
        assert result["timing"]["queued_s"] == 2.0, "until its first attempt"
        assert result["timing"]["total_s"] == 5.25

    def test_nothing_begins_that_cannot_end(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no", {"retry_after_s": 40})]})
        with pytest.raises(Busy) as caught:
            here.dispatcher.run_here(here.job(), "a")
        assert len(caught.value.attempts) == 1
        assert here.clocks.slept == []

    def test_a_job_that_runs_out_of_time_between_attempts_ends(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]})
        here.places["a"].seconds = 31.0
        with pytest.raises(JobError) as caught:
            here.dispatcher.run_here(here.job(), "a")
        assert [one["substrate"] for one in caught.value.attempts] == ["a"]

    @pytest.mark.parametrize(("seconds_of_work", "budget_s"), [(0.0, LEAST_ATTEMPT_S), (2.0, 16.08), (100.0, 30.0)])
    def test_an_attempt_leaves_time_for_another_place(
        self, world: Make, seconds_of_work: float, budget_s: float
    ) -> None:
        slow = {"bytes_per_s": 90 / seconds_of_work if seconds_of_work else 1e15}
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a=slow)
        here.dispatcher.run(here.job(), "a")
        assert here.requests("a")[0]["timeout"] == pytest.approx(budget_s * 1000, abs=2)

    def test_where_there_is_no_other_it_has_all_of_it(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        here.dispatcher.run(here.job(policy=Policy(exclude=("b",))), "a")
        here.break_("b")
        here.dispatcher.run(here.job(), "a")
        assert [request["timeout"] for request in here.requests("a")] == [30_000, 30_000]


class TestHurried:
    """An attempt that ran out of time says something of its place only where it had enough."""

    @pytest.mark.parametrize(
        ("program", "bytes_per_s", "deadline_s", "failures"),
        [
            (PROGRAM, 45, 30, 1),
            (PROGRAM, 45, 16.08, 1),
            (PROGRAM, 45, 10, 0),
            (PROGRAM, 1e9, 30, 1),
            (TO_THE_END, 1e9, 30, 0),
        ],
    )
    def test_what_is_held_against_a_place(
        self, world: Make, program: Program, bytes_per_s: float, deadline_s: float, failures: int
    ) -> None:
        here: World = world(
            settings=Settings(timeout_s=deadline_s + 0.001),
            scripts={"a": [AttemptTimeout("no")], "b": [DONE]},
            a={"bytes_per_s": bytes_per_s},
        )
        assert here.dispatcher.run(here.job(program), "a") == Again("b")
        assert here.health("a").failures == failures

    def test_a_large_object_is_no_surprise_where_the_length_was_not_known(self, world: Make) -> None:
        here: World = world(scripts={"a": [answer(1 << 33)]}, a={"max_range_bytes": 1 << 40})
        here.places["a"].seconds = 9.0
        here.dispatcher.run(here.job(TO_THE_END), "a")
        assert here.health("a").surprise_s == 0

    def test_a_small_one_that_takes_long_is(self, world: Make) -> None:
        for program in (PROGRAM, TO_THE_END):
            here: World = world(scripts={"a": [DONE]})
            here.places["a"].seconds = 9.0
            here.dispatcher.run(here.job(program), "a")
            assert here.health("a").surprise_s == pytest.approx(9.0, abs=0.05)


class TestCost:
    SETTINGS = Settings(timeout_s=30, egress=(EgressRule("host", 1000.0, "aws", "iad"),))
    PRICED: dict[str, Any] = {"a": {"prices": Prices(usd_per_request=0.25)}, "b": {"prices": Prices(usd_per_s=1.0)}}  # noqa: RUF012

    def test_it_is_summed_over_attempts_with_the_egress_in_it(self, world: Make) -> None:
        here: World = world(settings=self.SETTINGS, scripts={"a": [Busy("no")], "b": [DONE]}, **self.PRICED)
        result = here.dispatcher.run_here(here.job(), "a")
        assert result["cost_usd"] == pytest.approx(0.25 + 1.0 * 0.25 + 90 * 1000 / 1e9)
        assert here.health("a").cost_usd == pytest.approx(0.25)
        assert here.health("b").cost_usd == pytest.approx(0.25 + 9e-5)

    def test_at_home_there_is_none(self, world: Make) -> None:
        here: World = world(settings=self.SETTINGS, a={"provider": "aws"})
        assert here.dispatcher.run_here(here.job(), "a")["cost_usd"] == 0

    def test_a_cap_counts_what_is_spent(self, world: Make) -> None:
        here: World = world(settings=self.SETTINGS, scripts={"a": [Busy("no")], "b": [DONE]}, a=self.PRICED["a"],
                            b=self.PRICED["a"])  # fmt: skip
        with pytest.raises(Busy) as caught:
            here.dispatcher.run_here(here.job(policy=Policy(max_cost_usd=0.4)), "a")
        assert len(caught.value.attempts) == 1, "another place would cost too much: the job ends with the error it had"
        assert here.requests("b") == []


class TestCapOnAnUnknownLength:
    """A range to the object's end has a size that the source is asked for, before its first byte is paid for."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        (tmp_path / "object").write_bytes(bytes(1 << 20))
        with serve_file(tmp_path / "object") as url:
            yield url

    def run(self, world: Make, url: str, max_cost_usd: float | None, offset: int = 0, etag: str | None = None) -> World:
        settings = Settings(
            allow_private_sources=(ipaddress.ip_network("127.0.0.0/8"),), egress=(EgressRule("127.0.0.1", 1000.0),)
        )
        here: World = world(settings=settings, scripts={"a": [answer(0)]}, a={"max_range_bytes": 1 << 30})
        program = Program(url, (Op("crc32c"),), offset, None, etag)
        here.dispatcher.run(here.job(program, Policy(max_cost_usd=max_cost_usd)), "a")
        return here

    def test_it_is_kept(self, world: Make, url: str) -> None:
        with pytest.raises(NoSubstrate) as caught:
            self.run(world, url, 0.5)
        assert caught.value.details["vetoes"] == {"a": "would cost $1.05, policy.max_cost_usd leaves $0.5"}
        assert caught.value.attempts == []

    @pytest.mark.parametrize(
        ("max_cost_usd", "offset"), [(1.05, 0), (0.5, 600_000), (1e-4, (1 << 20) - 90), (0.0, 1 << 20)]
    )
    def test_what_fits_is_run(self, world: Make, url: str, max_cost_usd: float, offset: int) -> None:
        assert len(self.run(world, url, max_cost_usd, offset).requests("a")) == 1

    def test_an_offset_past_the_end_is_the_attempts_to_refuse(self, world: Make, url: str) -> None:
        assert len(self.run(world, url, 0.0, 1 << 30).requests("a")) == 1

    def test_without_a_cap_nobody_asks(self, world: Make) -> None:
        assert len(self.run(world, "http://127.0.0.1:1/object", None).requests("a")) == 1

    def test_a_source_that_does_not_tell_is_taken_for_eight_mebibytes(self, world: Make, url: str) -> None:
        for silent in ("http://127.0.0.1:1/object", "http://10.0.0.1/object"):
            assert len(self.run(world, silent, 10.0).requests("a")) == 1
        assert len(self.run(world, url, 10.0, etag='"another"').requests("a")) == 1
        with pytest.raises(NoSubstrate):
            self.run(world, "http://127.0.0.1:1/object", 1.0)


class TestMovedOn:
    """What has changed since the job was published: it need not be tried where it is."""

    def test_away_from_a_breaker_that_has_opened(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        here.break_("a")
        job = here.job()
        assert here.dispatcher.run(job, "a") == Again("b", 0.0)
        assert (job.trail.moves, job.trail.attempts, here.requests("a")) == (1, [], [])
        assert here.watcher.told == [("moved", "j1", "a", Again("b"))]
        result = here.dispatcher.run(job, "b")
        assert not isinstance(result, Again)
        assert [one["substrate"] for one in result["attempts"]] == ["b"]

    def test_not_when_no_place_is_well(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        here.break_("a")
        here.break_("b")
        assert here.dispatcher.run_here(here.job(), "b")["substrate"] == "b"

    def test_not_for_ever(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        here.break_("a")
        job = here.job()
        job.trail.moves = 8
        assert here.dispatcher.run_here(job, "a")["substrate"] == "a"

    def test_not_from_a_place_that_starts_slowly(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        here.break_("a")
        here.clocks.sleep(6)
        for _ in range(3):
            here.fleet.record(Leased("a", "other"), Outcome(ok=True), here.clocks.wall())
        for _ in range(20):
            assert here.dispatcher.run_here(here.job(), "a")["substrate"] == "a", "who sent it has drawn already"

    def test_from_a_place_that_the_policy_does_not_want(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        assert here.dispatcher.run(here.job(policy=Policy(exclude=("a",))), "a") == Again("b")

    def test_where_a_policy_leaves_one_that_is_not_well_it_is_used(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]})
        here.break_("b")
        result = here.dispatcher.run_here(here.job(policy=Policy(exclude=("a",))), "a")
        assert result["substrate"] == "b"


class TestSlots:
    def take(self, here: World, name: str) -> None:
        assert here.fleet.begin(Leased(name, "other"), here.clocks.wall())

    def test_when_there_is_none_for_two_seconds_the_job_goes_elsewhere(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"slots": 1})
        self.take(here, "a")
        job = here.job()
        assert here.dispatcher.run(job, "a") == Again("b", 0.0)
        assert 2 <= here.clocks.passed_s < 2.2
        assert (job.trail.moves, job.trail.attempts, here.requests("a")) == (1, [], [])
        assert here.dispatcher.run_here(job, "b")["timing"]["queued_s"] == pytest.approx(here.clocks.passed_s - 0.25)

    def test_where_there_is_no_other_place_it_comes_back_later(self, world: Make) -> None:
        here: World = world(a={"slots": 1})
        self.take(here, "a")
        assert here.dispatcher.run(here.job(), "a") == Again("a", 0.5)

    def test_a_full_place_is_better_than_one_that_is_not_well(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"slots": 1})
        here.break_("b")
        self.take(here, "a")
        assert here.dispatcher.run(here.job(), "a") == Again("a", 0.5)

    def test_it_runs_when_one_is_given_back(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"slots": 1})
        self.take(here, "a")

        def sleep(seconds: float) -> None:
            here.clocks.sleep(seconds)
            if here.clocks.passed_s > 1:
                here.fleet.record(Leased("a", "other"), Outcome(ok=True), here.clocks.wall())

        result = replace(here.dispatcher, sleep=sleep).run(here.job(), "a")
        assert not isinstance(result, Again)
        assert 1 < here.clocks.passed_s < 1.5

    def test_the_wait_is_within_the_deadline(self, world: Make) -> None:
        here: World = world(a={"slots": 1})
        self.take(here, "a")
        with pytest.raises(AttemptTimeout) as caught:
            here.dispatcher.run_here(here.job(policy=Policy(deadline_s=1)), "a")
        assert caught.value.attempts == []
        assert here.clocks.passed_s < 2

    def test_a_job_that_waits_for_ever_ends_with_its_deadline(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"slots": 1}, b={"slots": 1})

        def sleep(seconds: float) -> None:
            here.clocks.sleep(seconds)
            here.fleet.renew([Leased("a", "other"), Leased("b", "other")], here.clocks.wall())

        self.take(here, "a")
        self.take(here, "b")
        with pytest.raises(AttemptTimeout) as caught:
            replace(here.dispatcher, sleep=sleep).run_here(here.job(), "a")
        assert caught.value.attempts == []
        assert here.clocks.passed_s < 33

    def test_the_job_that_has_it_already_does_not_wait(self, world: Make) -> None:
        here: World = world(a={"slots": 1})
        assert here.fleet.begin(Leased("a", "j1"), here.clocks.wall())
        assert here.dispatcher.run_here(here.job(), "a")["substrate"] == "a"
        assert here.clocks.slept == []


class TestNoSlotToWaitFor:
    """A local place that declares no slots: its attempt begins while the fleet is told."""

    @staticmethod
    def telling(here: World, told: list[str], answer: JobError | None = None) -> Dispatcher:
        """A dispatcher that notes what it asks of the fleet and of the place ``a``."""

        class Telling(StubFleet):
            @contextmanager
            def beginning(self, leased: Leased, now: float) -> Iterator[Callable[[], bool]]:
                told.append("begin")

                def asked() -> bool:
                    told.append("begun?")
                    if answer is not None:
                        raise answer
                    return real()

                with super().beginning(leased, now) as real:
                    yield asked

            def record(self, leased: Leased, outcome: Outcome, now: float) -> tuple[Health, bool]:
                told.append("record")
                return super().record(leased, outcome, now)

        place = here.places["a"]
        invoke = place.invoke
        place.invoke = lambda request: told.append("invoke") or invoke(request)  # type: ignore[method-assign, func-returns-value]
        here.fleet = Telling(here.fleet.places)
        return here.another(here.fleet)

    def test_it_is_asked_for_after_the_attempt_and_before_its_end_is_told(self, world: Make) -> None:
        here: World = world(a={"kind": "local"})
        told: list[str] = []
        assert self.telling(here, told).run_here(here.job(), "a")["substrate"] == "a"
        assert told == ["begin", "invoke", "begun?", "record"]
        assert here.health("a").in_flight == 0

    @pytest.mark.parametrize("facts", [{"kind": "local", "slots": 1}, {"kind": "stub"}])
    def test_where_there_is_or_it_may_cost_money_the_answer_is_awaited(self, world: Make, facts: Any) -> None:
        here: World = world(a=facts)
        told: list[str] = []
        dispatcher = self.telling(here, told)
        assert dispatcher.run_here(here.job(), "a")["substrate"] == "a"
        assert told == ["invoke", "record"]
        here.fleet.cancelled.add("j1")
        with pytest.raises(Cancelled):
            dispatcher.run_here(here.job(), "a")
        assert told == ["invoke", "record"], "nothing is computed in vain"

    def test_what_was_cancelled_before_ends_so_whatever_was_computed(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"kind": "local"})
        here.fleet.cancelled.add("j1")
        with pytest.raises(Cancelled):
            here.dispatcher.run_here(here.job(), "a")
        assert here.health("a").in_flight == 0
        assert here.health("a").failures == 0
        assert here.requests("b") == []
        assert here.watcher.told == [("attempt", "j1", "a", False), ("finished", "j1", "a", "Cancelled")]

    def test_what_ends_before_the_place_is_asked_gives_back_what_was_taken(
        self, world: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(url: str, settings: Settings) -> str:
            raise ForbiddenSource("no credentials")

        here: World = world(a={"kind": "local"})
        told: list[str] = []
        monkeypatch.setattr(dispatch, "presign", refuse)
        with pytest.raises(ForbiddenSource):
            self.telling(here, told).run_here(here.job(), "a")
        assert told == ["begin", "begun?", "record"], "a lease that is given back must be there"
        assert here.health("a").in_flight == 0

    def test_a_store_that_is_gone_stops_nothing(self, world: Make) -> None:
        here: World = world(a={"kind": "local"})
        told: list[str] = []
        dispatcher = self.telling(here, told, BrokerUnavailable("it is away"))
        assert dispatcher.run_here(here.job(), "a")["substrate"] == "a"
        assert told == ["begin", "invoke", "begun?", "record"]


class Away:
    """A fleet whose store does not answer."""

    places = ()

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise BrokerUnavailable(f"{name}: the store is away")

        return refuse


class TestWithoutAStore:
    def test_a_job_is_done_all_the_same(self, world: Make) -> None:
        here: World = world(a={"slots": 1})
        result = here.another(Away()).run_here(here.job(), "a")  # type: ignore[arg-type]
        assert result["results"] == DONE["results"]

    def test_so_are_one_that_fails_over_and_one_that_is_tried_again(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [SourceFailed("no"), DONE]})
        result = here.another(Away()).run_here(here.job(), "a")  # type: ignore[arg-type]
        assert [one["substrate"] for one in result["attempts"]] == ["a", "b", "b"]

    def test_an_error_is_the_one_it_had(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceNotFound("no")]})
        with pytest.raises(SourceNotFound):
            here.another(Away()).run_here(here.job(), "a")  # type: ignore[arg-type]


class TestS3:
    @pytest.mark.parametrize("url", ["s3://bucket/a key", "S3://bucket/key"])
    def test_a_substrate_gets_a_presigned_url_and_the_result_keeps_the_objects(
        self, world: Make, aws_keys: None, url: str
    ) -> None:
        here: World = world(settings=Settings(timeout_s=30, s3_region="eu-west-1"))
        result = here.dispatcher.run_here(here.job(replace(PROGRAM, data_url=url)), "a")
        sent = here.requests("a")[0]["program"]
        assert sent["data_url"].startswith("https://bucket.s3")
        assert "X-Amz-Signature=" in sent["data_url"]
        assert (sent["offset"], sent["length"], sent["etag"]) == (5, 90, '"v1"')
        assert result["data_url"] == url
        assert "X-Amz" not in json.dumps(result)
        assert result["cost_usd"] == pytest.approx(90 * 0.09 / 1e9)

    def test_one_that_cannot_be_signed_is_no_attempt_and_holds_no_slot(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"slots": 1})
        with pytest.raises(BadProgram) as caught:
            here.dispatcher.run(here.job(replace(PROGRAM, data_url="s3://bucket")), "a")
        assert here.requests("a") == []
        assert caught.value.details["job_id"] == "j1"
        assert caught.value.attempts == []
        health = here.health("a")
        assert (health.in_flight, health.calls, health.failures) == (0, 0, 0)

    def test_any_other_url_is_sent_as_it_is(self, world: Make) -> None:
        here: World = world()
        here.dispatcher.run(here.job(), "a")
        assert here.requests("a")[0]["program"]["data_url"] == URL


class TestNoPlace:
    @pytest.mark.parametrize(
        ("program", "policy", "reason"),
        [
            (PROGRAM, Policy(substrates=("nowhere",)), "not among policy.substrates (nowhere)"),
            (PROGRAM, Policy(exclude=("a",)), "in policy.exclude"),
            (PROGRAM, Policy(trust="own"), "its trust is verified, policy.trust wants own"),
            (PROGRAM, Policy(min_memory_mb=513), "has 512 MB, policy.min_memory_mb wants 513"),
            (replace(PROGRAM, length=1001), Policy(), "takes at most 1000 bytes"),
            (replace(PROGRAM, data_url="/srv/object"), Policy(), "does not read file:"),
            (PROGRAM, Policy(deadline_s=0.005), "would take 0.01 s, policy.deadline_s leaves 0.005 s"),
            (PROGRAM, Policy(max_cost_usd=0.4), "would cost $0.5, policy.max_cost_usd leaves $0.4"),
        ],
    )
    def test_a_policy_that_leaves_none_is_told_why(
        self, world: Make, program: Program, policy: Policy, reason: str
    ) -> None:
        here: World = world(a={"trust": "verified", "prices": Prices(usd_per_request=0.5)})
        with pytest.raises(NoSubstrate) as caught:
            here.dispatcher.run(here.job(program, policy), "a")
        assert here.requests("a") == []
        error = caught.value
        assert str(error) == f"policy leaves no place to run: a {reason}"
        assert error.details["vetoes"] == {"a": reason}
        assert (error.details["field"], error.details["job_id"], error.attempts) == ("policy", "j1", [])
        assert error.hint == f"allow one of {LOCAL}, a"

    def test_each_place_has_its_reason(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, b={"memory_mb": 64})
        with pytest.raises(NoSubstrate) as caught:
            here.dispatcher.run(here.job(policy=Policy(exclude=("a",), min_memory_mb=100)), "b")
        assert caught.value.details["vetoes"] == {
            "a": "in policy.exclude",
            "b": "has 64 MB, policy.min_memory_mb wants 100",
        }

    def test_an_unknown_substrate_is_an_error_of_the_job(self, world: Make) -> None:
        here: World = world()
        with pytest.raises(BadPolicy) as caught:
            here.dispatcher.run(here.job(), "nowhere")
        assert str(caught.value) == "there is no substrate 'nowhere'"
        assert caught.value.details["job_id"] == "j1"
        assert caught.value.attempts == []


class TestRunHere:
    def test_it_ends_when_every_attempt_fails(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [Internal("no")]}, settings=Settings(timeout_s=3600))
        with pytest.raises(JobError) as caught:
            here.dispatcher.run_here(here.job(), "a")
        assert len(caught.value.attempts) == MAX_ATTEMPTS
        assert {one["substrate"] for one in caught.value.attempts} == {"a", "b"}

    def test_or_with_its_deadline(self, world: Make) -> None:
        here: World = world(scripts={"a": [AttemptTimeout("no")], "b": [AttemptTimeout("no")]})
        for place in here.places.values():
            place.seconds = 4.0
        with pytest.raises(AttemptTimeout):
            here.dispatcher.run_here(here.job(), "a")
        assert here.clocks.passed_s < 36

    def test_it_waits_as_long_as_it_is_told(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceFailed("no", {"retry_after_s": 5}), DONE]})
        here.dispatcher.run_here(here.job(), "a")
        assert here.clocks.slept == [5.0]

    def test_a_real_place_computes(self, tmp_path: Path) -> None:
        (tmp_path / "object").write_bytes(b"a\nb\n")
        settings = Settings(file_roots=(tmp_path,))
        fleet = StubFleet([load_substrate(LOCAL, settings).capabilities])
        dispatcher = Dispatcher(settings, fleet, FleetChooser(fleet))
        program = Program(str(tmp_path / "object"), (Op("counteq", 10),))
        result = dispatcher.run_here(Job("j1", program, Policy()), LOCAL)
        assert result["results"] == [{"op": "counteq", "imm": 10, "value": 2}]
        assert result["substrate"] == LOCAL


class TestCache:
    """Values that are known already."""

    def caching(self, here: World) -> StubCache:
        cache = StubCache()
        here.dispatcher = replace(here.dispatcher, cache=cache)
        return cache

    def test_what_was_computed_once_is_not_computed_again(self, world: Make) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"prices": Prices(usd_per_request=0.5)})
        self.caching(here)
        first = here.dispatcher.run_here(here.job(), "a")
        again = here.dispatcher.run_here(here.job(queued_s=2), "b")
        assert (first["cached"], first["cost_usd"], len(here.requests("a"))) == (False, 0.5, 1)
        assert here.requests("b") == []
        assert again == {
            **first, "cached": True, "attempts": [], "cost_usd": 0.0,
            "timing": {"queued_s": 2.0, "fetch_s": 0.0, "compute_s": 0.0, "total_s": 2.0},
        }  # fmt: skip
        assert here.held == ["a", "not a"], "no slot was taken"
        assert here.health("b").attempts == 0

    def test_nothing_of_the_source_or_the_fleet_is_asked(self, world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        here: World = world(scripts={"a": [answer(95)], "b": [DONE]})  # of two places, the size would be looked up
        cache = self.caching(here)
        cache.keep(TO_THE_END, answer(95), "a", sure=True)
        monkeypatch.setattr(dispatch, "open_source", None)
        monkeypatch.setattr(dispatch, "presign", None)
        monkeypatch.setattr(dispatch, "load_substrate", None)
        result = here.dispatcher.run_here(here.job(TO_THE_END), "b")
        assert (result["bytes_processed"], result["object_size"], result["length"]) == (95, 100, None)

    def test_observers_are_told(self, world: Make) -> None:
        here: World = world()
        self.caching(here)
        for _ in range(2):
            here.dispatcher.run_here(here.job(), "a")
        assert here.watcher.told[1:] == [("finished", "j1", "a", "NoneType")] * 2
        assert [course.cached for course in here.watcher.courses] == [False, True]

    def test_what_was_tried_before_stays_on_the_result(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("no")], "b": [DONE]}, a={"prices": Prices(usd_per_request=0.5)})
        cache, job = self.caching(here), here.job()
        assert isinstance(here.dispatcher.run(job, "a"), Again)
        cache.keep(PROGRAM, DONE, "b", sure=True)
        result = here.dispatcher.run(job, "b")
        assert not isinstance(result, Again)
        assert [one["substrate"] for one in result["attempts"]] == ["a"]
        assert (result["cost_usd"], result["cached"], result["substrate"]) == (0.5, True, "b")

    def test_without_a_pin_nothing_is_asked_but_what_was_read_is_kept(self, world: Make) -> None:
        here: World = world()
        cache = self.caching(here)
        for _ in range(2):
            assert not here.dispatcher.run_here(here.job(replace(PROGRAM, etag=None)), "a")["cached"]
        assert len(here.requests("a")) == 2
        assert cache.look(PROGRAM) is not None

    def test_a_policy_refuses_both(self, world: Make) -> None:
        here: World = world()
        cache, refuses = self.caching(here), Policy(cache=False)
        here.dispatcher.run_here(here.job(policy=refuses), "a")
        assert cache.look(PROGRAM) is None
        here.dispatcher.run_here(here.job(), "a")
        assert not here.dispatcher.run_here(here.job(policy=refuses), "a")["cached"]
        assert len(here.requests("a")) == 3

    @pytest.mark.parametrize(
        ("policy", "known"),
        [
            (Policy(), True),
            (Policy(trust="verified"), True),
            (Policy(trust="own"), False),
            (Policy(exclude=("a",)), False),
            (Policy(substrates=("b",)), False),
            (Policy(substrates=("a", "b")), True),
            (Policy(max_cost_usd=0.0), True),
        ],
    )
    def test_it_is_known_only_from_places_that_the_policy_wants(self, world: Make, policy: Policy, known: bool) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"trust": "verified"})
        self.caching(here).keep(PROGRAM, DONE, "a", sure=True)
        assert here.dispatcher.run_here(here.job(policy=policy), "b")["cached"] is known

    def test_nor_from_a_place_that_is_no_more(self, world: Make) -> None:
        here: World = world()
        self.caching(here).keep(PROGRAM, DONE, "gone", sure=True)
        assert not here.dispatcher.run_here(here.job(), "a")["cached"]

    @pytest.mark.parametrize(
        ("trust", "kept", "sure"), [("own", True, True), ("verified", True, False), ("any", False, False)]
    )
    def test_only_a_place_that_is_trusted_is_believed_later(
        self, world: Make, trust: str, kept: bool, sure: bool
    ) -> None:
        here: World = world(scripts={"a": [DONE], "b": [DONE]}, a={"trust": trust})
        cache = self.caching(here)
        here.dispatcher.run_here(here.job(), "a")
        assert (cache.look(PROGRAM) is not None) is kept
        cache.keep(PROGRAM, {**DONE, "results": [{"op": "crc32c", "value": 8}]}, "b", sure=True)
        here.dispatcher.run_here(here.job(replace(PROGRAM, etag=None)), "a")
        found = cache.look(PROGRAM)
        assert found is not None
        assert found.values[0].value == (7 if sure else 8)

    def test_what_failed_is_not_kept(self, world: Make) -> None:
        here: World = world(scripts={"a": [SourceNotFound("no")]})
        cache = self.caching(here)
        with pytest.raises(SourceNotFound):
            here.dispatcher.run_here(here.job(), "a")
        assert cache.look(PROGRAM) is None

    def test_a_deadline_that_has_passed_is_kept(self, world: Make) -> None:
        here: World = world()
        self.caching(here).keep(PROGRAM, DONE, "a", sure=True)
        with pytest.raises(AttemptTimeout):
            here.dispatcher.run_here(here.job(policy=Policy(deadline_s=1), queued_s=2), "a")


class TestTrail:
    """Between two attempts a job is a message: what is on its trail must be in the header."""

    @pytest.mark.parametrize(
        "scripts",
        [
            {"a": [Busy("no")], "b": [DONE]},
            {"a": [Busy("no"), DONE], "b": [Internal("no", {"retry_after_s": 2})]},
            {"a": [SourceFailed("no"), SourceFailed("no"), DONE]},
            {"a": [SourceFailed("no")], "b": [DONE]},
            {"a": [SourceFailed("no"), Busy("no")], "b": [SourceFailed("no"), DONE]},
            {"a": [TooLarge("no")], "b": [Busy("no"), Busy("no"), DONE], "c": [Unauthorized("no")]},
            {"a": [AttemptTimeout("no")], "b": [AttemptTimeout("no"), AttemptTimeout("no"), DONE]},
            {"a": [Busy("no")], "b": [SourceNotFound("no")]},
            {"a": [Busy("no")], "b": [Internal("no")]},
        ],
    )  # fmt: skip
    def test_two_workers_do_what_one_would(self, world: Make, scripts: Mapping[str, Script]) -> None:
        facts = {name: {"prices": Prices(usd_per_request=0.25)} for name in scripts}
        alone: World = world(scripts=scripts, **facts)
        expected = self.outcome(lambda: alone.dispatcher.run_here(alone.job(policy=Policy(deadline_s=20)), "a"))
        handed: World = world(scripts=scripts, **facts)
        assert self.outcome(lambda: self.handed_on(handed)) == expected
        assert handed.clocks.passed_s == alone.clocks.passed_s
        assert handed.watcher.told == alone.watcher.told

    @staticmethod
    def handed_on(here: World) -> Any:
        at, submitted_at, header = "a", here.clocks.wall(), None
        workers = [here.another(here.fleet), here.another(here.fleet)]
        while True:
            workers.reverse()
            job = accept_job("j1", PROGRAM.to_wire(), {"deadline_s": 20}, submitted_at, header)
            answer = workers[0].run(job, at)
            if not isinstance(answer, Again):
                return answer
            header = json.loads(json.dumps(job.trail.to_header()))
            here.clocks.sleep(answer.delay_s)
            at = answer.substrate

    @staticmethod
    def outcome(run: Any) -> Any:
        try:
            return run()
        except JobError as error:
            return type(error), error.args


class TestCancelled:
    @staticmethod
    def cancelling(here: World) -> Dispatcher:
        """A dispatcher whose attempts are all cancelled while they run."""

        @contextmanager
        def hold(leased: Leased) -> Iterator[None]:
            with here.hold(leased):
                yield
            raise Cancelled("cancelled")

        return replace(here.dispatcher, hold=hold)

    @pytest.mark.parametrize(
        "said", [DONE, Internal("broken"), SourceFailed("cut"), Busy("full", {"retry_after_s": 9})]
    )
    def test_whatever_an_attempt_brings_it_is_held_against_nobody(self, world: Make, said: Any) -> None:
        prices = Prices(usd_per_s=2.0)
        here: World = world(scripts={"a": [said], "b": [DONE]}, a={"slots": 1, "prices": prices})
        before = replace(here.health("a"), at=WALL + 0.25, attempts=1, cost_usd=0.5)
        with pytest.raises(Cancelled) as caught:
            self.cancelling(here).run_here(here.job(), "a")
        assert here.health("a") == before, "its slot is free, and its seconds are paid for"
        assert here.requests("b") == []
        assert caught.value.details["job_id"] == "j1"
        (attempt,) = caught.value.attempts
        assert (attempt["substrate"], attempt["ok"], attempt["error"]["type"]) == ("a", False, "cancelled")
        assert here.watcher.told == [("attempt", "j1", "a", False), ("finished", "j1", "a", "Cancelled")]
        (outcome,) = here.watcher.outcomes
        assert (outcome.substrate_fault, outcome.wants_retry, outcome.retry_after_s) == (False, False, 0.0)

    def test_between_two_attempts_no_other_begins(self, world: Make) -> None:
        here: World = world(scripts={"a": [Busy("full")], "b": [DONE]})
        job = here.job()
        assert here.dispatcher.run(job, "a") == Again("b")
        here.fleet.cancelled.add("j1")
        with pytest.raises(Cancelled):
            here.dispatcher.run(job, "b")
        assert here.requests("b") == []
        assert here.health("b") == Health()
        assert here.watcher.told[-1] == ("finished", "j1", "b", "Cancelled")
