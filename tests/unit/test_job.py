"""A job, and the trail of its attempts: made of JSON, carried in a header, and read again by another process."""

import json
import math
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import HUGE, json_values, patient

from packetfs_compute.errors import BadPolicy, BadProgram, Busy, Internal, JobError, SourceFailed, error_class
from packetfs_compute.job import Job, Trail, accept_job
from packetfs_compute.program import Op, Program
from packetfs_compute.routing import Policy
from packetfs_compute.routing.recovery import MAX_ATTEMPTS, Failed

PROGRAM = Program("https://host/object", (Op("crc32c"),), 5, 90, '"v1"')
GOOD = {"substrate": "fly", "ok": True, "error": None, "seconds": 0.5}
BUSY = {"substrate": "fly", "ok": False, "error": {"type": "busy", "message": "no room"}, "seconds": 0.25}
SOURCE = {"substrate": "local", "ok": False, "error": {"type": "source_failed", "message": "reset"}, "seconds": 1}


class TestTrail:
    def test_it_begins_empty(self) -> None:
        trail = Trail()
        assert (trail.attempts, trail.spent_usd, trail.moves, trail.failed) == ([], 0.0, 0, [])
        assert (trail.waited, trail.queued_s) == (False, None)
        assert trail.failed_places() == set()

    def test_it_grows_with_each_attempt(self) -> None:
        trail = Trail()
        assert trail.add("fly", Busy("no room"), 0.25, 0.5) == BUSY
        assert trail.add("fly", None, 0.5, 0.125) == GOOD
        assert trail.attempts == [BUSY, GOOD]
        assert trail.spent_usd == 0.625

    def test_a_long_message_is_cut(self) -> None:
        attempt = Trail().add("fly", Internal("x" * 5000), 0, 0)
        assert attempt["error"] == {"type": "internal", "message": "x" * 300}

    def test_only_places_that_failed_it_by_their_own_fault_have(self) -> None:
        failed = [
            Failed("a", "busy", "substrate"),
            Failed("b", "source_failed", "source"),
            Failed("c", "timeout", "substrate"),
        ]
        assert Trail(failed=failed).failed_places() == {"a", "c"}


class TestHeader:
    def test_it_is_json_and_comes_back_the_same(self) -> None:
        trail = Trail()
        for substrate, error in (("fly", Busy("no room")), ("local", SourceFailed("reset")), ("fly", Busy("no room"))):
            trail.failed.append(Failed(substrate, error.type, error.fault))
            trail.add(substrate, error, 0.25, 1e-6)
        trail.moves, trail.waited, trail.queued_s = 3, True, 1.5
        header = json.loads(json.dumps(trail.to_header()))
        assert Trail.from_header(header) == trail
        assert Trail.from_header(header).failed_places() == {"fly"}

    @pytest.mark.parametrize("raw", [None, {}, [], "", "trail", 7, True, [BUSY], {"attempts": None}, {"unknown": 1}])
    def test_what_is_none_is_an_empty_one(self, raw: object) -> None:
        assert Trail.from_header(raw) == Trail()

    @pytest.mark.parametrize(
        ("key", "raw"),
        [
            ("attempts", "x"),
            ("attempts", {}),
            ("attempts", [1, None, "x", [], {}]),
            ("attempts", [{**BUSY, "seconds": "x"}, {**BUSY, "seconds": True}, {**BUSY, "seconds": math.nan}]),
            ("attempts", [{**BUSY, "seconds": -1}, {**BUSY, "substrate": 7}, {**BUSY, "substrate": None}]),
            ("attempts", [{**BUSY, "error": "busy"}, {**BUSY, "error": {}}, {**BUSY, "error": {"type": 7}}]),
            ("attempts", [{**BUSY, "error": {"type": "busy"}}, {**BUSY, "error": {"type": "busy", "message": 7}}]),
            ("attempts", [{**BUSY, "ok": True}, {**GOOD, "ok": False}, {**GOOD, "ok": "yes"}, {**GOOD, "ok": 1}]),
            ("attempts", [{**BUSY, "more": 1}, {"substrate": "fly"}]),
            ("spent_usd", -1.0),
            ("spent_usd", "1"),
            ("spent_usd", math.nan),
            ("spent_usd", math.inf),
            ("spent_usd", True),
            ("spent_usd", HUGE),
            ("moves", -1e9),
            ("moves", None),
            ("moves", math.inf),
            ("waited", 1),
            ("waited", "true"),
            ("queued_s", -1),
            ("queued_s", "1"),
            ("queued_s", -math.inf),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_what_makes_no_sense_is_as_good_as_absent(self, key: str, raw: object) -> None:
        assert Trail.from_header({key: raw}) == Trail()

    def test_what_makes_sense_beside_it_is_kept(self) -> None:
        trail = Trail.from_header({"attempts": [None, SOURCE, {}], "spent_usd": "x", "moves": 2.0, "waited": True})
        assert trail == Trail([SOURCE], moves=2, waited=True, failed=[Failed("local", "source_failed", "source")])  # type: ignore[list-item]
        assert isinstance(trail.moves, int)

    def test_it_cannot_grow_without_end(self) -> None:
        assert len(Trail.from_header({"attempts": [BUSY] * 1000}).attempts) == MAX_ATTEMPTS

    def test_a_type_that_is_not_known_here_is_the_places_fault(self) -> None:
        attempt = {**BUSY, "error": {"type": "overloaded", "message": "x"}}
        assert Trail.from_header({"attempts": [attempt]}).failed_places() == {"fly"}


_attempts = st.fixed_dictionaries(
    {"substrate": st.text() | json_values, "ok": st.booleans(), "seconds": st.floats(0, 1e3) | json_values,
     "error": st.none() | st.fixed_dictionaries({"type": st.text(), "message": st.text()}) | json_values}
)  # fmt: skip
_headers = st.fixed_dictionaries(
    {},
    optional={"attempts": st.lists(_attempts | json_values, max_size=20), "spent_usd": json_values, "moves": json_values,
              "waited": json_values, "queued_s": json_values},
)  # fmt: skip


@patient
@given(json_values | _headers)
def test_any_json_as_a_header_gives_a_trail(raw: Any) -> None:
    trail = Trail.from_header(raw)
    assert trail.spent_usd >= 0
    assert trail.moves >= 0
    assert trail.queued_s is None or trail.queued_s >= 0
    assert len(trail.failed) == sum(not attempt["ok"] for attempt in trail.attempts)
    assert Trail.from_header(json.loads(json.dumps(trail.to_header()))) == trail


_errors = st.builds(
    lambda kind, message: error_class(kind)(message),
    st.sampled_from(["busy", "timeout", "internal", "too_large", "unauthorized", "source_failed", "source_not_found"]),
    st.text(),
)


@patient
@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.none() | _errors, st.floats(0, 1e4), st.floats(0, 1e3)), max_size=MAX_ATTEMPTS
    ),
    st.integers(0, 100),
    st.booleans(),
    st.none() | st.floats(0, 1e6),
)
def test_any_trail_survives_its_header(
    attempts: list[tuple[str, JobError | None, float, float]], moves: int, waited: bool, queued_s: float | None
) -> None:
    trail = Trail(moves=moves, waited=waited, queued_s=queued_s)
    for substrate, error, seconds, cost_usd in attempts:
        if error is not None:
            trail.failed.append(Failed(substrate, error.type, error.fault))
        trail.add(substrate, error, seconds, cost_usd)
    assert Trail.from_header(json.loads(json.dumps(trail.to_header()))) == trail


