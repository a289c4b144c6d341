"""The sweeper's judgement as a table, and its passes over a real server."""

import json
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chord, states
from celery.app.task import Context
from celery.result import AsyncResult
from hypothesis import given
from hypothesis import strategies as st

from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.letters import Letter, decoded, read_body
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.broker.sweeper import Case, Limits, SweepReport, Verdict, decide, sweep
from packetfs_compute.errors import ConfigurationError, Internal
from packetfs_compute.names import LEDGER_GIVEN_UP, LEDGER_JOBS, LEDGER_LEASES, LEDGER_OPEN, LEDGER_RUNS, rejected_of

QUEUE = "packetfs.local"
NOW = 1_000_000.0
DAY = 86_400.0


def letter(published: float = NOW - 10, entered: float | None = None, eta: float | None = None) -> Letter:
    return Letter("j", "packetfs.test", "tag", published, published if entered is None else entered, eta, QUEUE)


LOST = Case(letter(), lease=NOW - 1)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (Case(letter(), finished=True), Verdict("strike")),
        (Case(letter(), finished=True, queued=True, lease=NOW + 5), Verdict("strike")),
        (Case(letter(), finished=True, chord=True, lease=NOW + 5), Verdict("run", NOW + 5)),
        (Case(letter(), finished=True, chord=True, lease=NOW - 1), Verdict("resubmit", NOW + 5)),
        (Case(letter(), lease=NOW + 5), Verdict("run", NOW + 5)),
        (Case(letter(NOW - 2 * DAY), lease=NOW + 5), Verdict("run", NOW + 5)),
        (Case(letter(eta=NOW + 60)), Verdict("wait", NOW + 65)),
        (Case(letter(NOW - 2 * DAY, eta=NOW + 60)), Verdict("wait", NOW + 65)),
        (Case(letter(), queued=True), Verdict("wait", NOW + 5)),
        (Case(letter(NOW - 24), queued=True), Verdict("wait", NOW + 12)),
        (Case(letter(NOW - 3600), queued=True), Verdict("wait", NOW + 30)),
        (Case(letter()), Verdict("start", NOW + 5)),
        (LOST, Verdict("resubmit", NOW + 5)),
        (Case(letter(), runs=3, lease=NOW - 1), Verdict("resubmit", NOW + 40)),
        (Case(letter(), runs=19, lease=NOW - 1), Verdict("resubmit", NOW + 300)),
        (Case(letter(), runs=20, lease=NOW - 1), Verdict("give_up", NOW + 60, "the job ended its worker 21 times")),
        (Case(letter(NOW - DAY - 1)), Verdict("give_up", NOW + 60, "the job was not finished within 86400 s")),
        (
            Case(letter(NOW - 5, entered=NOW - DAY - 1), queued=True),
            Verdict("give_up", NOW + 60, "the job was not finished within 86400 s"),
        ),
    ],
)  # fmt: skip
def test_what_is_done_with_an_entry(case: Case, verdict: Verdict) -> None:
    assert decide(case, NOW, DAY, Limits()) == verdict


TIMES = st.floats(0, 2 * NOW)


@given(
    st.builds(
        Case,
        st.builds(letter, TIMES, st.none() | TIMES, st.none() | TIMES),
        st.integers(0, 10**6),
        st.none() | TIMES,
        st.booleans(),
        st.booleans(),
        st.booleans(),
    )
)
def test_whatever_the_entry_it_is_looked_at_later_or_done_with(case: Case) -> None:
    verdict = decide(case, NOW, DAY, Limits())
    assert verdict.action == "strike" or NOW < verdict.until < math.inf
    assert (verdict.action == "give_up") == bool(verdict.reason)


def test_giving_up_takes_hours_not_minutes() -> None:
    waits = [decide(Case(letter(), runs=runs, lease=0.0), NOW, DAY, Limits()).until - NOW for runs in range(20)]
    assert waits == sorted(waits)
    assert 1 < sum(waits) / 3600 < 3


@pytest.fixture
def publish(app: Celery) -> Callable[..., Any]:
    return app.tasks["packetfs.test"].apply_async


