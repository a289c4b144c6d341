"""The intake on a real Redis, a turn at a time; what kills it is an exception where the kill would be."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.malformed import MALFORMED
from support.system import publishing_to, reset_pools
from support.untrusted import holds_a_huge_number, json_values, nearly_requests, patient

from packetfs_compute import intake
from packetfs_compute.broker.letters import read_body
from packetfs_compute.desk import Desk, Submission
from packetfs_compute.errors import BadProgram, BrokerUnavailable
from packetfs_compute.intake import MAX_JOB_BYTES, Intake, parse_job
from packetfs_compute.names import (
    JOBS_ALIVE,
    JOBS_INSTANCES,
    JOBS_PROCESSING,
    JOBS_QUEUE,
    JOBS_REJECTED,
    JOBS_RESULTS,
)
from packetfs_compute.settings import Settings

PROGRAM = {"data_url": "https://host/object", "op": "crc32c"}
QUEUE = "packetfs.local"


def job(job_id: object = "j", program: object = PROGRAM, **more: object) -> str:
    return json.dumps({"job_id": job_id, "program": program, **more})


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def desk(redis_settings: Settings) -> Iterator[Desk]:
    with publishing_to(redis_settings):
        made = Desk(redis_settings)
        yield made
        made.close()
    reset_pools()


@pytest.fixture
def make(desk: Desk, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Intake]]:
    monkeypatch.setattr(intake, "_WAIT_S", 0.05)
    made: list[Intake] = []

    def one(**more: Any) -> Intake:
        made.append(Intake(redis_settings, desk, **more))
        return made[-1]

    yield one
    for each in made:
        each._redis.close()


@pytest.fixture
def taker(make: Callable[..., Intake]) -> Intake:
    return make()


def published(client: Any, queue: str = QUEUE) -> list[str]:
    """The ids of what was published, the oldest first."""
    return [json.loads(item)["headers"]["id"] for item in reversed(client.lrange(queue, 0, -1))]


def rejected(client: Any) -> list[dict[str, Any]]:
    return [json.loads(item) for item in client.lrange(JOBS_REJECTED, 0, -1)]


def told(client: Any, job_id: str = "j") -> Any:
    raw = client.get(JOBS_RESULTS + job_id)
    return None if raw is None else json.loads(raw)


def waiting(client: Any) -> int:
    """Messages that are in the queue, or in an instance's list."""
    return client.llen(JOBS_QUEUE) + sum(client.llen(key) for key in client.keys(JOBS_PROCESSING + "*"))