class TestJob:
    @pytest.mark.parametrize(
        ("submitted_at", "wall", "queued_s"), [(None, 5.0, None), (2.0, 5.0, 3.0), (5.0, 5.0, 0.0), (9.0, 5.0, 0.0)]
    )
    def test_how_long_ago_it_was_submitted(
        self, submitted_at: float | None, wall: float, queued_s: float | None
    ) -> None:
        assert Job("j1", PROGRAM, Policy(), submitted_at).queued_s(wall) == queued_s

    def test_each_has_a_trail_of_its_own(self) -> None:
        assert Job("a", PROGRAM, Policy()).trail is not Job("b", PROGRAM, Policy()).trail


class TestAccept:
    def test_a_job_is_made_of_json(self) -> None:
        job = accept_job(
            "j1", PROGRAM.to_wire(), {"goal": "cheapest"}, 1_700_000_000.5, {"attempts": [BUSY], "moves": 1}
        )
        trail = Trail([BUSY], moves=1, failed=[Failed("fly", "busy", "substrate")])  # type: ignore[list-item]
        assert job == Job("j1", PROGRAM, Policy(goal="cheapest"), 1_700_000_000.5, trail)
        assert accept_job("j1", PROGRAM.to_wire(), None) == Job("j1", PROGRAM, Policy())

    @pytest.mark.parametrize(
        ("program", "policy", "cls"),
        [(None, None, BadProgram), ({}, None, BadProgram), (PROGRAM.to_wire(), [], BadPolicy), ({}, [], BadProgram)],
    )
    def test_a_refusal_names_the_job_and_its_attempts(
        self, program: object, policy: object, cls: type[JobError]
    ) -> None:
        with pytest.raises(cls) as caught:
            accept_job("j1", program, policy)
        assert caught.value.details["job_id"] == "j1"
        assert caught.value.attempts == []
        assert caught.value.details["field"]
        with pytest.raises(cls) as caught:
            accept_job("j1", program, policy, None, {"attempts": [BUSY]})
        assert caught.value.attempts == [BUSY]

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

    @patient
    @given(json_values, json_values)
    def test_no_header_stops_a_job(self, submitted_at: object, trail: object) -> None:
        assert accept_job("j1", PROGRAM.to_wire(), None, submitted_at, trail).program == PROGRAM


class TestAppendOnly:
    WISH: Final = {"append_only": True}

    @pytest.mark.parametrize("url", ["https://host/a", "http://host/a", "s3://bucket/a", "HTTPS://host/a"])
    def test_a_scan_may_ask_for_it(self, url: str) -> None:
        job = accept_job("j", {"data_url": url, "op": "crc32c"}, self.WISH, scan=True)
        assert job.policy.append_only

    @pytest.mark.parametrize("url", ["https://host/a", "/a/file"])
    def test_a_single_job_may_not(self, url: str) -> None:
        with pytest.raises(BadPolicy, match="for scans alone") as caught:
            accept_job("j", {"data_url": url, "op": "crc32c"}, self.WISH)
        assert (caught.value.details["field"], caught.value.details["job_id"]) == ("policy.append_only", "j")

    @pytest.mark.parametrize("url", ["/a/file", "file:///a/file"])
    def test_nor_a_scan_of_a_file_of_which_nothing_is_kept(self, url: str) -> None:
        with pytest.raises(BadPolicy, match="a local file's are not") as caught:
            accept_job("j", {"data_url": url, "op": "crc32c"}, self.WISH, scan=True)
        assert "give its URL" in caught.value.hint


@pytest.mark.parametrize(("header", "scan"), [(None, None), ("s1", "s1"), (7, None), ({}, None)])
def test_a_window_knows_its_scan(header: object, scan: str | None) -> None:
    job = accept_job("s1.0", {"data_url": "https://host/a", "op": "crc32c"}, None, window_of=header)
    assert job.window_of == scan