def now(redis_client: Any, later_s: float = 0.0) -> float:
    seconds, micros = redis_client.time()
    return float(seconds + micros / 1e6 + later_s)


def take(redis_client: Any, key: str = QUEUE) -> Any:
    """Take the oldest message, as a worker that then dies."""
    return decoded(redis_client.rpop(key))


def lose(app: Celery, redis_client: Any, later_s: float = 10.0) -> None:
    """Let a sweep see that open jobs have left their queue, so that the next one finds them lost."""
    assert sweep(app, now=now(redis_client, later_s)).running > 0


def test_a_job_that_is_not_due_is_not_looked_at(app: Celery, publish: Any) -> None:
    publish(("u",))
    assert sweep(app) == SweepReport()


def test_a_job_that_waits_is_left_alone(app: Celery, publish: Any, redis_client: Any) -> None:
    for i in range(3):
        publish((i,))
    assert sweep(app, now=now(redis_client, 6)) == SweepReport(checked=3, waiting=3)
    assert sweep(app, now=now(redis_client, 8)) == SweepReport()
    assert redis_client.llen(QUEUE) == 3


def test_a_job_that_was_taken_and_lost_is_published_again(
    app: Celery, publish: Any, redis_client: Any, ledger: Ledger
) -> None:
    publish(("lost",), task_id="lost")
    publish(("waits",), task_id="waits")
    taken = take(redis_client)
    assert sweep(app, now=now(redis_client, 6)) == SweepReport(checked=2, waiting=1, running=1)
    report = sweep(app, now=now(redis_client, 20))
    assert report == SweepReport(checked=2, waiting=1, resubmitted=1)
    assert take(redis_client)["headers"]["id"] == "waits"
    again = take(redis_client)
    assert again["headers"]["id"] == "lost"
    assert again["body"] == taken["body"]
    assert again["properties"]["delivery_info"]["redelivered"] is True
    assert again["properties"]["delivery_tag"] != taken["properties"]["delivery_tag"]
    assert redis_client.hget(LEDGER_RUNS, "lost") == b"1"
    assert ledger.stats().resubmitted == 1


def test_a_message_that_a_dead_worker_holds_is_not_restored_as_well(
    app: Celery, publish: Any, redis_client: Any
) -> None:
    publish(("u",), task_id="j")
    taken = take(redis_client)
    tag = taken["properties"]["delivery_tag"]
    redis_client.hset("unacked", tag, json.dumps([taken, "", QUEUE]))
    redis_client.zadd("unacked_index", {tag: 1})
    lose(app, redis_client)
    assert sweep(app, now=now(redis_client, 30)).resubmitted == 1
    assert redis_client.exists("unacked", "unacked_index") == 0


def test_the_list_of_its_own_priority_tells_whether_a_job_waits(app: Celery, publish: Any, redis_client: Any) -> None:
    publish(("old",), priority=0)
    publish(("u",), task_id="j", priority=9)
    take(redis_client, QUEUE + "\x06\x169")
    lose(app, redis_client)
    sweep(app, now=now(redis_client, 30))
    assert redis_client.llen(QUEUE) == 1
    assert take(redis_client, QUEUE + "\x06\x169")["headers"]["id"] == "j"


def test_messages_of_others_at_the_end_of_the_list_are_waited_for(app: Celery, publish: Any, redis_client: Any) -> None:
    publish(("u",))
    take(redis_client)
    redis_client.rpush(QUEUE, b"garbage")
    assert sweep(app, now=now(redis_client, 10)).waiting == 1
    redis_client.rpop(QUEUE)
    lose(app, redis_client, 60)


def test_a_job_with_a_lease_runs(app: Celery, publish: Any, redis_client: Any, ledger: Ledger) -> None:
    publish(("u",), task_id="j")
    take(redis_client)
    ledger.lease("j", 100)
    assert sweep(app, now=now(redis_client, 10)) == SweepReport(checked=1, running=1)
    assert sweep(app, now=now(redis_client, 90)) == SweepReport()
    assert sweep(app, now=now(redis_client, 110)).resubmitted == 1
    assert redis_client.zcard(LEDGER_LEASES) == 0


