"""The wire: requests in, answers out, and errors that are the same on both ends."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, nearly_requests, patient, programs, python_values

from packetfs_compute import errors
from packetfs_compute.errors import BadProgram, Busy, Internal, JobError, RangeNotSatisfiable, error_class
from packetfs_compute.names import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS
from packetfs_compute.program import Op, Program
from packetfs_compute.wire import (
    ComputeRequest,
    Measured,
    error_from_wire,
    failure,
    job_id_of,
    parse_request,
    success,
)

PROGRAM = Program("https://host/object", (Op("crc32c"), Op("fnv64")), 5, 10, '"v1"')
WIRE_CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and "type" in vars(cls)]
JOB_IDS = ["j", "j1", "A.b_c:-9", "x" * 128]
NO_JOB_IDS = ["", "a b", "x" * 129, "é", "j1\n", "j1\x00", "٣", 7, 1.0, True, ["j1"], {}, b"j1", HUGE, None]


def request(**changes: Any) -> dict[str, Any]:
    return {"program": PROGRAM.to_wire(), **changes}


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        (request(), ComputeRequest(PROGRAM, None, DEFAULT_TIMEOUT_MS)),
        (request(jobId=None, timeout=None), ComputeRequest(PROGRAM, None, DEFAULT_TIMEOUT_MS)),
        (request(jobId="j1", timeout=1), ComputeRequest(PROGRAM, "j1", 1)),
        (request(timeout=2.0), ComputeRequest(PROGRAM, None, 2)),
        (request(timeout=MAX_TIMEOUT_MS), ComputeRequest(PROGRAM, None, MAX_TIMEOUT_MS)),
    ],
)
def test_a_request(raw: dict[str, Any], parsed: ComputeRequest) -> None:
    assert parse_request(raw) == parsed


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        *[(value, "request") for value in (None, [], "x", 7, True, b"{}")],
        *[(request(jobId=value), "request.jobId") for value in NO_JOB_IDS if value is not None],
        *[(request(timeout=value), "request.timeout") for value in
          (0, -1, MAX_TIMEOUT_MS + 1, 1.5, math.nan, math.inf, "1", True, [1], HUGE, 1e300)],
        pytest.param(HUGE, "request", id="huge"),
        ({}, "program"),
        (request(program=None), "program"),
        (request(jobid="j1"), "request.jobid"),
        (request(program={**PROGRAM.to_wire(), "offset": -1}), "program.offset"),
    ],
)  # fmt: skip
def test_a_request_that_is_refused(raw: object, field: str) -> None:
    with pytest.raises(BadProgram) as caught:
        parse_request(raw)
    assert caught.value.details["field"] == field
    assert caught.value.hint


@patient
@given(programs, st.none() | st.sampled_from(JOB_IDS), st.integers(1, MAX_TIMEOUT_MS))
def test_a_request_survives_the_wire(program: Program, job_id: str | None, timeout_ms: int) -> None:
    made = ComputeRequest(program, job_id, timeout_ms)
    assert parse_request(json.loads(json.dumps(made.to_wire()))) == made


def outcome(raw: object) -> ComputeRequest | BadProgram:
    try:
        return parse_request(raw)
    except BadProgram as error:
        return error


@patient
@given(json_values | nearly_requests)
def test_any_json_parses_or_is_a_bad_program(raw: object) -> None:
    found = outcome(raw)
    if isinstance(found, ComputeRequest):
        assert parse_request(found.to_wire()) == found
    else:
        assert found.details["field"].split(".")[0] in ("request", "program")
        assert found.hint
        assert len(str(found)) < 300


@pytest.mark.parametrize("job_id", JOB_IDS)
def test_a_job_id_is_found_in_a_request_that_is_malformed_elsewhere(job_id: str) -> None:
    assert job_id_of({"jobId": job_id}) == job_id_of({"jobId": job_id, "program": 7, "more": []}) == job_id


@pytest.mark.parametrize("raw", [*({"jobId": job_id} for job_id in NO_JOB_IDS), {}, None, [], "jobId", 7, object()])
def test_what_is_no_job_id(raw: object) -> None:
    assert job_id_of(raw) is None


@patient
@given(python_values)
def test_looking_for_a_job_id_never_fails(raw: object) -> None:
    assert job_id_of(raw) is None or isinstance(job_id_of(raw), str)


def test_the_answer_to_a_request_that_was_computed() -> None:
    measured = Measured(10, 900, '"v1"', 0.0123456, 0.0119, "iad", 34)
    assert success(ComputeRequest(PROGRAM, "j1"), [2316035459, 255], measured) == {
        "success": True,
        "jobId": "j1",
        "results": [{"op": "crc32c", "value": 2316035459}, {"op": "fnv64", "value": "00000000000000ff"}],
        "bytesProcessed": 10,
        "objectSize": 900,
        "etag": '"v1"',
        "executionTimeMs": 12.346,
        "fetchTimeMs": 11.9,
        "region": "iad",
        "memoryUsedMb": 34,
    }


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_an_answer_has_a_value_for_each_op(values: list[int]) -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        success(ComputeRequest(PROGRAM), values, Measured(0, None, None, 0, 0, "local"))


def test_the_answer_to_a_request_that_was_not() -> None:
    error = RangeNotSatisfiable("past the end", {"object_size": 9, "attempts": [], "job_id": "j1", "http_status": 416})
    assert failure("j1", error, 0.0031) == {
        "success": False,
        "jobId": "j1",
        "error": {"type": "range_not_satisfiable", "message": "past the end", "retryable": False, "object_size": 9},
        "executionTimeMs": 3.1,
    }


@pytest.mark.parametrize("cls", WIRE_CLASSES)
@pytest.mark.parametrize("retryable", [None, True, False])
@pytest.mark.parametrize(
    "details", [{}, {"field": "program.imm", "hint": "é ☃", "object_size": 0, "retry_after_s": 2.5}]
)
def test_an_error_crosses_the_wire(cls: type[JobError], retryable: bool | None, details: dict[str, Any]) -> None:
    given_details = details if retryable is None else {**details, "retryable": retryable}
    error = cls("one “line”", given_details)
    again = error_from_wire(json.loads(json.dumps(failure(None, error, 0)))["error"])
    assert type(again) is cls
    assert again.message == error.message
    assert again.retryable is error.retryable
    assert {key: value for key, value in again.details.items() if key != "retryable"} == details


def test_an_unknown_type_of_a_newer_substrate_is_internal_and_named() -> None:
    error = error_from_wire({"type": "teapot", "message": "short and stout", "retryable": False})
    assert type(error) is Internal
    assert str(error) == "teapot: short and stout"
    assert error.retryable is False


@pytest.mark.parametrize("raw", [{}, {"type": None}, {"type": 7, "message": 8, "retryable": None}])
def test_a_poor_error_is_internal_all_the_same(raw: dict[str, Any]) -> None:
    error = error_from_wire(raw)
    assert type(error) is Internal
    assert error.message


def test_a_busy_substrate_says_when_to_ask_again() -> None:
    error = error_from_wire({"type": "busy", "message": "full", "retryable": True, "retry_after_s": 3})
    assert type(error) is Busy
    assert error.details == {"retry_after_s": 3}


def test_every_class_with_a_type_is_found_by_it() -> None:
    assert len(WIRE_CLASSES) == 13
    assert all(error_class(cls.type) is cls for cls in WIRE_CLASSES)
