"""The function's handler in this process: what it answers to every kind of event, and how much of it there can be."""

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.lambdazip import ROOT
from support.misbehaving import Exchange, RawServer, honest
from support.reading import DATA

from packetfs_compute import kernels
from packetfs_compute.names import MAX_ETAG_CHARS, MAX_OPS

pytestmark = pytest.mark.integration

CONTRACT = ROOT / "remote" / "contract"
DOCUMENT: dict[str, Any] = json.loads((CONTRACT / "vectors.json").read_text("ascii"))
SCHEMAS = {
    name: Draft202012Validator(json.loads((CONTRACT / f"{name}.schema.json").read_text("utf-8")))
    for name in ("response", "health")
}


class Context:
    """What Lambda gives beside the event."""

    def __init__(self, left_ms: int = 30_000) -> None:
        self._until_s = time.monotonic() + left_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._until_s - time.monotonic()) * 1000))


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The handler's module as a new environment has it."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("PACKETFS_ALLOW_PRIVATE_SOURCES", "127.0.0.0/8")
    spec = importlib.util.spec_from_file_location("lambda_handler", ROOT / "remote" / "aws_lambda" / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source() -> Iterator[RawServer]:
    with RawServer(honest(DATA)) as server:
        server.routes["/silent"] = lambda exchange: exchange.wait(20)
        yield server


def job(url: str, at: int = 0, **more: Any) -> dict[str, Any]:
    return {"jobId": f"j{at}", "program": {"data_url": url, "op": "crc32c"}, "timeout": 20_000, **more}


def test_the_first_answer_of_an_environment_is_a_cold_one(function: ModuleType, source: RawServer) -> None:
    answers = [function.handler(job(source.url(), at), Context()) for at in range(3)]
    assert [answer["coldStart"] for answer in answers] == [True, False, False]
    assert [list(SCHEMAS["response"].iter_errors(answer)) for answer in answers] == [[], [], []]
    assert answers[2]["results"] == [{"op": "crc32c", "value": kernels.crc32c(DATA)}]
    assert (answers[2]["jobId"], answers[2]["region"]) == ("j2", "eu-west-1")
    assert answers[2]["memoryUsedMb"] > 0


def test_a_region_that_is_set_is_not_overridden(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKETFS_REGION", "here")
    assert function.handler({"health": True}, Context())["region"] == "here"


def test_health(function: ModuleType) -> None:
    found = function.handler({"health": True}, Context(10_000))
    assert list(SCHEMAS["health"].iter_errors(found)) == []
    assert (found["region"], found["coldStart"]) == ("eu-west-1", True)
    assert 5000 < found["limits"]["maxTimeoutMs"] <= 9000


def test_a_batch_is_answered_in_its_order(function: ModuleType, source: RawServer) -> None:
    jobs = [job(source.url(), at, timeout=None if at % 2 else 5000) for at in range(20)]
    jobs[3], jobs[7] = {"jobId": "j3"}, None  # type: ignore[assignment]
    jobs[11]["program"]["data_url"] = "s3://bucket/key"
    answer = function.handler({"jobs": jobs}, Context())
    assert set(answer) == {"results", "coldStart"}
    for at, found in enumerate(answer["results"]):
        assert list(SCHEMAS["response"].iter_errors(found)) == []
        kind = {3: "bad_program", 7: "bad_program", 11: "forbidden_source"}.get(at)
        assert found["jobId"] == (None if at == 7 else f"j{at}")
        assert (found["error"]["type"] if kind else found["success"]) == (kind or True)
    assert function.handler({"jobs": []}, Context())["results"] == []


@pytest.mark.parametrize(("memory", "threads"), [("128", 1), ("1769", 4), ("3538", 8), ("10240", 23)])
def test_a_batch_runs_in_as_many_threads_as_its_cpus_can_feed(
    function: ModuleType, monkeypatch: pytest.MonkeyPatch, memory: str, threads: int
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory)
    lock, now, most, go = threading.Lock(), [0], [0], threading.Event()

    def script(exchange: Exchange) -> object:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if most[0] == threads:
                go.set()
        go.wait(10)
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return honest(DATA)(exchange)

    with RawServer(script) as server:
        answer = function.handler({"jobs": [job(server.url(), at) for at in range(32)]}, Context())
    assert all(found["success"] for found in answer["results"])
    assert most[0] == threads


BAD: list[Any] = [
    None, 7, "x", [], {}, [{}], {"health": False}, {"health": 1}, {"health": True, "more": 1}, {"jobs": None},
    {"jobs": [{}] * 65}, {"jobs": [], "program": {}}, {"program": {}}, {"program": None}, {"Records": []},
    {"requestContext": {"http": {"method": "POST"}}, "body": "{}"}, {"jobId": "j1", "program": {"op": "crc32c"}},
]  # fmt: skip


@pytest.mark.parametrize("event", BAD, ids=lambda event: json.dumps(event)[:40])
def test_an_event_that_is_none_of_ours(function: ModuleType, event: Any) -> None:
    answer = function.handler(event, Context())
    assert list(SCHEMAS["response"].iter_errors(answer)) == []
    assert answer["error"]["type"] == "bad_program"
    assert answer["error"]["field"]


@pytest.mark.parametrize("case", DOCUMENT["badRequests"], ids=lambda case: case["id"])
def test_a_bad_request(function: ModuleType, case: dict[str, Any]) -> None:
    answer = function.handler(case["request"], Context())
    assert (answer["error"]["type"], answer["error"]["field"]) == ("bad_program", case["field"])


@pytest.mark.parametrize("url", ["s3://bucket/key", "file:///etc/passwd", "/etc/passwd"])
def test_nothing_of_the_environments_own_is_read(
    function: ModuleType, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACKETFS_FILE_ROOTS", "/etc")
    assert function.handler(job(url), Context())["error"]["type"] == "forbidden_source"


def test_an_attempt_ends_before_its_environment_would(function: ModuleType, source: RawServer) -> None:
    context = Context(1500)
    answer = function.handler(job(source.url("/silent")), context)
    assert (answer["error"]["type"], answer["error"]["retryable"]) == ("timeout", True)
    assert context.get_remaining_time_in_millis() > 0


def test_a_batchs_jobs_share_what_is_left(
    function: ModuleType, source: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    context = Context(1500)
    answer = function.handler({"jobs": [job(source.url("/silent"), at) for at in range(8)]}, context)
    assert [found["error"]["type"] for found in answer["results"]] == ["timeout"] * 8
    assert context.get_remaining_time_in_millis() > 0


def test_settings_that_are_wrong_are_a_failure_too(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKETFS_STALL_TIMEOUT_S", "soon")
    answer = function.handler(job("https://host/x"), Context())
    assert list(SCHEMAS["response"].iter_errors(answer)) == []
    assert (answer["jobId"], answer["error"]["type"], answer["error"]["retryable"]) == ("j0", "internal", False)
    assert answer["error"]["field"] == "PACKETFS_STALL_TIMEOUT_S"


def test_the_longest_answer_is_far_below_what_lambda_lets_through(function: ModuleType, tmp_path: Path) -> None:
    etag = '"' + "é" * (MAX_ETAG_CHARS - 2) + '"'
    with RawServer(honest(DATA, etag=etag)) as server:
        ops = [{"op": "add", "imm": 255}] * (MAX_OPS - 1) + [{"op": "fnv64"}]
        one = {"jobId": "x" * 128, "program": {"data_url": server.url(), "ops": ops, "etag": etag}}
        answer = function.handler({"jobs": [one] * 64}, Context())
    assert all(found["success"] for found in answer["results"]), answer["results"][0]
    long = {"jobId": "x" * 128, "program": {"data_url": "https://" + "😀" * 2000, "op": "crc32c"}}
    failed = function.handler({"jobs": [long] * 64}, Context())
    for document in (answer, failed):
        size = len(json.dumps(document))
        print(f"the longest answer: {size} bytes")
        assert size < 3 << 20