def test_a_job_that_is_to_run_later_is_left_alone_until_then(app: Celery, publish: Any, redis_client: Any) -> None:
    publish(("u",), countdown=3600, task_id="j")
    take(redis_client)  # a worker holds it
    assert sweep(app, now=now(redis_client, 600)) == SweepReport()
    lose(app, redis_client, 3610)
    assert sweep(app, now=now(redis_client, 3700)).resubmitted == 1


def test_a_job_whose_result_is_there_is_struck_out(app: Celery, publish: Any, redis_client: Any) -> None:
    publish(("u",), task_id="j")
    take(redis_client)
    redis_client.set("celery-task-meta-j", json.dumps({"status": states.SUCCESS, "result": 1}))
    assert sweep(app, now=now(redis_client, 10)) == SweepReport(checked=1, finished=1)
    assert redis_client.exists(LEDGER_OPEN, LEDGER_JOBS) == 0


def test_a_job_on_its_way_is_no_finished_one(app: Celery, publish: Any, redis_client: Any) -> None:
    publish(("u",), task_id="j")
    take(redis_client)
    redis_client.set("celery-task-meta-j", json.dumps({"status": states.STARTED, "result": None}))
    lose(app, redis_client)


def test_a_part_of_a_chord_is_run_again_when_the_chord_may_not_have_heard(app: Celery, redis_client: Any) -> None:
    job = app.tasks["packetfs.test"]
    body = chord([job.s(1), job.s(2)])(job.s("body"))
    backend: Any = app.backend
    for _ in range(2):
        part = take(redis_client)
        backend.store_result(
            part["headers"]["id"], 1, states.SUCCESS, request=_request(part)
        )  # and then the worker dies
    lose(app, redis_client)
    assert sweep(app, now=now(redis_client, 30)).resubmitted == 2
    for _ in range(2):
        part = take(redis_client)
        backend.mark_as_done(part["headers"]["id"], 1, _request(part))
    assert take(redis_client)["headers"]["id"] == body.id
    assert redis_client.zrange(LEDGER_OPEN, 0, -1) == [body.id.encode()]


def _request(envelope: Any) -> Any:
    return Context({**envelope["headers"], **read_body(envelope)[2], "delivery_info": {}})


def test_the_delays_grow_and_in_the_end_the_caller_is_told(app: Celery, publish: Any, redis_client: Any) -> None:
    result = publish(("u",), task_id="j")
    later, gaps = 0.0, []
    for _ in range(200):
        if redis_client.zcard(LEDGER_OPEN) == 0:
            break
        take(redis_client) if redis_client.llen(QUEUE) else None
        due = redis_client.zscore(LEDGER_OPEN, "j")
        report = sweep(app, now=due + 0.001)
        if report.resubmitted:
            gaps.append(due - later)
            later = due
    assert int(redis_client.get(LEDGER_GIVEN_UP)) == 1
    assert len(gaps) == 20
    assert gaps[1:] == sorted(gaps[1:])
    with pytest.raises(Internal, match="ended its worker 21 times") as caught:
        result.get(timeout=5)
    assert caught.value.details == {"job_id": "j", "attempts": []}
    (entry,) = map(json.loads, redis_client.lrange(rejected_of(QUEUE), 0, -1))
    assert entry["reason"] == "given up: the job ended its worker 21 times"
    assert json.loads(entry["message"])["headers"]["id"] == "j"
    assert redis_client.exists(LEDGER_JOBS, LEDGER_RUNS, LEDGER_LEASES) == 0


def test_a_job_older_than_its_result_would_live_is_given_up(make: Callable[..., Celery], redis_client: Any) -> None:
    app = make(result_expires=100)
    result = app.tasks["packetfs.test"].apply_async(("u",))
    assert sweep(app, now=now(redis_client, 99)) == SweepReport(checked=1, waiting=1)
    assert sweep(app, now=now(redis_client, 200)) == SweepReport(checked=1, given_up=1)
    with pytest.raises(Internal, match="not finished within 100 s"):
        result.get(timeout=5)


def test_giving_up_a_part_of_a_chord_fails_the_chord(make: Callable[..., Celery], redis_client: Any) -> None:
    app = make(result_expires=100)
    job = app.tasks["packetfs.test"]
    body = chord([job.s(1), job.s(2)])(job.s("body"))
    assert sweep(app, now=now(redis_client, 200)).given_up == 2
    assert AsyncResult(body.id, app=app).state == states.FAILURE
    assert redis_client.zcard(LEDGER_OPEN) == 0


