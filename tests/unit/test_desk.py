"""The desk on a real Redis; what a worker does is done by Celery's own calls on the result backend."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from billiard.exceptions import TimeLimitExceeded
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from hypothesis import given
from support.system import publishing_to, publishing_to_for_once, reset_pools
from support.untrusted import json_values, patient

from packetfs_compute import worker
from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.letters import read_body
from packetfs_compute.broker.outcome import outcome
from packetfs_compute.broker.reply import reply_head
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.broker.sweeper import sweep
from packetfs_compute.celery import app
from packetfs_compute.desk import Desk, JobStatus, Submission
from packetfs_compute.errors import (
    BadPolicy,
    BadProgram,
    BrokerUnavailable,
    Cancelled,
    JobError,
    SourceFailed,
    SourceNotFound,
)
from packetfs_compute.fleet import Leased
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.names import JOBS_KNOWN, JOBS_RESULTS, LEDGER_OPEN, MAX_INTEGER
from packetfs_compute.places import parse_substrates
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_substrate
from tasks import crc32c

PROGRAM = {"data_url": "https://host/object", "op": "crc32c"}
WIRE = {"data_url": "https://host/object", "offset": 0, "ops": [{"op": "crc32c"}]}
RESULT = {"results": [{"op": "crc32c", "value": 7}], "job_id": "j", "attempts": []}
QUEUE = "packetfs.local"


@pytest.fixture
def desk(redis_settings: Settings) -> Iterator[Desk]:
    with publishing_to_for_once(redis_settings):
        made = Desk(redis_settings)
        yield made
        made.close()


@pytest.fixture
def ledger(redis_client: Any) -> Ledger:
    return Ledger(redis_client)


def messages(client: Any, queue: str = QUEUE) -> list[dict[str, Any]]:
    """What was published, the oldest first."""
    return [json.loads(item) for item in reversed(client.lrange(queue, 0, -1))]


def request_of(client: Any, at: int = -1) -> Any:
    """The request that a worker would make of a message."""
    message = messages(client)[at]
    args, kwargs, embedded = read_body(message)
    return Context({**message["headers"], "args": args, "kwargs": kwargs, "delivery_info": {}, **embedded})


def backend() -> ResultBackend:
    assert isinstance(app.backend, ResultBackend)
    return app.backend


def told(client: Any, job_id: str = "j") -> JobStatus | None:
    raw = client.get(JOBS_RESULTS + job_id)
    return None if raw is None else json.loads(raw)


class TestSubmit:
    def test_a_job_is_published_as_the_task_of_programs(self, desk: Desk, redis_client: Any) -> None:
        status = desk.submit("j", PROGRAM, {"deadline_s": 60, "substrates": ["local"], "exclude": None})
        assert status == {
            "job_id": "j", "status": "queued", "submitted_at": status["submitted_at"], "program": WIRE,
            "policy": {"deadline_s": 60.0, "substrates": ["local"]}, "result": None, "error": None,
        }  # fmt: skip
        (message,) = messages(redis_client)
        assert message["headers"]["id"] == "j"
        assert message["headers"]["task"] == "packetfs.program"
        assert message["headers"]["packetfs_submitted_at"] == status["submitted_at"]
        assert read_body(message)[1] == {**WIRE, "policy": status["policy"]}
        assert redis_client.zscore(LEDGER_OPEN, "j") is not None
        assert desk.status("j") == status

    def test_the_queue_is_the_routers_choice(self, redis_settings: Settings, redis_client: Any) -> None:
        settings = replace(redis_settings, substrates=parse_substrates('{"far": {"kind": "stub"}}'))
        with publishing_to(settings):
            desk = Desk(settings)
            desk.submit("j", PROGRAM, {"exclude": ["local"]})
            desk.close()
        reset_pools()
        assert redis_client.llen("packetfs.far") == 1

    @pytest.mark.parametrize(("priority", "suffix"), [(0, ""), (2, ""), (3, "\x06\x163"), (9, "\x06\x169")])
    def test_priority_is_kombus(self, desk: Desk, redis_client: Any, priority: int, suffix: str) -> None:
        desk.submit("j", PROGRAM, priority=priority)
        assert redis_client.llen(QUEUE + suffix) == 1

    @pytest.mark.parametrize(
        ("arguments", "error", "field"),
        [
            (("", PROGRAM), BadProgram, "job_id"),
            (("a b", PROGRAM), BadProgram, "job_id"),
            (("x" * 129, PROGRAM), BadProgram, "job_id"),
            (("j\n", PROGRAM), BadProgram, "job_id"),
            ((None, PROGRAM), BadProgram, "job_id"),
            ((["j"], PROGRAM), BadProgram, "job_id"),
            (("j", None), BadProgram, "program"),
            (("j", {**PROGRAM, "lenght": 1}), BadProgram, "program.lenght"),
            (("j", {**PROGRAM, "offset": -1}), BadProgram, "program.offset"),
            (("j", PROGRAM, {"goal": "quick"}), BadPolicy, "policy.goal"),
            (("j", PROGRAM, {"max_cost_usd": float("nan")}), BadPolicy, "policy.max_cost_usd"),
            (("j", PROGRAM, None, 10), BadProgram, "priority"),
            (("j", PROGRAM, None, -1), BadProgram, "priority"),
            (("j", PROGRAM, None, True), BadProgram, "priority"),
            (("j", PROGRAM, None, "0"), BadProgram, "priority"),
        ],
    )
    def test_what_is_no_job_is_refused_and_leaves_nothing(
        self, desk: Desk, redis_client: Any, arguments: tuple[Any, ...], error: type[JobError], field: str
    ) -> None:
        with pytest.raises(error) as caught:
            desk.submit(*arguments)
        assert caught.value.details["field"] == field
        assert caught.value.hint
        assert not redis_client.keys("packetfs*")

    def test_the_largest_numbers_and_odd_text_are_kept_exactly(self, desk: Desk, redis_client: Any) -> None:
        odd = {"data_url": 'https://host/%"}\\\ud800é', "op": "fnv64", "seed": "f" * 16, "offset": MAX_INTEGER}
        status = desk.submit("j", odd, {"value_of_time_usd_per_hour": 0.1 + 0.2})
        assert status["program"] is not None
        assert status["program"]["offset"] == MAX_INTEGER
        backend().mark_as_done("j", RESULT, request_of(redis_client))
        ended = told(redis_client)
        assert ended is not None
        assert (ended["program"], ended["policy"]) == (status["program"], status["policy"])

    def test_nobody_listens_for_its_result(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        desk.submit_many([Submission("k", PROGRAM), Submission("l", PROGRAM)])
        assert redis_client.pubsub_channels("celery-task-meta-*") == []


class TestTheSameJobAgain:
    @pytest.mark.parametrize(
        "again",
        [
            (PROGRAM,),
            ({**WIRE, "length": None, "etag": None},),
            ({**WIRE, "offset": 0.0}, {}),
            (PROGRAM, {"goal": "balanced", "exclude": []}, 5),
        ],
    )
    def test_it_is_published_once_however_it_is_spelt(self, desk: Desk, redis_client: Any, again: Any) -> None:
        first = desk.submit("j", PROGRAM)
        assert desk.submit("j", *again) == first
        assert len(messages(redis_client)) == 1

    @pytest.mark.parametrize("other", [({**PROGRAM, "offset": 1},), (PROGRAM, {"goal": "fastest"})])
    @pytest.mark.parametrize("ended", [False, True])
    def test_another_under_its_id_is_refused(self, desk: Desk, redis_client: Any, other: Any, ended: bool) -> None:
        desk.submit("j", PROGRAM)
        if ended:
            backend().mark_as_done("j", RESULT, request_of(redis_client))
        before = desk.status("j")
        with pytest.raises(BadProgram, match="another program or policy") as caught:
            desk.submit("j", *other)
        assert caught.value.details["field"] == "job_id"
        assert len(messages(redis_client)) == 1
        assert desk.status("j") == before

    @pytest.mark.parametrize("ended", [False, True])
    def test_so_is_the_id_of_a_job_that_came_in_otherwise(self, desk: Desk, redis_client: Any, ended: bool) -> None:
        crc32c.apply_async(("https://host/object",), task_id="j")
        if ended:
            backend().mark_as_done("j", {**RESULT, "op": "crc32c", "value": 7}, request_of(redis_client))
        with pytest.raises(BadProgram, match="submitted otherwise"):
            desk.submit("j", PROGRAM)
        assert not redis_client.exists(JOBS_KNOWN + "j")

    def test_one_that_has_ended_is_not_run_again(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        backend().mark_as_done("j", RESULT, request_of(redis_client))
        assert desk.submit("j", PROGRAM)["status"] == "done"
        assert len(messages(redis_client)) == 1

    def test_one_that_was_claimed_and_never_published_is(
        self, desk: Desk, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("packetfs_compute.desk.publication", _dies)
            with pytest.raises(KeyboardInterrupt):
                desk.submit("j", PROGRAM)
        assert redis_client.exists(JOBS_KNOWN + "j")
        assert desk.status("j") is None
        assert desk.submit("j", PROGRAM)["status"] == "queued"
        assert len(messages(redis_client)) == 1

    def test_of_many_with_one_id_one_is_first(self, desk: Desk, redis_client: Any) -> None:
        answers: list[object] = []
        ready = threading.Barrier(8)

        def submit(at: int) -> None:
            ready.wait(10)
            try:
                answers.append(desk.submit("j", {**PROGRAM, "offset": at})["program"])
            except BadProgram as error:
                answers.append(error.details["field"])

        threads = [threading.Thread(target=submit, args=(at,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers.count("job_id") == 7
        assert len(messages(redis_client)) == 1


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


class TestManyAtOnce:
    def test_each_is_told_in_order(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("old", PROGRAM)
        some = [
            Submission("a", PROGRAM),
            Submission("old", PROGRAM),
            Submission("b", {}),
            Submission("a", PROGRAM),
            Submission("old", {**PROGRAM, "offset": 1}),
            Submission("a", {**PROGRAM, "offset": 1}),
            Submission("c", PROGRAM, {"goal": "x"}),
            Submission("d", PROGRAM, None, 3),
        ]
        told = desk.submit_many(some)
        assert [one["status"] if isinstance(one, dict) else one.details["field"] for one in told] == [
            "queued", "queued", "program.data_url", "queued", "job_id", "job_id", "policy.goal", "queued",
        ]  # fmt: skip
        assert [message["headers"]["id"] for message in messages(redis_client)] == ["old", "a"]
        assert [message["headers"]["id"] for message in messages(redis_client, QUEUE + "\x06\x163")] == ["d"]

    def test_one_that_cannot_be_sent_is_refused_alone(
        self, desk: Desk, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("packetfs_compute.broker.bulk._MAX_ARGUMENT_CHARS", 1000)
        told = desk.submit_many(
            [Submission("a", PROGRAM), Submission("b", {**PROGRAM, "data_url": "u" * 2000}), Submission("c", PROGRAM)]
        )
        assert isinstance(told[1], BadProgram)
        assert [message["headers"]["id"] for message in messages(redis_client)] == ["a", "c"]

    def test_none_and_too_many(self, desk: Desk) -> None:
        assert desk.submit_many([]) == []
        with pytest.raises(ValueError, match="at most"):
            desk.submit_many([Submission("a", PROGRAM)] * 1001)


class TestStatus:
    def test_from_queued_to_done(self, desk: Desk, ledger: Ledger, redis_client: Any) -> None:
        submitted = desk.submit("j", PROGRAM)
        assert 172_700 < redis_client.ttl(JOBS_KNOWN + "j") <= 172_800
        ledger.lease("j", 60)
        running = desk.status("j")
        assert running == {**submitted, "status": "running"}
        backend().mark_as_retry("j", SourceFailed("again"), request=request_of(redis_client))
        assert told(redis_client) is None
        ledger.lease("j", -1)
        assert desk.status("j") == submitted
        backend().mark_as_done("j", RESULT, request_of(redis_client))
        done = desk.status("j")
        assert done == {**submitted, "status": "done", "result": RESULT}
        assert told(redis_client) == done
        for key in (JOBS_RESULTS + "j", JOBS_KNOWN + "j", "celery-task-meta-j"):
            assert 86_300 < redis_client.ttl(key) <= 86_400

    def test_a_failure_has_its_error(self, desk: Desk, redis_client: Any) -> None:
        submitted = desk.submit("j", PROGRAM)
        attempt = {"substrate": "local", "ok": False, "error": {"type": "source_not_found", "message": "404"}}
        error = SourceNotFound("there is none", {"field": "f", "hint": "look", "attempts": [attempt], "job_id": "j"})
        backend().mark_as_failure("j", error, request=request_of(redis_client))
        expected = {"type": "source_not_found", "message": "there is none", "field": "f", "hint": "look"}
        assert told(redis_client) == {**submitted, "status": "failed", "error": {**expected, "attempts": [attempt]}}
        assert told(redis_client) == desk.status("j")

    def test_an_error_of_nobodys_is_internal(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        backend().mark_as_failure("j", TimeLimitExceeded(60), request=request_of(redis_client))
        status = told(redis_client)
        assert status is not None
        assert status["error"] == {"type": "internal", "message": "TimeLimitExceeded: 60"}

    def test_a_result_that_does_not_stand_is_not_told(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        request = request_of(redis_client)
        backend().mark_as_failure("j", SourceFailed("first"), request=request)
        before = redis_client.get(JOBS_RESULTS + "j")
        backend().mark_as_done("j", RESULT, request)
        assert redis_client.get(JOBS_RESULTS + "j") == before

    def test_one_that_the_sweeper_gives_up_is_told(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        report = sweep(app, now=redis_client.time()[0] + 90_000.0)
        assert report.given_up == 1
        status = told(redis_client)
        assert status is not None
        assert (status["status"], status["program"]) == ("failed", WIRE)
        assert status["error"] is not None
        assert "not finished within" in status["error"]["message"]

    def test_a_task_of_one_operation_is_told_without_what_was_asked(self, desk: Desk, redis_client: Any) -> None:
        crc32c.apply_async(("https://host/object",), task_id="j")
        queued = desk.status("j")
        assert queued is not None
        assert (queued["status"], queued["program"], queued["submitted_at"]) == ("queued", None, None)
        flat = {"op": "crc32c", "value": 7, "job_id": "j", "attempts": []}
        backend().mark_as_done("j", flat, request_of(redis_client))
        done = desk.status("j")
        assert done is not None
        assert done["result"] == RESULT
        assert told(redis_client) is None

    @pytest.mark.parametrize("job_id", ["nobody", "", "*", "a b", "x" * 129])
    def test_nobody_knows_such_a_job(self, desk: Desk, job_id: str) -> None:
        assert desk.status(job_id) is None
        assert desk.cancel(job_id) is None

    def test_a_forgotten_job_may_be_submitted_again(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        backend().mark_as_done("j", RESULT, request_of(redis_client))
        AsyncResult("j", app=app).forget()
        assert desk.status("j") is None
        assert desk.submit("j", PROGRAM)["status"] == "queued"
        assert len(messages(redis_client)) == 2
        assert told(redis_client) is None

    @patient
    @given(json_values, json_values)
    def test_whatever_a_result_holds_it_is_told_or_not(self, status: object, result: object) -> None:
        for state in ("SUCCESS", "FAILURE", "REVOKED", "RETRY", status):
            ended = outcome({"status": state, "result": result})
            assert ended is None or ended["status"] in ("done", "failed", "cancelled")

    def test_a_success_that_is_no_programs_is_a_failure(self) -> None:
        head = json.loads(reply_head("j", {"status": "SUCCESS", "result": 5}) + "}")
        assert (head["status"], head["error"]["type"]) == ("failed", "internal")


class TestCancel:
    @pytest.mark.parametrize("running", [False, True])
    def test_it_is_celerys_revoked_and_out_of_the_ledger(
        self, desk: Desk, ledger: Ledger, redis_client: Any, running: bool
    ) -> None:
        submitted = desk.submit("j", PROGRAM)
        if running:
            ledger.lease("j", 60)
        status = desk.cancel("j")
        error = {"type": "cancelled", "message": "cancelled on request"}
        assert status == {**submitted, "status": "cancelled", "error": error}
        assert told(redis_client) == desk.status("j") == desk.submit("j", PROGRAM) == desk.cancel("j") == status
        with pytest.raises(TaskRevokedError):
            AsyncResult("j", app=app).get(timeout=5)
        assert ledger.open_count() == 0
        assert ledger.stats().running == 0
        sweep(app, now=redis_client.time()[0] + 3600.0)
        assert len(messages(redis_client)) == 1

    @pytest.mark.parametrize("published_again", [False, True])
    def test_what_an_attempt_under_way_brings_does_not_stand(
        self, desk: Desk, ledger: Ledger, redis_client: Any, published_again: bool
    ) -> None:
        desk.submit("j", PROGRAM)
        request = request_of(redis_client)
        status = desk.cancel("j")
        if published_again:  # as an attempt does that fails over
            ledger.enter("j", QUEUE, "{}")
            backend().mark_as_retry("j", SourceFailed("again"), request=request)
            assert ledger.open_count() == 0
            ledger.enter("j", QUEUE, "{}")
        for end in (
            lambda: backend().mark_as_done("j", RESULT, request),
            lambda: backend().mark_as_failure("j", SourceFailed("late"), request=request),
        ):
            end()
            assert desk.status("j") == told(redis_client) == status
            assert ledger.open_count() == 0

    @pytest.mark.parametrize("how", ["desk", "celery"])
    def test_the_fleet_knows_of_it(self, desk: Desk, redis_settings: Settings, how: str) -> None:
        fleet, leased = open_fleet(redis_settings, [load_substrate("local", redis_settings).capabilities]), []
        for name in ("j", "k"):
            desk.submit(name, PROGRAM)
            leased.append(Leased("local", name))
            assert fleet.begin(leased[-1], 1000.0)
        assert fleet.renew(leased, 1000.0) == frozenset()
        if how == "desk":
            desk.cancel("j")
        else:  # what Celery does for a revoked task that no worker has said it runs
            backend().mark_as_revoked("j", "revoked")
        assert fleet.renew(leased, 1000.0) == {"j"}
        with pytest.raises(Cancelled):
            fleet.begin(leased[0], 1000.0)
        assert fleet.begin(leased[1], 1000.0)

    def test_what_celery_revokes_while_it_runs_is_cancelled_by_its_worker(
        self, desk: Desk, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("j", "k", "l"):
            desk.submit(name, PROGRAM)
        names = ("packetfs.program", "packetfs.program", "somebody.elses")
        running = [
            SimpleNamespace(id=one["headers"]["id"], task=SimpleNamespace(name=name), request_dict=one["headers"])
            for one, name in zip(messages(redis_client), names, strict=True)
        ]
        monkeypatch.setattr(worker.state, "requests", {"j", "k", "l"})
        monkeypatch.setattr(worker.state, "active_requests", running)
        monkeypatch.setattr(worker.state, "revoked", {"j", "l", "m"})
        for _ in range(2):
            worker._hold_jobs(backend())
            found = {name: (desk.status(name) or {}).get("status") for name in ("j", "k", "l", "m")}
            assert found == {"j": "cancelled", "k": "running", "l": "running", "m": None}
        assert told(redis_client) == desk.status("j")

    @pytest.mark.parametrize("how", ["done", "failed"])
    def test_one_that_has_ended_stays_as_it_is(self, desk: Desk, redis_client: Any, how: str) -> None:
        desk.submit("j", PROGRAM)
        if how == "done":
            backend().mark_as_done("j", RESULT, request_of(redis_client))
        else:
            backend().mark_as_failure("j", SourceFailed("it broke"), request=request_of(redis_client))
        before = desk.status("j")
        assert before is not None
        assert desk.cancel("j") == before == desk.status("j")
        assert before["status"] == how

    def test_workers_are_told(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        with redis_client.pubsub(ignore_subscribe_messages=True) as listener:
            listener.psubscribe("*celery.pidbox*")
            listener.get_message(timeout=5)
            desk.cancel("j")
            heard = next(one for _ in range(10) if (one := listener.get_message(timeout=5)) is not None)
        order = json.loads(base64.b64decode(json.loads(heard["data"])["body"]))
        assert (order["method"], order["arguments"]["task_id"], order["arguments"]["terminate"]) == (
            "revoke",
            "j",
            False,
        )

    def test_a_job_that_came_in_otherwise_can_be_cancelled(self, desk: Desk, ledger: Ledger, redis_client: Any) -> None:
        crc32c.apply_async(("https://host/object",), task_id="j")
        status = desk.cancel("j")
        assert status is not None
        assert status["status"] == "cancelled"
        assert (ledger.open_count(), told(redis_client)) == (0, None)


class TestNobodyAnswers:
    @pytest.fixture
    def away(self, tmp_path: Path) -> Iterator[Desk]:
        settings = Settings(data_dir=tmp_path, connect_timeout_s=0.2)
        with publishing_to(settings):
            made = Desk(settings)
            yield made
            made.close()
        reset_pools()

    @pytest.mark.parametrize("call", ["submit", "status", "cancel"])
    def test_it_is_said_by_name(self, away: Desk, call: str) -> None:
        with pytest.raises(BrokerUnavailable) as caught:
            away.submit("j", PROGRAM) if call == "submit" else getattr(away, call)("j")
        assert caught.value.hint
        assert isinstance(caught.value.__cause__, (redis.RedisError, OSError))


class TestScans:
    def test_a_scan_is_published_as_its_task(self, desk: Desk, redis_client: Any) -> None:
        status = desk.submit_scan("s", PROGRAM, 4096, {"deadline_s": 60})
        assert status["program"] == {**WIRE, "window": 4096}
        (message,) = messages(redis_client, "packetfs.scans")
        assert message["headers"]["task"] == "packetfs.scan"
        assert read_body(message)[1] == {**WIRE, "window": 4096, "policy": {"deadline_s": 60.0}}
        assert desk.status("s") == status == desk.submit_scan("s", PROGRAM, 4096, {"deadline_s": 60})
        assert redis_client.llen("packetfs.scans") == 1

    def test_it_is_no_job_nor_a_scan_in_other_windows(self, desk: Desk) -> None:
        desk.submit_scan("s", PROGRAM)
        for submit in (lambda: desk.submit("s", PROGRAM), lambda: desk.submit_scan("s", PROGRAM, 4096)):
            with pytest.raises(BadProgram, match="taken"):
                submit()

    def test_a_window_that_is_none_is_refused(self, desk: Desk, redis_client: Any) -> None:
        with pytest.raises(BadProgram) as caught:
            desk.submit_scan("s", PROGRAM, "wide")
        assert caught.value.details["field"] == "window"
        assert redis_client.llen("packetfs.scans") == 0

    def test_how_far_it_is_is_told_while_it_runs(self, desk: Desk, redis_client: Any, ledger: Ledger) -> None:
        assert "progress" not in desk.submit_scan("s", PROGRAM)
        ledger.lease("s", 60)
        (message,) = messages(redis_client, "packetfs.scans")
        request = Context({**message["headers"], "args": [], "kwargs": {}, "delivery_info": {}})
        backend().store_result("s", {"bytes_done": 1}, "PROGRESS", request=request)
        status = desk.status("s")
        assert status is not None
        assert (status["status"], status["progress"]) == ("running", {"bytes_done": 1})
        desk.cancel("s")
        backend().store_result("s", {"bytes_done": 2}, "PROGRESS", request=request)
        ended = desk.status("s")
        assert ended is not None
        assert (ended["status"], "progress" in ended) == ("cancelled", False)

    def test_jobs_that_ended_can_be_forgotten(self, desk: Desk, redis_client: Any) -> None:
        for job_id in ("a", "b"):
            desk.submit(job_id, PROGRAM)
            backend().mark_as_done(job_id, {**RESULT, "job_id": job_id}, request_of(redis_client))
        desk.forget(["a"])
        desk.forget([])
        assert desk.status("a") is None
        assert not redis_client.keys("*a")
        assert desk.statuses(["b"])[0] is not None

    def test_where_an_open_job_is(self, desk: Desk, redis_client: Any) -> None:
        desk.submit("a", PROGRAM)
        desk.submit_scan("b", PROGRAM)
        redis_client.hset("packetfs:ledger:jobs", "c", "\nno message")
        assert desk.places(["a", "none", "b", "c"]) == ["local", None, "scans", None]
        assert desk.places([]) == []
