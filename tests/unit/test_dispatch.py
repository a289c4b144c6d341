"""One attempt of a job: what the substrate is asked, and what becomes of its answer."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.untrusted import HUGE

from packetfs_compute import dispatch
from packetfs_compute.dispatch import Job, accept_job, run_job, substrate_of_queue
from packetfs_compute.errors import (
    AttemptTimeout,
    BadPolicy,
    BadProgram,
    Busy,
    JobError,
    NoSubstrate,
    RangeNotSatisfiable,
    SourceFailed,
)
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Capabilities, Policy
from packetfs_compute.settings import Settings
from packetfs_compute.wire import parse_request

PROGRAM = Program("https://host/object", (Op("crc32c"),), 5, 90, '"v1"')
SETTINGS = Settings(timeout_s=30)
ANSWER = {
    "success": True,
    "jobId": "j1",
    "results": [{"op": "crc32c", "value": 7}],
    "bytesProcessed": 90,
    "objectSize": 100,
    "etag": '"v1"',
    "executionTimeMs": 12.5,
    "fetchTimeMs": 11.9,
    "region": "iad",
    "memoryUsedMb": 34,
}


class Clocks:
    """A monotonic clock and a wall clock that move together when they are told to."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def clock(self) -> float:
        return 5000.0 + self.passed_s

    def wall(self) -> float:
        return 1_700_000_000.0 + self.passed_s


