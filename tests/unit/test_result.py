"""The shape of a result (DESIGN, section 4)."""

from typing import Any

import pytest

from packetfs_compute.program import Op, Program
from packetfs_compute.result import Attempt, job_result, op_result

FIRST: Attempt = {"substrate": "lambda", "ok": False, "error": {"type": "busy", "message": "full"}, "seconds": 0.1}
LAST: Attempt = {"substrate": "local", "ok": True, "error": None, "seconds": 0.2}
META = {
    "job_id", "data_url", "offset", "length", "bytes_processed", "object_size", "etag", "substrate", "region", "attempts",
    "cost_usd", "cached", "timing",
}  # fmt: skip


def answer(*values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "success": True,
        "jobId": "on-the-wire",
        "results": list(values),
        "bytesProcessed": 90,
        "objectSize": 100,
        "etag": '"v1"',
        "executionTimeMs": 12.5,
        "fetchTimeMs": 11.9,
        "region": "iad",
        "memoryUsedMb": 34,
        **changes,
    }


def result(program: Program, answered: dict[str, Any], queued_s: float | None = 0.5) -> dict[str, Any]:
    return dict(
        job_result("j1", program, answered, [FIRST, LAST], cost_usd=1e-7, queued_s=queued_s, total_s=0.7654321987)
    )


def test_a_result_has_the_values_and_all_that_is_known_about_them() -> None:
    values = [{"op": "crc32c", "value": 7}, {"op": "counteq", "imm": 0, "value": 8}]
    program = Program("s3://bucket/key", (Op("crc32c"), Op("counteq", 0)), offset=10, length=None)
    assert result(program, answer(*values)) == {
        "results": values,
        "job_id": "j1",
        "data_url": "s3://bucket/key",
        "offset": 10,
        "length": None,
        "bytes_processed": 90,
        "object_size": 100,
        "etag": '"v1"',
        "substrate": "local",
        "region": "iad",
        "attempts": [FIRST, LAST],
        "cost_usd": 1e-7,
        "cached": False,
        "timing": {"queued_s": 0.5, "fetch_s": 0.0119, "compute_s": 0.0006, "total_s": 0.765432},
    }


def test_the_pinned_version_is_not_taken_for_the_one_that_was_read() -> None:
    program = Program("https://host/x", (Op("crc32c"),), etag='"pinned"')
    assert result(program, answer({"op": "crc32c", "value": 7}, etag=None))["etag"] is None


def test_a_wait_that_nobody_measured_is_none() -> None:
    made = result(Program("https://host/x", (Op("crc32c"),)), answer({"op": "crc32c", "value": 7}), queued_s=None)
    assert made["timing"]["queued_s"] is None


def test_values_that_were_known_are_of_the_place_that_computed_them() -> None:
    program = Program("https://host/x", (Op("crc32c"),))
    made = job_result(
        "j1",
        program,
        answer({"op": "crc32c", "value": 7}),
        [],
        cost_usd=0,
        queued_s=None,
        total_s=0.1,
        cached_from="fly",
    )
    assert (made["cached"], made["substrate"], made["region"], made["attempts"]) == (True, "fly", "iad", [])
    assert set(made) == META | {"results"}


def test_compute_time_is_never_negative() -> None:
    # Both are rounded, and on some substrates measured by different clocks.
    measured = answer({"op": "crc32c", "value": 7}, executionTimeMs=1.0, fetchTimeMs=1.001)
    assert result(Program("https://host/x", (Op("crc32c"),)), measured)["timing"]["compute_s"] == 0.0


@pytest.mark.parametrize(
    "value",
    [
        {"op": "crc32c", "value": 7},
        {"op": "counteq", "imm": 0, "value": 8},
        {"op": "fnv64", "value": "cbf29ce484222325"},
    ],
)
def test_one_operation_is_flat(value: dict[str, Any]) -> None:
    made = result(Program("https://host/x", (Op("crc32c"),)), answer(value))
    flat = op_result(made)  # type: ignore[arg-type]
    assert set(flat) == META | set(value)
    assert {key: flat[key] for key in value} == value
    assert {key: flat[key] for key in META} == {key: made[key] for key in META}
    assert "results" in made


@pytest.mark.parametrize("count", [0, 2])
def test_only_one_operation_can_be_flat(count: int) -> None:
    made = result(Program("https://host/x", (Op("crc32c"),)), answer(*[{"op": "crc32c", "value": 7}] * count))
    with pytest.raises(ValueError, match="unpack"):
        op_result(made)  # type: ignore[arg-type]