class TestParsing:
    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            ({"program": PROGRAM}, Submission("j", PROGRAM)),
            ({"program": 5, "policy": [], "priority": "x"}, Submission("j", 5, [], "x")),
            ({"policy": None, "priority": None}, Submission("j", None)),
        ],
    )
    def test_what_it_holds_is_left_to_the_desk(self, message: dict[str, Any], expected: Submission) -> None:
        assert parse_job(json.dumps({"job_id": "j", **message}).encode()) == expected

    @pytest.mark.parametrize(
        ("message", "field", "job_id"),
        [
            (b"", "job", None),
            (b"hello", "job", None),
            (b"[]", "job", None),
            (b"null", "job", None),
            (b"{}", "job_id", None),
            (b'"j"', "job", None),
            (b'{"job_id": 5}', "job_id", None),
            (b'{"job_id": "a b"}', "job_id", None),
            (b'{"job_id": "\xff"}', "job", None),
            (b'{"job_id": "j", "program": NaN}', "job", None),
            (b'{"job_id": "j", "program": -Infinity}', "job", None),
            (b'{"job_id": "j"} {}', "job", None),
            (b'{"job_id": "j", "program": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "job", None),
            (b'{"job_id": "j", "program": 1' + b"0" * 5000 + b"}", "job", None),
            ('{"job_id": "j"}'.encode("utf-16"), "job", None),
            (b'{"job_id": "j", "programme": {}}', "job.programme", "j"),
        ],
    )
    def test_what_is_none_is_refused_by_name(self, message: bytes, field: str, job_id: str | None) -> None:
        with pytest.raises(BadProgram) as caught:
            parse_job(message)
        assert caught.value.details["field"] == field
        assert caught.value.details.get("job_id") == job_id
        assert caught.value.hint

    @patient
    @given(st.binary() | json_values.filter(lambda one: not holds_a_huge_number(one)).map(_encoded))
    def test_nothing_else_is_raised(self, message: bytes) -> None:
        with suppress(BadProgram):
            assert parse_job(message).job_id


class TestAJob:
    def test_comes_in(self, taker: Intake, redis_client: Any) -> None:
        redis_client.lpush(JOBS_QUEUE, job(policy={"substrates": ["local"]}))
        assert taker.turn() == 1
        (message,) = redis_client.lrange(QUEUE, 0, -1)
        body = read_body(json.loads(message))[1]
        assert body["data_url"] == "https://host/object"
        assert body["policy"] == {"substrates": ["local"]}
        assert waiting(redis_client) == 0
        assert rejected(redis_client) == []
        assert taker.turn() == 0

    def test_has_the_priority_that_it_asks_for(self, taker: Intake, redis_client: Any) -> None:
        redis_client.lpush(JOBS_QUEUE, job("last", priority=9), job("first", priority=0), job("none"))
        taker.turn()
        assert published(redis_client, QUEUE + "\x06\x169") == ["last"]
        assert published(redis_client) == ["first", "none"]

    def test_jobs_are_taken_in_order_a_batch_at_a_time(self, make: Callable[..., Intake], redis_client: Any) -> None:
        for at in range(25):
            redis_client.lpush(JOBS_QUEUE, job(f"j{at}"))
        taker = make(batch=10)
        assert [taker.turn() for _ in range(4)] == [10, 10, 5, 0]
        assert published(redis_client) == [f"j{at}" for at in range(25)]

    def test_a_batch_has_a_bound_in_bytes(
        self, taker: Intake, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(intake, "_MAX_BATCH_BYTES", 2 * len(job("j1")))
        redis_client.lpush(JOBS_QUEUE, *[job(f"j{at}") for at in range(5)])
        assert [taker.turn() for _ in range(3)] == [2, 2, 1]

    def test_one_that_is_there_several_times_is_published_once(self, taker: Intake, redis_client: Any) -> None:
        redis_client.lpush(JOBS_QUEUE, job(), job(), job(policy={}))
        assert taker.turn() == 3
        redis_client.lpush(JOBS_QUEUE, job())
        assert taker.turn() == 1
        assert published(redis_client) == ["j"]
        assert (waiting(redis_client), rejected(redis_client)) == (0, [])

    def test_another_under_its_id_is_set_aside_and_does_not_speak_for_it(
        self, taker: Intake, redis_client: Any
    ) -> None:
        redis_client.lpush(JOBS_QUEUE, job())
        redis_client.lpush(JOBS_QUEUE, job(program={**PROGRAM, "offset": 1}))
        taker.turn()
        assert published(redis_client) == ["j"]
        assert "another program" in rejected(redis_client)[0]["reason"]
        assert told(redis_client) is None

    def test_one_that_has_ended_is_told_again(self, taker: Intake, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        status = desk.cancel("j")
        redis_client.delete(JOBS_RESULTS + "j")
        redis_client.lpush(JOBS_QUEUE, job())
        taker.turn()
        assert told(redis_client) == status
        assert 86_300 < redis_client.ttl(JOBS_RESULTS + "j") <= 86_400


BAD = {
    **{name: raw for name, raw in MALFORMED.items() if name not in ("a job of the intake", "too long")},
    "no program": b'{"job_id": "bad"}',
    "an unknown operation": job("bad", {"data_url": "u", "op": "md5"}).encode(),
    "a policy of nonsense": job("bad", policy={"goal": 1}).encode(),
    "an infinite cost": job("bad", policy={"max_cost_usd": 1}).replace("1}", "1e999}").encode(),
    "a priority of true": job("bad", priority=True).encode(),
    "a priority out of bounds": job("bad", priority=10).encode(),
    "a huge offset": b'{"job_id": "bad", "program": {"data_url": "u", "op": "crc32c", "offset": 1'
    + b"0" * 4000
    + b"}}",
    "an unknown field": job("bad", colour="red").encode(),
}


class TestWhatIsNoJob:
    @pytest.mark.parametrize("name", BAD)
    def test_is_set_aside_with_the_reason_and_the_next_is_served(
        self, taker: Intake, redis_client: Any, name: str
    ) -> None:
        redis_client.lpush(JOBS_QUEUE, BAD[name], job("good"))
        taker.turn()
        assert published(redis_client) == ["good"]
        (entry,) = rejected(redis_client)
        assert set(entry) == {"message", "reason", "bytes", "at"}
        assert entry["message"] == BAD[name].decode("utf-8", "backslashreplace")[: 1 << 14]
        assert (entry["bytes"], bool(entry["reason"])) == (len(BAD[name]), True)
        assert waiting(redis_client) == 0

    @pytest.mark.parametrize(
        ("message", "error"),
        [
            (job(colour="red"), {"type": "bad_program", "field": "job.colour"}),
            (job(program={"op": "crc32c"}), {"type": "bad_program", "field": "program.data_url"}),
            (job(policy={"goal": "x"}), {"type": "bad_policy", "field": "policy.goal"}),
            (job(priority="1"), {"type": "bad_program", "field": "priority"}),
        ],
    )
    def test_is_told_under_its_id(self, taker: Intake, redis_client: Any, message: str, error: dict[str, Any]) -> None:
        redis_client.lpush(JOBS_QUEUE, message)
        taker.turn()
        status = told(redis_client)
        assert {**status, "error": None} == {
            "job_id": "j", "status": "failed", "submitted_at": None, "program": None, "policy": None, "result": None,
            "error": None,
        }  # fmt: skip
        assert {**status["error"], **error} == status["error"]
        assert status["error"]["message"] == rejected(redis_client)[0]["reason"]
        assert status["error"]["hint"]
        assert 86_300 < redis_client.ttl(JOBS_RESULTS + "j") <= 86_400

    def test_may_be_mended_under_the_same_id(self, taker: Intake, redis_client: Any) -> None:
        redis_client.lpush(JOBS_QUEUE, job(program={}))
        taker.turn()
        assert told(redis_client)["status"] == "failed"
        redis_client.lpush(JOBS_QUEUE, job())
        taker.turn()
        assert told(redis_client) is None
        assert published(redis_client) == ["j"]

    def test_does_not_speak_for_a_job_of_that_id(self, taker: Intake, desk: Desk, redis_client: Any) -> None:
        desk.submit("j", PROGRAM)
        redis_client.lpush(JOBS_QUEUE, job(program={}))
        taker.turn()
        assert told(redis_client) is None
        assert len(rejected(redis_client)) == 1

    @pytest.mark.parametrize("blocking", [False, True])
    def test_one_that_is_too_long_is_not_even_read(self, taker: Intake, redis_client: Any, blocking: bool) -> None:
        message = b"\xff" + b"x" * MAX_JOB_BYTES
        if blocking:  # as BLMOVE gives it, whatever its length
            redis_client.lpush(JOBS_PROCESSING + taker.name, message)
        else:
            redis_client.lpush(JOBS_QUEUE, message)
        redis_client.lpush(JOBS_QUEUE, job())
        assert taker.turn() == 1
        (entry,) = rejected(redis_client)
        assert entry["reason"] == f"it has {MAX_JOB_BYTES + 1} bytes; at most {MAX_JOB_BYTES} are taken"
        assert entry["message"] == "?" + "x" * 16383
        assert (entry["bytes"], waiting(redis_client)) == (MAX_JOB_BYTES + 1, 0)
        assert published(redis_client) == ["j"]

    def test_the_longest_is_read(self, taker: Intake, redis_client: Any) -> None:
        redis_client.lpush(JOBS_QUEUE, job() + " " * (MAX_JOB_BYTES - len(job())))
        taker.turn()
        assert published(redis_client) == ["j"]

    def test_the_list_of_it_is_bounded(self, taker: Intake, redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(intake, "_MAX_REJECTED", 5)
        redis_client.lpush(JOBS_QUEUE, *[f"no job {at}" for at in range(12)])
        taker.turn()
        assert [entry["message"] for entry in rejected(redis_client)] == [f"no job {at}" for at in range(11, 6, -1)]
        redis_client.lpush(JOBS_QUEUE, "x" * (MAX_JOB_BYTES + 1))
        taker.turn()
        assert redis_client.llen(JOBS_REJECTED) == 5

    @settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(requests=st.lists(nearly_requests, max_size=4), garbage=st.lists(st.binary(max_size=50), max_size=4))
    def test_whatever_comes_each_message_is_served_or_set_aside(
        self, taker: Intake, redis_client: Any, requests: list[dict[str, Any]], garbage: list[bytes]
    ) -> None:
        redis_client.flushall()
        named = [{"job_id": one.pop("jobId", "j"), **one} for one in requests if not holds_a_huge_number(one)]
        messages = [*(json.dumps(one).encode() for one in named), *garbage, job("good").encode()]
        redis_client.lpush(JOBS_QUEUE, *messages)
        assert taker.turn() == len(messages)
        ids = published(redis_client)
        assert "good" in ids
        assert len(set(ids)) == len(ids)
        assert len(rejected(redis_client)) >= len(garbage)
        assert waiting(redis_client) == 0


class TestNothingIsLost:
    def test_an_answer_that_was_lost_on_its_way(self, taker: Intake, redis_client: Any) -> None:
        redis_client.lpush(JOBS_PROCESSING + taker.name, job("older"), job("old"))
        redis_client.lpush(JOBS_QUEUE, job("new"))
        assert taker.turn() == 3
        assert published(redis_client) == ["older", "old", "new"]
        assert waiting(redis_client) == 0

    @pytest.mark.parametrize("where", ["_submit", "_finish"])
    def test_a_kill_before_or_after_the_jobs_are_submitted(
        self, make: Callable[..., Intake], redis_client: Any, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        killed, other = make(), make()
        redis_client.lpush(JOBS_QUEUE, job("a"), b"no job", job("b"))
        with monkeypatch.context() as patch:
            patch.setattr(killed, where, _dies)
            with pytest.raises(KeyboardInterrupt):
                killed.turn()
        assert waiting(redis_client) == 3
        assert other.turn() == 0, "it lives as far as anybody can tell"
        redis_client.delete(JOBS_ALIVE + killed.name)
        other._renewed_s = -100.0
        redis_client.lpush(JOBS_QUEUE, job("c"))
        assert other.turn() == 4
        assert published(redis_client) == ["a", "b", "c"]
        assert [entry["message"] for entry in rejected(redis_client)] == ["no job"]
        assert waiting(redis_client) == 0
        other._renewed_s = -100.0
        other.turn()
        assert redis_client.smembers(JOBS_INSTANCES) == {other.name.encode()}

    def test_one_that_was_taken_for_dead_does_no_harm(self, make: Callable[..., Intake], redis_client: Any) -> None:
        slow, other = make(), make()
        redis_client.lpush(JOBS_QUEUE, job(), b"no job")
        messages = _taken(slow)
        redis_client.delete(JOBS_ALIVE + slow.name)
        other.turn()
        slow._finish(messages, slow._submit(messages))
        assert published(redis_client) == ["j"]
        assert (len(rejected(redis_client)), waiting(redis_client)) == (1, 0)

    def test_many_that_a_dead_one_had_are_put_back_in_turns(
        self, make: Callable[..., Intake], redis_client: Any
    ) -> None:
        redis_client.sadd(JOBS_INSTANCES, "dead")
        redis_client.lpush(JOBS_PROCESSING + "dead", *[job(f"j{at}") for at in range(25)])
        taker = make(batch=10)
        for _ in range(8):
            taker._renewed_s = -100.0
            taker.turn()
        assert sorted(published(redis_client)) == sorted(f"j{at}" for at in range(25))
        assert waiting(redis_client) == 0
        assert redis_client.smembers(JOBS_INSTANCES) == {taker.name.encode()}

    def test_a_broker_that_is_away_is_waited_for(
        self, taker: Intake, desk: Desk, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redis_client.lpush(JOBS_QUEUE, job("a"), job("b"))
        with monkeypatch.context() as patch:
            patch.setattr(desk, "_publish", _is_away)
            for _ in range(3):
                with pytest.raises(BrokerUnavailable):
                    taker.turn()
        assert waiting(redis_client) == 2
        assert taker.turn() == 2
        assert published(redis_client) == ["a", "b"]

    def test_it_goes_on_when_redis_answers_again_and_leaves_nothing_behind(
        self, make: Callable[..., Intake], redis_client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        taker = make()
        redis_client.set(JOBS_QUEUE, "not a list")
        stopping = threading.Event()
        thread = threading.Thread(target=taker.run, args=(stopping.is_set,))
        thread.start()
        try:
            _wait_for(lambda: "does not answer" in caplog.text)
            redis_client.delete(JOBS_QUEUE)
            redis_client.lpush(JOBS_QUEUE, job())
            _wait_for(lambda: published(redis_client) == ["j"])
        finally:
            stopping.set()
            thread.join(10)
        assert "the broker is back" in caplog.text
        assert redis_client.exists(JOBS_INSTANCES, JOBS_ALIVE + taker.name, JOBS_PROCESSING + taker.name) == 0

    def test_who_ends_gives_back_what_it_had(self, make: Callable[..., Intake], redis_client: Any) -> None:
        taker = make()
        redis_client.lpush(JOBS_QUEUE, job())
        _taken(taker)
        taker._leave()
        assert redis_client.lrange(JOBS_QUEUE, 0, -1) == [job().encode()]
        assert not redis_client.exists(JOBS_INSTANCES)

    def test_two_share_a_queue(self, make: Callable[..., Intake], redis_client: Any) -> None:
        redis_client.lpush(JOBS_QUEUE, *[job(f"j{at}") for at in range(30)])
        takers = [make(batch=5), make(batch=5)]
        assert [taker.turn() for _ in range(3) for taker in takers] == [5] * 6
        assert len(set(published(redis_client))) == len(published(redis_client)) == 30

    def test_its_sign_of_life_expires(self, taker: Intake, redis_client: Any) -> None:
        taker.turn()
        assert 0 < redis_client.ttl(JOBS_ALIVE + taker.name) <= 10
        assert redis_client.smembers(JOBS_INSTANCES) == {taker.name.encode()}


def _taken(taker: Intake) -> list[bytes]:
    taker._live()
    return taker._take()


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def _is_away(*_: object) -> None:
    raise BrokerUnavailable("away")


def _wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