class Fake:
    """A substrate that takes ``seconds`` for the answer it was built with."""

    def __init__(self, answer: Mapping[str, Any] = ANSWER, seconds: float = 0.25) -> None:
        self.clocks = Clocks()
        self.requests: list[dict[str, Any]] = []
        self.built: list[tuple[str, Settings]] = []
        self.capabilities = Capabilities("fake", "verified", 512, 1000, 900, frozenset({"https"}))
        self._answer, self._seconds = answer, seconds

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.requests.append(dict(request))
        self.clocks.passed_s += self._seconds
        return dict(self._answer)

    def health(self) -> dict[str, Any]:
        raise AssertionError("nobody asked for health")

    def run(self, job: Job, settings: Settings = SETTINGS) -> dict[str, Any]:
        return dict(run_job(job, "fake", settings, clock=self.clocks.clock, wall=self.clocks.wall))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the function that makes a fake the only substrate."""

    def use(fake: Fake) -> Fake:
        def load(name: str, settings: Settings) -> Fake:
            fake.built.append((name, settings))
            return fake

        monkeypatch.setattr(dispatch, "load_substrate", load)
        return fake

    return use


def failed(error_type: str, **more: Any) -> dict[str, Any]:
    error = {"type": error_type, "message": "no luck", "retryable": False, **more}
    return {"success": False, "jobId": "j1", "error": error, "executionTimeMs": 3.1}


def test_a_job_that_is_done(use: Any) -> None:
    fake = use(Fake())
    result = fake.run(Job("j1", PROGRAM, Policy(), fake.clocks.wall() - 2))
    assert fake.built == [("fake", SETTINGS)]
    assert fake.requests == [{"program": PROGRAM.to_wire(), "timeout": 28_000, "jobId": "j1"}]
    assert result["results"] == ANSWER["results"]
    assert result["job_id"] == "j1"
    assert result["attempts"] == [{"substrate": "fake", "ok": True, "error": None, "seconds": 0.25}]
    assert (result["substrate"], result["region"], result["cost_usd"]) == ("fake", "iad", 0.0)
    assert result["timing"] == {"queued_s": 2.0, "fetch_s": 0.0119, "compute_s": 0.0006, "total_s": 2.25}
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("error_type", "cls"),
    [("range_not_satisfiable", RangeNotSatisfiable), ("source_failed", SourceFailed), ("busy", Busy),
     ("timeout", AttemptTimeout)],
)  # fmt: skip
def test_a_failing_attempt_is_a_typed_error_that_carries_it(use: Any, error_type: str, cls: type[JobError]) -> None:
    fake = use(Fake(failed(error_type, hint="try later", object_size=9)))
    with pytest.raises(cls) as caught:
        fake.run(Job("j1", PROGRAM, Policy()))
    error = caught.value
    assert type(error) is cls
    assert str(error) == "no luck"
    assert (error.hint, error.details["object_size"], error.retryable) == ("try later", 9, False)
    assert error.details["job_id"] == "j1"
    assert error.attempts == [
        {"substrate": "fake", "ok": False, "error": {"type": error_type, "message": "no luck"}, "seconds": 0.25}
    ]
    assert error.args[1] == error.details
    assert json.loads(json.dumps(error.details)) == error.details


class TestDeadline:
    @pytest.mark.parametrize(
        ("policy_s", "settings_s", "queued_s", "timeout_ms"),
        [(None, 30, 0, 30_000), (None, 30, 10, 20_000), (5, 30, 0, 5000), (5, 30, 4.5, 500), (60, 30, 0, 60_000),
         (None, 0.001, 0, 1), (3600, 30, 0, 3_600_000), (None, 30, 29.9996, 1)],
    )  # fmt: skip
    def test_one_spans_the_job_from_its_submission(
        self, use: Any, policy_s: float | None, settings_s: float, queued_s: float, timeout_ms: int
    ) -> None:
        fake = use(Fake())
        job = Job("j1", PROGRAM, Policy(deadline_s=policy_s), fake.clocks.wall() - queued_s)
        fake.run(job, replace(SETTINGS, timeout_s=settings_s))
        assert abs(fake.requests[0]["timeout"] - timeout_ms) <= 1
        assert parse_request(fake.requests[0]).timeout_ms >= 1

    @pytest.mark.parametrize("queued_s", [30, 30.001, 1e9])
    def test_spent_in_the_queue_there_is_no_attempt(self, use: Any, queued_s: float) -> None:
        fake = use(Fake())
        with pytest.raises(AttemptTimeout) as caught:
            fake.run(Job("j1", PROGRAM, Policy(), fake.clocks.wall() - queued_s))
        assert fake.requests == []
        assert caught.value.details == {"job_id": "j1", "attempts": []}

    @pytest.mark.parametrize("ahead_s", [0.001, 5, 1e6])
    def test_a_publishers_clock_that_runs_ahead_gives_no_more_time(self, use: Any, ahead_s: float) -> None:
        fake = use(Fake())
        result = fake.run(Job("j1", PROGRAM, Policy(), fake.clocks.wall() + ahead_s))
        assert fake.requests[0]["timeout"] == 30_000
        assert result["timing"]["queued_s"] == 0.0
        assert result["timing"]["total_s"] == 0.25

    def test_a_publisher_that_did_not_say_when(self, use: Any) -> None:
        fake = use(Fake())
        result = fake.run(Job("j1", PROGRAM, Policy()))
        assert fake.requests[0]["timeout"] == 30_000
        assert result["timing"]["queued_s"] is None
        assert result["timing"]["total_s"] == 0.25


@pytest.mark.parametrize(
    ("policy", "length", "reason"),
    [
        (Policy(substrates=("local",)), None, "not among policy.substrates (local)"),
        (Policy(exclude=("fake",)), None, "in policy.exclude"),
        (Policy(trust="own"), None, "its trust is verified, policy.trust wants own"),
        (Policy(min_memory_mb=513), None, "has 512 MB, policy.min_memory_mb wants 513"),
        (Policy(), 1001, "takes at most 1000 bytes"),
    ],
)
def test_a_policy_that_leaves_no_place_is_told_why(use: Any, policy: Policy, length: int | None, reason: str) -> None:
    fake = use(Fake())
    with pytest.raises(NoSubstrate) as caught:
        fake.run(Job("j1", replace(PROGRAM, length=length), policy))
    assert fake.requests == []
    error = caught.value
    assert str(error) == f"policy leaves no place to run: fake {reason}"
    assert error.details["vetoes"] == {"fake": [reason]}
    assert (error.details["field"], error.details["job_id"], error.attempts) == ("policy", "j1", [])
    assert error.hint == "allow one of local"


class TestS3:
    @pytest.mark.parametrize("url", ["s3://bucket/a key", "S3://bucket/key"])
    def test_a_substrate_gets_a_presigned_url_and_the_result_keeps_the_objects(
        self, use: Any, aws_keys: None, url: str
    ) -> None:
        fake = use(Fake())
        result = fake.run(Job("j1", replace(PROGRAM, data_url=url), Policy()), replace(SETTINGS, s3_region="eu-west-1"))
        sent = fake.requests[0]["program"]
        assert sent["data_url"].startswith("https://bucket.s3")
        assert "X-Amz-Signature=" in sent["data_url"]
        assert (sent["offset"], sent["length"], sent["etag"]) == (5, 90, '"v1"')
        assert result["data_url"] == url
        assert "X-Amz" not in json.dumps(result)

    def test_one_that_cannot_be_signed_is_no_attempt(self, use: Any) -> None:
        fake = use(Fake())
        with pytest.raises(BadProgram) as caught:
            fake.run(Job("j1", replace(PROGRAM, data_url="s3://bucket"), Policy()))
        assert fake.requests == []
        assert caught.value.details["job_id"] == "j1"
        assert caught.value.attempts == []

    def test_any_other_url_is_sent_as_it_is(self, use: Any) -> None:
        fake = use(Fake())
        fake.run(Job("j1", PROGRAM, Policy()))
        assert fake.requests[0]["program"]["data_url"] == PROGRAM.data_url


def test_an_unknown_substrate_is_an_error_of_the_job() -> None:
    with pytest.raises(BadPolicy) as caught:
        run_job(Job("j1", PROGRAM, Policy()), "nowhere", SETTINGS)
    assert str(caught.value) == "there is no substrate 'nowhere'"
    assert caught.value.details["job_id"] == "j1"
    assert caught.value.attempts == []


class TestAccept:
    def test_a_job_is_made_of_json(self) -> None:
        job = accept_job("j1", PROGRAM.to_wire(), {"goal": "cheapest"}, 1_700_000_000.5)
        assert job == Job("j1", PROGRAM, Policy(goal="cheapest"), 1_700_000_000.5)
        assert accept_job("j1", PROGRAM.to_wire(), None) == Job("j1", PROGRAM, Policy())

    @pytest.mark.parametrize(
        ("program", "policy", "cls"),
        [(None, None, BadProgram), ({}, None, BadProgram), (PROGRAM.to_wire(), [], BadPolicy), ({}, [], BadProgram)],
    )
    def test_a_refusal_names_the_job(self, program: object, policy: object, cls: type[JobError]) -> None:
        with pytest.raises(cls) as caught:
            accept_job("j1", program, policy)
        assert caught.value.details["job_id"] == "j1"
        assert caught.value.attempts == []
        assert caught.value.details["field"]

    @pytest.mark.parametrize(
        "raw",
        [
            None,
            "yesterday",
            "1700000000",
            True,
            [],
            {},
            math.nan,
            math.inf,
            -math.inf,
            1e300,
            pytest.param(HUGE, id="huge"),
        ],
    )
    def test_a_submission_time_that_makes_no_sense_is_none(self, raw: object) -> None:
        assert accept_job("j1", PROGRAM.to_wire(), None, raw).submitted_at is None

    @pytest.mark.parametrize("raw", [0, 1_700_000_000, 1_700_000_000.25])
    def test_one_that_does_is_kept(self, raw: float) -> None:
        assert accept_job("j1", PROGRAM.to_wire(), None, raw).submitted_at == raw


@pytest.mark.parametrize(
    ("queue", "substrate"),
    [("packetfs.local", "local"), ("local", None), ("packetfs.nowhere", None), ("packetfs.", None), ("celery", None),
     ("", None), (None, None)],
)  # fmt: skip
def test_which_substrate_a_queue_is_of(queue: str | None, substrate: str | None) -> None:
    assert substrate_of_queue(queue) == substrate
