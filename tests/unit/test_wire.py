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
from packetfs_compute.names import DEFAULT_TIMEOUT_MS, MAX_RANGE_BYTES, MAX_TIMEOUT_MS
from packetfs_compute.program import Op, Program, parse_program
from packetfs_compute.wire import (
    ComputeRequest,
    Measured,
    error_from_wire,
    failure,
    job_id_of,
    parse_answer,
    parse_health,
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
        "cache": None,
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


@pytest.mark.parametrize("raw", [{}, {"type": None}, {"type": 7, "message": 8, "retryable": None}, {"type": HUGE}])
def test_a_poor_error_is_internal_all_the_same(raw: dict[str, Any]) -> None:
    error = error_from_wire(raw)
    assert type(error) is Internal
    assert error.message


def test_a_busy_substrate_says_when_to_ask_again() -> None:
    error = error_from_wire({"type": "busy", "message": "full", "retryable": True, "retry_after_s": 3})
    assert type(error) is Busy
    assert error.details == {"retry_after_s": 3}


def test_every_class_with_a_type_is_found_by_it() -> None:
    assert len(WIRE_CLASSES) == 14
    assert all(error_class(cls.type) is cls for cls in WIRE_CLASSES)


ALL_OPS = (Op("counteq", 42), Op("crc32c"), Op("fnv64"), Op("xor", 255), Op("add", 1))
ASKED = ComputeRequest(Program("https://host/object", ALL_OPS, 5, 10), "j1")
VALUES = [3, 2316035459, 255, 17, 1200]
ANSWER = success(ASKED, VALUES, Measured(10, 900, '"v1"', 0.0123, 0.0119, "iad", 34, "PARTIAL"))
REFUSAL = failure("j1", Busy("full", {"retry_after_s": 2.5, "field": "x", "hint": "y", "object_size": 9}), 0.003)


def asked(**changes: Any) -> ComputeRequest:
    program = {**ASKED.program.to_wire(), **changes}
    return ComputeRequest(parse_program({key: value for key, value in program.items() if value is not None}), "j1")


def result(at: int, **changes: Any) -> dict[str, Any]:
    results = [dict(entry) for entry in ANSWER["results"]]
    results[at].update(changes)
    return {"results": results}


def test_a_good_answer_is_taken_as_it_is() -> None:
    assert parse_answer(json.loads(json.dumps(ANSWER)), ASKED) == ANSWER
    assert parse_answer(REFUSAL, ASKED) == REFUSAL


def test_what_is_not_known_of_an_answer_is_left_behind() -> None:
    assert parse_answer({**ANSWER, "command": "rm -rf /"}, ASKED) == ANSWER
    more = {**REFUSAL, "error": {**REFUSAL["error"], "attempts": [1], "job_id": "j7"}}
    assert parse_answer(more, ASKED) == REFUSAL


@pytest.mark.parametrize(
    "change",
    [{"objectSize": None}, {"objectSize": 15}, {"objectSize": 900.0}, {"bytesProcessed": 10.0}, {"etag": None},
     {"etag": '""'}, {"memoryUsedMb": None}, {"memoryUsedMb": 1.5}, {"cache": None}, {"cache": "HIT"}, {"cache": "MISS"},
     {"region": ""},
     {"region": "é" * 64}, {"executionTimeMs": 0}, {"fetchTimeMs": 1e9}, result(0, value=10), result(0, imm=42.0),
     result(1, value=0xFFFFFFFF), result(1, value=7.0), result(2, value="f" * 16), result(3, value=255),
     result(4, value=2550)],
)  # fmt: skip
def test_an_answer_may_say(change: dict[str, Any]) -> None:
    assert parse_answer({**ANSWER, **change}, ASKED)["success"] is True


def test_what_may_be_missing_from_an_answer() -> None:
    short = {key: value for key, value in ANSWER.items() if key not in ("cache", "memoryUsedMb", "objectSize", "etag")}
    assert parse_answer(short, ASKED) == {
        **ANSWER,
        "cache": None,
        "memoryUsedMb": None,
        "objectSize": None,
        "etag": None,
    }


NO_INTEGERS = ["10", None, True, 1.5, math.nan, math.inf, -1, [10], HUGE, {}]
NO_NUMBERS = ["1", None, True, math.nan, math.inf, -0.001, [1], HUGE, 1e300]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *[({"success": value}, "success") for value in (None, 1, "true", [])],
        *[({"jobId": value}, "jobId") for value in (None, "j2", 7, ["j1"], HUGE)],
        *[({"bytesProcessed": value}, "bytesProcessed") for value in (*NO_INTEGERS, 9, 11, MAX_RANGE_BYTES + 1)],
        *[({"objectSize": value}, "objectSize") for value in NO_INTEGERS if value is not None],
        *[({"objectSize": value}, "objectSize") for value in (0, 14, 1 << 53)],
        *[({"etag": value}, "etag") for value in (7, "", "v1", 'W/"v1"', '"a\n"', '"' + "x" * 1023 + '"', ['"v1"'])],
        *[({key: value}, key) for key in ("executionTimeMs", "fetchTimeMs") for value in NO_NUMBERS],
        *[({"memoryUsedMb": value}, "memoryUsedMb") for value in NO_NUMBERS if value is not None],
        *[({"region": value}, "region") for value in (None, 7, "x" * 65, "a\nb", "\x1b[2J", "\ud800")],
        *[({"cache": value}, "cache") for value in ("hit", "", 1, True, ["HIT"])],
        *[({"results": value}, "results") for value in (None, [], ANSWER["results"][:4], ANSWER["results"] * 2, {}, "x")],
        ({"results": list(reversed(ANSWER["results"]))}, "results[0].value"),
        ({"results": [ANSWER["results"][0]] * 5}, "results[1]"),
        *[({"results": [value, *ANSWER["results"][1:]]}, "results[0]") for value in (None, 7, "x", [])],
        (result(0, imm=43), "results[0]"),
        (result(0, imm="42"), "results[0]"),
        (result(0, op="add"), "results[0]"),
        (result(0, more=1), "results[0]"),
        (result(1, imm=0), "results[1]"),
        (result(1, imm=None), "results[1]"),
        *[(result(at, value=value), f"results[{at}].value") for at in (0, 1, 3, 4) for value in NO_INTEGERS],
        (result(0, value=11), "results[0].value"),
        (result(1, value=1 << 32), "results[1].value"),
        *[(result(2, value=value), "results[2].value") for value in
          (255, None, "f" * 15, "f" * 17, "F" * 16, "f" * 15 + "\n", "٣" * 16, " " * 16)],
        (result(3, value=256), "results[3].value"),
        (result(4, value=2551), "results[4].value"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_one_to_the_request_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Internal) as caught:
        parse_answer({**ANSWER, **change}, ASKED)
    assert str(caught.value).startswith("the substrate's answer cannot be trusted: ")
    assert caught.value.details["field"] == f"answer.{field}"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("raw", [None, [], "x", 7, True, b"{}", math.nan, {}])
def test_what_is_no_answer_at_all(raw: object) -> None:
    with pytest.raises(Internal, match="cannot be trusted"):
        parse_answer(raw, ASKED)


def test_true_is_not_the_immediate_one() -> None:
    request = ComputeRequest(Program("https://host/x", (Op("counteq", 1),)))
    answer = success(request, [0], Measured(0, 0, None, 0, 0, "x"))
    assert parse_answer(answer, request) == answer
    with pytest.raises(Internal):
        parse_answer({**answer, "results": [{"op": "counteq", "imm": True, "value": 0}]}, request)


def test_another_version_than_the_pinned_one_is_refused() -> None:
    pinned = asked(etag='"v1"')
    assert parse_answer(ANSWER, pinned) == ANSWER
    for etag in ('"v2"', None, 'W/"v1"'):
        with pytest.raises(Internal, match="etag"):
            parse_answer({**ANSWER, "etag": etag}, pinned)


def test_to_the_end_is_to_the_end() -> None:
    to_the_end = asked(length=None)
    assert parse_answer({**ANSWER, "objectSize": 15}, to_the_end)["bytesProcessed"] == 10
    assert parse_answer({**ANSWER, "objectSize": None}, to_the_end)["bytesProcessed"] == 10
    with pytest.raises(Internal, match="bytesProcessed is 10, where 895"):
        parse_answer(ANSWER, to_the_end)


def test_no_bytes_have_but_one_value() -> None:
    empty = asked(length=0)
    good = success(empty, [op.identity for op in ALL_OPS], Measured(0, 900, None, 0, 0, "x"))
    assert parse_answer(good, empty) == good
    for at, value in ((1, 1), (2, "0" * 16), (3, 255)):
        results = [dict(entry) for entry in good["results"]]
        results[at]["value"] = value
        with pytest.raises(Internal, match="of no bytes"):
            parse_answer({**good, "results": results}, empty)


def test_a_failure_may_have_no_job() -> None:
    assert parse_answer({**REFUSAL, "jobId": None}, ASKED) == REFUSAL
    with pytest.raises(Internal, match="jobId"):
        parse_answer({**REFUSAL, "jobId": "j2"}, ASKED)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *[
            ({"type": value}, "error.type")
            for value in (None, 7, "", "Busy", "x" * 33, "a b", "bad_policy", "no_substrate", "cancelled")
        ],
        *[({"message": value}, "error.message") for value in (None, 7, "", ["x"])],
        *[({"retryable": value}, "error.retryable") for value in (None, 1, "no")],
        *[({key: value}, f"error.{key}") for key in ("field", "hint") for value in (None, 7, [])],
        *[({"object_size": value}, "error.object_size") for value in NO_INTEGERS],
        *[({"retry_after_s": value}, "error.retry_after_s") for value in NO_NUMBERS],
    ],
)
def test_a_failure_that_makes_no_sense_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Internal) as caught:
        parse_answer({**REFUSAL, "error": {**REFUSAL["error"], **change}}, ASKED)
    assert caught.value.details["field"] == f"answer.{field}"