def test_giving_up_a_job_whose_result_nobody_wants_stores_none(make: Callable[..., Celery], redis_client: Any) -> None:
    app = make(result_expires=100)
    app.tasks["packetfs.test"].apply_async(("u",), task_id="j", ignore_result=True)
    assert sweep(app, now=now(redis_client, 200)).given_up == 1
    assert redis_client.exists("celery-task-meta-j", LEDGER_OPEN) == 0


@pytest.mark.parametrize(
    "record", [None, b"", b"no newline", QUEUE.encode() + b"\n{}", QUEUE.encode() + b"\n[1", b"\n\xff"]
)
def test_an_entry_that_cannot_be_read_is_given_up(app: Celery, redis_client: Any, record: bytes | None) -> None:
    redis_client.zadd(LEDGER_OPEN, {"j": 1})
    if record is not None:
        redis_client.hset(LEDGER_JOBS, "j", record)
    assert sweep(app) == SweepReport(checked=1, given_up=1)
    assert redis_client.exists(LEDGER_OPEN, LEDGER_JOBS) == 0
    with pytest.raises(Internal, match="unusable"):
        AsyncResult("j", app=app).get(timeout=5)


def test_no_storm(app: Celery, publish: Any, redis_client: Any) -> None:
    for i in range(30):
        publish((i,))
    redis_client.delete(QUEUE)
    lose(app, redis_client)
    limits = Limits(entries=20, resubmissions=8)
    reports = [sweep(app, limits, now(redis_client, 30)) for _ in range(5)]
    assert [report.resubmitted for report in reports] == [8, 8, 8, 6, 0]
    assert max(report.checked for report in reports) == 20
    assert redis_client.llen(QUEUE) == 30


def test_two_sweepers_at_once_publish_a_job_once(app: Celery, publish: Any, redis_client: Any) -> None:
    for i in range(40):
        publish((i,))
    redis_client.delete(QUEUE)
    lose(app, redis_client)
    reports: list[SweepReport] = []
    barrier = threading.Barrier(3)
    later = now(redis_client, 30)

    def one() -> None:
        barrier.wait()
        reports.append(sweep(app, now=later))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.resubmitted for report in reports) == redis_client.llen(QUEUE) == 40


def test_two_sweepers_at_once_give_a_job_up_once(make: Callable[..., Celery], redis_client: Any) -> None:
    app = make(result_expires=100)
    for i in range(10):
        app.tasks["packetfs.test"].apply_async((i,))
    later = now(redis_client, 200)
    threads = [threading.Thread(target=sweep, args=(app, Limits(), later)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis_client.llen(rejected_of(QUEUE)) == int(redis_client.get(LEDGER_GIVEN_UP)) == 10


def test_behind_another_broker_the_length_of_the_queue_tells(make: Callable[..., Celery], redis_client: Any) -> None:
    app = make(broker_url="memory://", broker_transport_options={"polling_interval": 0.01})
    app.tasks["packetfs.test"].apply_async(("u",), task_id="j")
    assert sweep(app, now=now(redis_client, 55)) == SweepReport()
    assert sweep(app, now=now(redis_client, 65)) == SweepReport(checked=1, waiting=1)
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[QUEUE](connection.default_channel)
        first = queue.get(no_ack=True)
        lose(app, redis_client, 120)
        assert sweep(app, now=now(redis_client, 200)).resubmitted == 1
        again = queue.get(no_ack=True)
    assert again.headers == first.headers
    assert again.decode() == first.decode()
    backend: Any = app.backend
    backend.mark_as_done("j", 1, Context({**again.headers, "delivery_info": {}}))
    assert redis_client.zcard(LEDGER_OPEN) == 0


def test_an_application_without_a_ledger_says_so(make: Callable[..., Celery]) -> None:
    app = make(result_backend="cache+memory://")
    assert not isinstance(app.backend, ResultBackend)
    with pytest.raises(ConfigurationError):
        sweep(app)
