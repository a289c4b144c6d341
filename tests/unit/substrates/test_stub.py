"""The stub: right values, and the behaviour that its script asks for."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from packetfs_compute.deadline import Token, cancelled_by
from packetfs_compute.errors import AttemptTimeout, ConfigurationError, Internal, error_class
from packetfs_compute.executor import execute
from packetfs_compute.places import Prices, SubstrateSpec, parse_substrates
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_substrate
from packetfs_compute.substrates.stub import _ERRORS, _GARBAGE, Script, StubSubstrate, parse_script
from packetfs_compute.wire import parse_answer, parse_request

DATA = bytes(range(256)) * 40


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "object").write_bytes(DATA)
    return tmp_path


def make(root: Path, time_: Time, **script: Any) -> StubSubstrate:
    spec = SubstrateSpec("far-away", "stub", script=json.dumps(script) if script else None)
    return StubSubstrate(spec, Settings(file_roots=(root,)), clock=time_.clock, sleep=time_.sleep)


def request(root: Path, timeout: int = 10_000, **more: Any) -> dict[str, Any]:
    ops = [{"op": "crc32c"}, {"op": "counteq", "imm": 7}, {"op": "fnv64"}]
    return {"jobId": "j1", "program": {"data_url": str(root / "object"), "ops": ops}, "timeout": timeout, **more}


def test_without_a_script_it_is_a_perfect_place(root: Path, time_: Time) -> None:
    answer = make(root, time_).invoke(request(root))
    right = execute(request(root), Settings(file_roots=(root,)))
    assert answer["success"]
    assert (answer["results"], answer["bytesProcessed"]) == (right["results"], len(DATA))
    assert parse_answer(answer, parse_request(request(root))) == answer
    assert time_.slept == []


def test_it_takes_the_time_that_its_script_says(root: Path, time_: Time) -> None:
    stub = make(root, time_, latency_s=0.5, seconds_per_byte=0.001)
    answer = stub.invoke(request(root, 60_000))
    assert time_.slept == [pytest.approx(0.5 + len(DATA) / 1000)]
    assert answer["executionTimeMs"] == pytest.approx(1000 * time_.slept[0], abs=0.001)


def test_it_waits_no_longer_for_a_job_that_was_cancelled(root: Path, time_: Time) -> None:
    token = Token()

    def sleep(seconds: float) -> None:
        time_.sleep(seconds)
        if len(time_.slept) == 3:
            token.cancel()

    spec = SubstrateSpec("far-away", "stub", script='{"latency_s": 9.25}')
    stub = StubSubstrate(spec, Settings(file_roots=(root,)), clock=time_.clock, sleep=sleep)
    with cancelled_by(token):
        assert stub.invoke(request(root))["error"]["type"] == "cancelled"
    assert time_.slept == [0.5] * 3
    with cancelled_by(Token()):
        assert stub.invoke(request(root))["success"]
    assert sum(time_.slept[3:]) == 9.25


def test_jitter_is_spread_over_its_width(root: Path, time_: Time) -> None:
    stub = make(root, time_, latency_s=1, jitter_s=2, seed=7)
    for _ in range(300):
        assert stub.invoke(request(root))["success"]
    assert 1.0 <= min(time_.slept) < 1.1
    assert 2.9 < max(time_.slept) <= 3.0
    assert 1.8 < sum(time_.slept) / 300 < 2.2


def test_a_seed_gives_the_same_behaviour_again(root: Path) -> None:
    def run(seed: int) -> list[tuple[bool, float]]:
        time_ = Time()
        stub = make(root, time_, jitter_s=1, error_rate=0.3, garbage_rate=0.3, seed=seed)
        return [(stub.invoke(request(root))["success"], time_.now) for _ in range(50)]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("fails", [{}, {"error_rate": 1}])
def test_what_takes_too_long_ends_at_the_timeout(root: Path, time_: Time, fails: dict[str, Any]) -> None:
    answer = make(root, time_, latency_s=100, **fails).invoke(request(root, 2500))
    assert (answer["success"], answer["jobId"], answer["error"]["type"]) == (False, "j1", "timeout")
    assert time_.slept == [2.5]
    assert answer["executionTimeMs"] == 2500


@pytest.mark.parametrize("error", _ERRORS)
def test_it_fails_as_often_and_as_it_is_told(root: Path, time_: Time, error: str) -> None:
    stub = make(root, time_, error_rate=0.25, error=error, retry_after_s=3, seed=1)
    failures = [found["error"] for found in (stub.invoke(request(root)) for _ in range(200)) if not found["success"]]
    assert 30 < len(failures) < 70
    assert {found["type"] for found in failures} == {error}
    assert {found["retry_after_s"] for found in failures} == {3}
    assert {found["retryable"] for found in failures} == {error_class(error).retryable_by_default}


@pytest.mark.parametrize(("rate", "wanted"), [(0, False), (1, True)])
def test_the_ends_of_a_rate_are_never_and_always(root: Path, time_: Time, rate: int, wanted: bool) -> None:
    stub = make(root, time_, error_rate=rate)
    assert {stub.invoke(request(root))["success"] for _ in range(50)} == {not wanted}


def test_within_an_outage_there_is_no_answer(root: Path, time_: Time) -> None:
    stub = make(root, time_, outages=[[10, 20], [30, 31]])
    found = {}
    for at in (0, 9.9, 10, 19.9, 20, 29, 30.5, 31, 100):
        time_.now = 1000.0 + at
        found[at] = stub.invoke(request(root))["success"]
        if found[at]:
            assert stub.health(1)["status"] == "healthy"
        else:
            with pytest.raises(Internal):
                stub.health(1)
    assert [at for at, well in found.items() if not well] == [10, 19.9, 30.5]


def test_an_outage_counts_from_the_first_use(root: Path, time_: Time) -> None:
    stub = make(root, time_, outages=[[0, 5]])
    time_.now += 500
    assert not stub.invoke(request(root))["success"]
    time_.now += 5
    assert stub.invoke(request(root))["success"]


def test_garbage_ends_as_it_does_at_a_place_that_is_broken(root: Path, time_: Time) -> None:
    stub = make(root, time_, garbage_rate=1, seed=3)
    found = [stub.invoke(request(root)) for _ in range(100)]
    assert {answer["error"]["type"] for answer in found} == {"internal"}
    assert all("cannot be trusted" in answer["error"]["message"] for answer in found)
    assert len({answer["error"]["message"] for answer in found}) == len(_GARBAGE)


@pytest.mark.parametrize("made", _GARBAGE)
def test_all_garbage_is_seen_for_what_it_is(root: Path, made: Any) -> None:
    answer = execute(request(root), Settings(file_roots=(root,)))
    with pytest.raises(Internal):
        parse_answer(made(answer), parse_request(request(root)))


def test_an_attempt_that_fails_by_itself_is_no_garbage(root: Path, time_: Time) -> None:
    stub = make(root, time_, garbage_rate=1, latency_s=1)
    missing = {"program": {"data_url": str(root / "none"), "op": "crc32c"}}
    assert stub.invoke(missing)["error"]["type"] == "source_not_found"
    assert time_.slept == [1]


def test_a_request_that_is_none(root: Path, time_: Time) -> None:
    answer = make(root, time_, latency_s=1).invoke({"jobId": "j1"})
    assert (answer["error"]["type"], answer["jobId"]) == ("bad_program", "j1")
    assert time_.slept == []


def test_its_health_comes_late_too(root: Path, time_: Time) -> None:
    stub = make(root, time_, latency_s=3)
    assert stub.health(5)["status"] == "healthy"
    with pytest.raises(AttemptTimeout):
        stub.health(1)
    assert time_.slept == [3, 1]


def test_its_region_is_its_specs(root: Path) -> None:
    spec = SubstrateSpec("far-away", "stub", region="mars")
    stub = StubSubstrate(spec, Settings(region="here", file_roots=(root,)))
    assert stub.capabilities.region == stub.health(1)["region"] == stub.invoke(request(root))["region"] == "mars"


def test_what_it_declares() -> None:
    declared = StubSubstrate(SubstrateSpec("stub", "stub"), Settings(region="here")).capabilities
    assert (declared.name, declared.kind, declared.trust, declared.provider) == ("stub", "stub", "own", "own")
    assert (declared.memory_mb, declared.region, declared.prices) == (1024, "here", Prices())
    spec = SubstrateSpec(
        "a-lambda", "stub", provider="aws", slots=1000, prices=Prices(usd_per_request=2e-7), trust="any"
    )
    own = StubSubstrate(spec, Settings()).capabilities
    assert (own.provider, own.slots, own.prices.usd_per_request, own.trust) == ("aws", 1000, 2e-7, "any")


def test_a_fleet_of_settings_has_it(root: Path) -> None:
    specs = parse_substrates({"far-away": {"kind": "stub", "script": {"error_rate": 1, "error": "busy"}}})
    settings = Settings(substrates=specs, file_roots=(root,))
    assert load_substrate("far-away", settings).invoke(request(root))["error"]["type"] == "busy"


def test_many_threads_may_use_it(root: Path) -> None:
    spec = SubstrateSpec("far-away", "stub", script='{"error_rate": 0.5, "seed": 1}')
    stub = StubSubstrate(spec, Settings(file_roots=(root,)), rng=random.Random(5))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(stub.invoke, [request(root)] * 200))
    assert 60 < sum(answer["success"] for answer in found) < 140


def test_a_whole_script() -> None:
    raw = {"latency_s": 0.2, "jitter_s": 1, "seconds_per_byte": 1e-9, "error_rate": 0.05, "error": "busy",
           "retry_after_s": 2, "outages": [[60, 90.5]], "garbage_rate": 0, "seed": 7}  # fmt: skip
    assert parse_script(json.dumps(raw), "x") == Script(0.2, 1.0, 1e-9, 0.05, "busy", 2.0, ((60.0, 90.5),), 0.0, 7)
    assert parse_script(None, "x") == parse_script("{}", "x") == Script()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("latency_s", value) for value in (-1, "soon", None, [], 3601, True)],
        *[("jitter_s", value) for value in (-0.1, {})],
        *[("seconds_per_byte", value) for value in (-1e-9, 2)],
        *[(name, value) for name in ("error_rate", "garbage_rate") for value in (-0.1, 1.1, "often", None)],
        *[("error", value) for value in ("", "teapot", "no_substrate", "bad_policy", None, 7, ["busy"])],
        *[("retry_after_s", value) for value in (-1, 301)],
        *[
            ("outages", value)
            for value in (7, [7], [[1]], [[2, 1]], [[1, 1]], [[1, 2, 3]], [["a", "b"]], "12", None, [[-1, 2]])
        ],
        *[("seed", value) for value in (1.5, "x", None)],
        ("colour", "red"),
        ("latency", 1),
    ],
)
def test_a_field_that_is_wrong_is_named(name: str, value: object) -> None:
    spec = SubstrateSpec("far-away", "stub", script=json.dumps({"seed": 1, name: value}))
    with pytest.raises(ConfigurationError) as caught:
        StubSubstrate(spec, Settings())
    assert caught.value.details["field"] == f"substrates.far-away.script.{name}"
    assert caught.value.hint


@pytest.mark.parametrize("script", ["", "[]", "null", "7", "{", "[" * 100_000])
def test_a_script_that_is_no_object(script: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_script(script, "substrates.x.script")
    assert caught.value.details["field"] == "substrates.x.script"


def test_not_a_number_is_none() -> None:
    with pytest.raises(ConfigurationError):
        parse_script('{"latency_s": NaN}', "x")