@pytest.mark.parametrize("error", [None, [], "busy", 7])
def test_a_failure_has_an_error(error: object) -> None:
    with pytest.raises(Internal, match="error"):
        parse_answer({**REFUSAL, "error": error}, ASKED)


def test_what_a_failure_says_is_fit_to_be_shown() -> None:
    said = {"message": "a\nb\x1b[2J\ud800é" + "x" * 5000, "hint": "\x00", "retry_after_s": 86400}
    error = parse_answer({**REFUSAL, "error": {**REFUSAL["error"], **said}}, ASKED)["error"]
    assert error["message"] == ("a b [2J é" + "x" * 5000)[:2000]
    assert (error["hint"], error["retry_after_s"]) == (" ", 300)
    assert error_from_wire(error).message.encode()


def test_a_type_of_a_newer_substrate_is_let_through() -> None:
    error = parse_answer({**REFUSAL, "error": {**REFUSAL["error"], "type": "teapot"}}, ASKED)["error"]
    assert type(error_from_wire(error)) is Internal


@patient
@given(python_values)
def test_anything_at_all_is_an_answer_or_internal(raw: object) -> None:
    for value in (raw, {**ANSWER, "results": raw}, {**REFUSAL, "error": raw}, {**ANSWER, "etag": raw}):
        try:
            parse_answer(value, ASKED)
        except Internal as error:
            assert str(error)  # noqa: PT017
        else:
            assert isinstance(value, dict)


