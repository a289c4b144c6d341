"""``submit_many`` on a real Redis from which nobody consumes."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from celery.result import EagerResult
from hypothesis import given
from hypothesis import strategies as st
from support.system import publishing_to, reset_pools

from packetfs_compute.broker.ledger import MOST_AT_ONCE
from packetfs_compute.broker.letters import read_body
from packetfs_compute.broker.messages import defect
from packetfs_compute.celery import app
from packetfs_compute.errors import BadPolicy, BadProgram, BrokerUnavailable, JobError
from packetfs_compute.names import LEDGER_JOBS, LEDGER_OPEN
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from tasks import counteq, crc32c, program, submit_many, sweep
from tasks.many import _Checker

URL = "https://host/object"
QUEUE = "packetfs.local"


def let_go() -> None:
    backend: Any = app.backend
    backend.result_consumer.stop()
    backend.client.connection_pool.disconnect()
    reset_pools()


@pytest.fixture
def client(redis_settings: Settings, redis_client: Any) -> Iterator[Any]:
    with publishing_to(redis_settings):
        yield redis_client
        let_go()


def messages(client: Any, queue: str = QUEUE) -> list[dict[str, Any]]:
    """What was published, the oldest first."""
    return [json.loads(item) for item in reversed(client.lrange(queue, 0, -1))]


def offsets(client: Any, queue: str = QUEUE) -> list[int]:
    return [read_body(message)[1]["offset"] for message in messages(client, queue)]


def ranges(count: int) -> Iterator[dict[str, Any]]:
    return ({"offset": n, "length": 1} for n in range(count))


def refused(result: Any) -> Exception:
    with pytest.raises((BadProgram, BadPolicy)) as caught:
        result.get(timeout=0)
    return caught.value


class TestMessages:
    def test_one_is_what_delay_publishes(self, client: Any) -> None:
        crc32c.apply_async((), {"data_url": URL, "offset": 7, "length": 5, "policy": {"goal": "cheapest"}})
        (result,) = submit_many(crc32c, [{"offset": 7}], data_url=URL, length=5, policy={"goal": "cheapest"})
        one, other = messages(client)
        assert other["headers"]["id"] == result.id != one["headers"]["id"]
        assert read_body(other)[1] == read_body(one)[1]
        for message in (one, other):
            own = message["headers"]["id"]
            assert message["headers"].pop("root_id") == message["properties"].pop("correlation_id") == own
            for name in ("id", "argsrepr", "kwargsrepr", "packetfs_submitted_at"):
                assert message["headers"].pop(name)
            assert message["properties"].pop("delivery_tag")
            assert message.pop("packetfs_published") > 1e9
            message["body"] = read_body(message)[2]
        assert other == one

    def test_each_is_one_that_a_worker_takes(self, client: Any) -> None:
        results = list(submit_many(program, ranges(3), data_url='https://h/"{1}\n\\é', ops=[{"op": "xor", "imm": 1}]))
        raw = client.lrange(QUEUE, 0, -1)
        assert [defect(item) for item in raw] == [None] * 3
        assert {read_body(json.loads(item))[1]["data_url"] for item in raw} == {'https://h/"{1}\n\\é'}
        assert len({json.loads(item)["properties"]["delivery_tag"] for item in raw}) == 3
        assert [message["headers"]["id"] for message in messages(client)] == [result.id for result in results]

    def test_the_ledger_has_each_as_it_stands_on_the_list(self, client: Any) -> None:
        results = list(submit_many(crc32c, ranges(MOST_AT_ONCE + 3), data_url=URL, batch=MOST_AT_ONCE + 1))
        kept = client.hgetall(LEDGER_JOBS)
        assert set(kept) == {result.id.encode() for result in results}
        on_list = client.lrange(QUEUE, 0, -1)
        assert sorted(kept.values()) == sorted(QUEUE.encode() + b"\n" + item for item in on_list)
        now = client.time()[0]
        assert all(now < due < now + 10 for _, due in client.zrange(LEDGER_OPEN, 0, -1, withscores=True))

    def test_a_priority_has_its_list(self, client: Any) -> None:
        list(submit_many(crc32c, ranges(2), data_url=URL, priority=5))
        assert offsets(client, QUEUE + "\x06\x163") == [0, 1]
        assert {message["properties"]["priority"] for message in messages(client, QUEUE + "\x06\x163")} == {5}


class TestCalls:
    def test_they_keep_their_order_over_batches(self, client: Any) -> None:
        results = list(submit_many(crc32c, ranges(1000), data_url=URL, batch=7))
        assert offsets(client) == list(range(1000))
        assert [message["headers"]["id"] for message in messages(client)] == [result.id for result in results]
        assert all(type(result).__name__ == "AsyncResult" and result.task_id == result.id for result in results)

    def test_one_wins_over_what_all_have(self, client: Any) -> None:
        calls = [{}, {"offset": 3}, {"offset": None, "length": None}, {"data_url": "https://host/other", "imm": 9}]
        list(submit_many(counteq, calls, data_url=URL, imm=1, offset=5, length=6))
        asked = [read_body(message)[1] for message in messages(client)]
        common = {"data_url": URL, "imm": 1, "offset": 5, "length": 6}
        assert asked == [{**common, **call} for call in calls]

    def test_an_endless_iterable_is_read_a_batch_at_a_time(self, client: Any) -> None:
        taken = Counter[str]()

        def endless() -> Iterator[dict[str, Any]]:
            for n in itertools.count():
                taken["calls"] += 1
                yield {"offset": n}

        results = submit_many(crc32c, endless(), data_url=URL, batch=10)
        assert taken["calls"] == client.llen(QUEUE) == 0
        for at in range(25):
            assert client.zscore(LEDGER_OPEN, next(results).id) is not None
            assert taken["calls"] <= at + 2 * 10
        results.close()
        assert client.llen(QUEUE) == client.zcard(LEDGER_OPEN) == 40

    def test_one_waits_for_others_only_so_long(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = itertools.count(1e9, 0.3)
        monkeypatch.setattr("tasks.many.time.time", lambda: next(clock))
        results = submit_many(crc32c, ranges(50), data_url=URL)
        next(results)
        assert client.llen(QUEUE) < 10
        results.close()

    def test_an_error_of_the_iterable_leaves_what_was_yielded(self, client: Any) -> None:
        def breaks() -> Iterator[dict[str, Any]]:
            yield from ranges(25)
            raise KeyboardInterrupt

        results = submit_many(crc32c, breaks(), data_url=URL, batch=10)
        ids = []
        with pytest.raises(KeyboardInterrupt):
            ids += [result.id for result in results]
        assert client.llen(QUEUE) == client.zcard(LEDGER_OPEN) == 20
        backend: Any = app.backend
        assert not backend.client.connection_pool._in_use_connections
        (result,) = submit_many(crc32c, [{}], data_url=URL)  # no connection was left with an answer to come
        assert client.zscore(LEDGER_OPEN, result.id) is not None

    def test_none(self, client: Any) -> None:
        assert list(submit_many(crc32c, [], data_url=URL)) == []
        assert client.dbsize() == 0


_bytes = st.fixed_dictionaries(
    {},
    optional={
        "data_url": st.sampled_from(["https://host/other", "", None, 7, "u" * 9000]),
        "offset": st.sampled_from([0, 5, 5.0, None, -1, "1", True, 1 << 60]),
        "length": st.sampled_from([0, 9, None, -1, 2.5, 1 << 60]),
        "imm": st.sampled_from([9, None, 256]),
        "lenght": st.just(4),
    },
)


@given(common=_bytes, call=_bytes)
def test_what_all_have_is_checked_once_and_each_as_if_it_were_alone(
    common: dict[str, Any], call: dict[str, Any]
) -> None:
    def told(job: Any) -> object:
        if isinstance(job, JobError):
            return type(job), job.message, job.details.get("field"), job.details.get("job_id")
        return job

    together = _Checker(counteq, {"imm": 1, **common}).check("j1", call, 5.0)
    alone = _Checker(counteq, {}).check("j1", {"imm": 1, **common, **call}, 5.0)
    assert told(together) == told(alone)


class TestRefusals:
    def test_each_is_told_of_its_own_job(self, client: Any) -> None:
        calls: list[Any] = [
            {"offset": 0}, {"offset": -1}, {"lenght": 4}, {"data_url": ""}, {"policy": {"goal": "x"}}, 7, {"op": "xor"},
            {"length": True}, {"offset": 1},
        ]  # fmt: skip
        results = list(submit_many(crc32c, calls, data_url=URL))
        assert [type(result) is EagerResult for result in results] == [False, *[True] * 7, False]
        told = [refused(result) for result in results[1:-1]]
        fields = [error.details["field"] for error in told]
        assert fields == [
            "program.offset", "arguments.lenght", "program.data_url", "policy.goal", "arguments", "arguments.op",
            "program.length",
        ]  # fmt: skip
        assert [type(error) for error in told] == [BadProgram] * 3 + [BadPolicy] + [BadProgram] * 3
        assert [error.details["job_id"] for error in told] == [result.id for result in results[1:-1]]
        assert all(result.failed() and result.ready() for result in results[1:-1])
        assert offsets(client) == [0, 1]
        assert client.zcard(LEDGER_OPEN) == 2

    def test_what_all_have_may_be_wrong(self, client: Any) -> None:
        results = list(submit_many(counteq, [{}, {"imm": 3}, {"offset": 2}], data_url=URL))
        assert [refused(result).details["field"] for result in (results[0], results[2])] == ["program.imm"] * 2
        assert client.llen(QUEUE) == 1

    def test_one_that_is_too_long(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("packetfs_compute.broker.bulk._MAX_ARGUMENT_CHARS", 1000)
        results = list(submit_many(crc32c, [{}, {"data_url": "u" * 2000}, {}], data_url=URL))
        assert refused(results[1]).details["field"] == "arguments"
        assert [message["headers"]["id"] for message in messages(client)] == [results[0].id, results[2].id]

    @pytest.mark.parametrize("task", [sweep, "packetfs.crc32c", None])
    def test_no_operation(self, task: Any) -> None:
        with pytest.raises(TypeError, match=r"tasks\.crc32c"):
            submit_many(task, [])

    def test_no_priority_and_no_batch(self) -> None:
        with pytest.raises(BadProgram):
            submit_many(crc32c, [], priority=10)
        with pytest.raises(ValueError, match="batch"):
            submit_many(crc32c, [], batch=0)


class TestPlaces:
    @pytest.fixture
    def fleet(self, redis_settings: Settings, redis_client: Any) -> Iterator[Any]:
        near = [SubstrateSpec(f"near{n}", "stub", overhead_s=0.001, slots=16, bytes_per_s=1e9) for n in range(2)]
        with publishing_to(replace(redis_settings, substrates=tuple(near))):
            yield redis_client
            let_go()

    def test_equal_jobs_are_spread(self, fleet: Any) -> None:
        list(submit_many(crc32c, ranges(200), data_url=URL, policy={"exclude": ["local"]}))
        assert sorted(fleet.llen(f"packetfs.near{n}") for n in range(2))[0] > 60
        assert fleet.llen(QUEUE) == 0
        assert {
            message["properties"]["delivery_info"]["routing_key"] for message in messages(fleet, "packetfs.near1")
        } == {"packetfs.near1"}

    def test_each_has_its_own_policy(self, fleet: Any) -> None:
        list(
            submit_many(
                crc32c, ({"policy": {"substrates": [f"near{n % 2}"]}, "offset": n} for n in range(20)), data_url=URL
            )
        )
        assert offsets(fleet, "packetfs.near0") == list(range(0, 20, 2))
        assert offsets(fleet, "packetfs.near1") == list(range(1, 20, 2))


class TestTrouble:
    def test_a_lost_answer_publishes_nothing_twice(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from packetfs_compute.broker.ledger import Entering

        lost = iter([True])
        finish = Entering.finish

        def once(self: Entering) -> None:
            if next(lost, False):
                finish(self)
                raise redis.ConnectionError("the answer was lost")
            finish(self)

        monkeypatch.setattr(Entering, "finish", once)
        results = list(submit_many(crc32c, ranges(5), data_url=URL))
        assert len(results) == 5
        assert offsets(client) == [0, 1, 2, 3, 4]

    def test_a_connection_that_was_cut_is_made_again(self, client: Any) -> None:
        list(submit_many(crc32c, ranges(2), data_url=URL))
        own = client.client_id()
        for other in client.client_list():
            if int(other["id"]) != own:
                client.client_kill_filter(_id=other["id"])
        list(submit_many(crc32c, ranges(2), data_url=URL))
        assert offsets(client) == [0, 1, 0, 1]

    def test_without_a_broker_the_ids_in_doubt_are_told(self, redis_settings: Settings) -> None:
        nowhere = replace(redis_settings, redis_url="redis://127.0.0.1:1/0", connect_timeout_s=0.2)
        with publishing_to(nowhere):
            with pytest.raises(BrokerUnavailable) as caught:
                next(submit_many(crc32c, [{"offset": -1}, {}, {}], data_url=URL))
            assert len(caught.value.details["job_ids"]) == 2
            let_go()
