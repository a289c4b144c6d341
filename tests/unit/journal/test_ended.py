"""What the journal tells of a job: all of it bounded, and no secret."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetfs_compute.dispatch import Course
from packetfs_compute.errors import Internal, JobError, SourceFailed
from packetfs_compute.job import Job, Trail
from packetfs_compute.journal.ended import Ended, EndedScan, shown, without_secrets
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Candidate, Decision, Policy

SECRET = "X-Amz-Signature=5ec2e7"
URL = f"https://user:5ec2e7@bucket.example:8443/a/b?{SECRET}#5ec2e7"
PROGRAM = Program(URL, (Op("crc32c"),), 0, 1024)


def row(name: str, score: float = 1.0, veto: str | None = None) -> Candidate:
    return Candidate(name, 0.0, 0.123456789, 0.123456789, 0.0, 0.0, 0.99, score, veto, False, 1.0)


def told(
    program: Program = PROGRAM, error: JobError | None = None, course: Course | None = None, trail: Trail | None = None
) -> Any:
    job = Job("j1", program, Policy(), trail=trail or Trail())
    course = course or Course(Decision("fly", (row("fly"), row("local"))), 99.0, 1.5)
    return json.loads(Ended(job, "fly", error, 100.0, course).to_json())


def test_it_has_what_the_feed_promises() -> None:
    trail = Trail()
    trail.add("local", SourceFailed("reset"), 0.25, 0.5)
    trail.add("fly", None, 0.125, 0.25)
    assert told(trail=trail) == {
        "job_id": "j1", "at": 100.0, "op": "crc32c", "data_url": "https://bucket.example:8443/a/b", "length": 1024,
        "status": "done", "error": None, "substrate": "fly", "cost_usd": 0.75, "cached": False, "total_s": 1.5,
        "attempts": [
            {"substrate": "local", "ok": False, "error": {"type": "source_failed", "message": "reset"}, "seconds": 0.25},
            {"substrate": "fly", "ok": True, "error": None, "seconds": 0.125},
        ],
        "decision": {
            "substrate": "fly", "panic": False, "at": 99.0,
            "candidates": [
                {"substrate": name, "wait_s": 0.0, "run_s": 0.123457, "seconds": 0.123457, "usd": 0.0, "egress_usd": 0.0,
                 "success": 0.99, "score": 1.0, "veto": None, "by_health": False, "share": 1.0, "severity": 0}
                for name in ("fly", "local")
            ],
        },
        "window_of": None, "scan": None,
    }  # fmt: skip


RESULT: dict[str, Any] = {
    "substrate": "fly", "cost_usd": 0.25, "cached": False, "bytes_processed": 4096, "windows": 4, "window": 1024,
    "cached_bytes": 1024, "appended_to": '"v1"', "hedges": 1,
    "attempts": [{"substrate": "fly", "ok": True, "error": None, "seconds": 2.0}],
}  # fmt: skip


def told_scan(result: dict[str, Any] | None, error: JobError | None = None) -> Any:
    return json.loads(EndedScan("s1", replace(PROGRAM, length=None), result, error, 100.0, 3.0).to_json())


def test_a_scan_says_that_it_is_one() -> None:
    scan = told_scan(RESULT)
    assert set(scan) == set(told())
    assert (scan["job_id"], scan["op"], scan["length"], scan["total_s"]) == ("s1", "crc32c", None, 3.0)
    assert scan["data_url"] == "https://bucket.example:8443/a/b"
    assert (scan["status"], scan["substrate"], scan["cost_usd"], scan["cached"]) == ("done", "fly", 0.25, False)
    assert scan["attempts"] == RESULT["attempts"]
    assert scan["scan"] == {
        "bytes_processed": 4096, "windows": 4, "window": 1024, "cached_bytes": 1024, "appended_to": '"v1"', "hedges": 1
    }  # fmt: skip


def test_and_when_it_failed_how() -> None:
    failed = {"substrate": "fly", "ok": False, "error": {"type": "internal", "message": "x" * 999}, "seconds": 2.0}
    scan = told_scan(None, SourceFailed("https://u:p@h/a?secret broke", {"attempts": [failed] * 99}))
    assert scan["error"] == {"type": "source_failed", "message": "https://h/a broke"}
    assert (scan["status"], scan["substrate"], scan["cost_usd"], scan["scan"]["windows"]) == (
        "failed",
        None,
        None,
        None,
    )
    assert len(scan["attempts"]) < 20
    assert len(scan["attempts"][0]["error"]["message"]) == 300


def test_a_window_says_whose_it_is() -> None:
    job = Job("s1.0", PROGRAM, Policy(), window_of="s1")
    assert json.loads(Ended(job, "fly", None, 100.0, Course()).to_json())["window_of"] == "s1"


def test_a_failed_one_says_how() -> None:
    job = told(replace(PROGRAM, ops=(Op("crc32c"), Op("xor", 1)), length=None), Internal("it broke"), Course())
    assert (job["status"], job["error"]) == ("failed", {"type": "internal", "message": "it broke"})
    assert (job["op"], job["length"], job["decision"]) == ("program", None, None)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (URL, "https://bucket.example:8443/a/b"),
        ("s3://bucket/key?versionId=5ec2e7", "s3://bucket/key"),
        ("https://u@p@host/x@y", "https://host/x@y"),
        ("https://host?5ec2e7", "https://host"),
        ("https://host#?5ec2e7", "https://host"),
        ("/data/file", "/data/file"),
        ("http://[broken", "http://[broken"),
        ("no url?5ec2e7", "no url"),
    ],
)
def test_a_url_is_shown_without_what_it_may_hide(url: str, seen: str) -> None:
    assert without_secrets(url) == seen


@given(st.text(), st.text(alphabet="abc/:@"), st.text())
def test_no_query_is_shown_whatever_the_url(scheme: str, host: str, query: str) -> None:
    seen = without_secrets(f"{scheme}://{host}?{query}")
    assert "?" not in seen
    assert len(seen) <= len(f"{scheme}://{host}")


@pytest.mark.parametrize("message", [f"cannot read {URL}: reset", f"<{URL}>", f'"{URL}" is no good', f"({URL})"])
def test_nor_in_a_message(message: str) -> None:
    assert "5ec2e7" not in shown(message)
    trail = Trail()
    trail.add("fly", SourceFailed(message), 0.1, 0)
    assert "5ec2e7" not in json.dumps(told(error=SourceFailed(message), trail=trail))
    assert "bucket.example" in shown(message)


def test_every_part_has_a_bound() -> None:
    trail = Trail()
    for _ in range(100):
        trail.add("x" * 1000, Internal("m" * 10_000), 1e300, 0.0)
    program = replace(PROGRAM, data_url="https://host/" + "x" * 2000)
    course = Course(Decision("p999", tuple(row(f"p{i}", 1000 - i % 500) for i in range(1000))), 0.0, 0.0)
    job = told(program, Internal("m" * 10_000), course, trail)
    assert (len(job["data_url"]), len(job["error"]["message"]), len(job["attempts"])) == (500, 300, 12)
    assert len(job["decision"]["candidates"]) == 16
    assert len(json.dumps(job)) < 12_000


def test_of_a_large_fleet_the_choice_and_the_best_are_told() -> None:
    rows = (*(row(f"p{i}", i, "no" if i < 5 else None) for i in range(40)), row("chosen", 99.0, "breaker open"))
    job = told(course=Course(Decision("chosen", rows), 0.0, 0.0))
    assert [one["substrate"] for one in job["decision"]["candidates"]] == ["chosen", *(f"p{i}" for i in range(5, 20))]


def test_a_number_that_json_has_no_word_for_is_null() -> None:
    job = told(course=Course(Decision("fly", (row("fly", float("inf")),)), 0.0, float("nan")))
    assert (job["decision"]["candidates"][0]["score"], job["total_s"]) == (None, None)