@patient
@given(programs, st.data())
def test_every_answer_that_is_made_here_is_taken_there(program: Program, data: st.DataObject) -> None:
    request = ComputeRequest(program, "j1")
    size = program.offset + (program.length or 0)
    processed = program.length or 0
    tops = {"counteq": processed, "crc32c": 0xFFFFFFFF, "fnv64": (1 << 64) - 1, "xor": 255, "add": 255 * processed}
    values = [data.draw(st.integers(0, tops[op.name])) if processed else op.identity for op in program.ops]
    answer = success(request, values, Measured(processed, min(size, (1 << 53) - 1), program.etag, 1, 1, "x"))
    if size < 1 << 53:
        assert parse_answer(json.loads(json.dumps(answer)), request) == answer


HEALTH = {
    "status": "healthy", "version": "1.0", "protocol": 1, "region": "iad", "ops": ["crc32c"], "kernel": "sse42",
    "limits": {"maxRangeBytes": 1, "maxTimeoutMs": 2},
}  # fmt: skip


def test_a_health_answer() -> None:
    assert parse_health({**HEALTH, "more": 1}) == HEALTH


@pytest.mark.parametrize(
    "change",
    [{"status": "ill"}, {"status": None}, {"protocol": 2}, {"version": 7}, {"region": "\n"}, {"ops": None}, {"ops": ["rm"]},
     {"ops": [[]]}, {"kernel": "x" * 65}, {"limits": None}, {"limits": {}},
     {"limits": {"maxRangeBytes": 0, "maxTimeoutMs": 1}}],
)  # fmt: skip
def test_a_health_answer_that_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(Internal, match="cannot be trusted"):
        parse_health({**HEALTH, **change})
