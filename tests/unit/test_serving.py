"""What a job from elsewhere may not do, and how long it may take, wherever it is served."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.misbehaving import RawServer, honest
from support.reading import DATA, OPEN

from packetfs_compute import kernels
from packetfs_compute.errors import BadProgram
from packetfs_compute.serving import MAX_JOBS, attempt, batch_jobs, for_others
from packetfs_compute.settings import Settings


@pytest.fixture(scope="module")
def source() -> Iterator[RawServer]:
    with RawServer(honest(DATA)) as server:
        server.routes["/silent"] = lambda exchange: exchange.wait(20)
        yield server


def job(url: str, **more: Any) -> dict[str, Any]:
    return {"jobId": "j1", "program": {"data_url": url, "op": "crc32c"}, **more}


def test_a_job(source: RawServer) -> None:
    answer = attempt(job(source.url()), for_others(OPEN))
    assert answer["results"] == [{"op": "crc32c", "value": kernels.crc32c(DATA)}]


@pytest.mark.parametrize("url", ["s3://bucket/key", "S3://bucket/key", "s3:bucket"])
def test_this_machines_keys_open_nothing(url: str) -> None:
    error = attempt(job(url), for_others(Settings()))["error"]
    assert (error["type"], error["field"]) == ("forbidden_source", "program.data_url")
    assert "presigned" in error["message"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_no_local_file_is_read(tmp_path: Path, form: str) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    settings = dataclasses.replace(Settings(), file_roots=(tmp_path,))
    asked = job(form.format(tmp_path / "x"))
    assert attempt(asked, settings)["success"]
    assert attempt(asked, for_others(settings))["error"]["type"] == "forbidden_source"


@pytest.mark.parametrize("given", [{"timeout": 20_000}, {}, {"timeout": None}, {"timeout": 20_000.0}])
def test_an_attempt_gets_no_more_than_the_platform_leaves(source: RawServer, given: dict[str, Any]) -> None:
    answer = attempt(job(source.url("/silent"), **given), OPEN, 200)
    assert answer["error"]["type"] == "timeout"
    assert 190 < answer["executionTimeMs"] < 5000


def test_an_attempt_gets_no_more_than_it_asks_for(source: RawServer) -> None:
    answer = attempt(job(source.url("/silent"), timeout=200), OPEN, 20_000)
    assert answer["error"]["type"] == "timeout"
    assert answer["executionTimeMs"] < 5000


@pytest.mark.parametrize("left_ms", [0, -5])
def test_where_nothing_is_left_nothing_is_read(source: RawServer, left_ms: int) -> None:
    heads = len(source.heads)
    answer = attempt(job(source.url()), OPEN, left_ms)
    assert (answer["jobId"], answer["error"]["type"], answer["error"]["retryable"]) == ("j1", "timeout", True)
    assert len(source.heads) == heads


@pytest.mark.parametrize("raw", [None, 7, "x", [], {}, {"jobId": "j1"}, {**job("s3://b/k"), "timeout": 3_600_001}])
def test_what_is_no_request_is_a_bad_program_first(raw: object) -> None:
    assert attempt(raw, Settings(), 100)["error"]["type"] == "bad_program"


def test_a_batch() -> None:
    assert batch_jobs({"jobs": [None, 7]}) == [None, 7]
    assert len(batch_jobs({"jobs": [{}] * MAX_JOBS})) == MAX_JOBS


@pytest.mark.parametrize("raw", [None, [], {}, {"jobs": None}, {"jobs": {}}, {"jobs": "x"}, {"jobs": [1] * 65},
                                 {"jobs": [], "more": 1}])  # fmt: skip
def test_what_is_no_batch(raw: object) -> None:
    with pytest.raises(BadProgram) as caught:
        batch_jobs(raw)
    assert caught.value.details["field"].startswith("request")
