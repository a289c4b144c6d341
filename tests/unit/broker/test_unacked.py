"""What is noted of messages that a worker holds: kombu's own consumers over a real Redis."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kombu
import pytest
from celery import Celery
from support.malformed import good, raw

from packetfs_compute.broker.letters import PUBLISHED, decoded
from packetfs_compute.names import LEDGER_OPEN

QUEUE = "packetfs.local"


@contextmanager
def holding(app: Celery, count: int, prefetch: int = 0) -> Iterator[list[Any]]:
    """Take that many messages as a worker does, and stop as one does."""
    got: list[Any] = []
    with app.connection_for_read() as connection:
        connection.transport.brpop_timeout = 0.2
        with connection.Consumer([kombu.Queue(QUEUE)], accept=["json"], on_message=got.append) as consumer:
            if prefetch:
                consumer.qos(prefetch_count=prefetch)
            for _ in range(count):
                connection.drain_events(timeout=5)
            yield got


def test_a_message_of_the_ledger_is_not_noted_again(
    app: Celery, redis_client: Any, commands: Callable[[], dict[str, int]]
) -> None:
    for number in range(2):
        app.tasks["packetfs.test"].delay(number)
    with holding(app, 2) as (first, second):
        assert redis_client.exists("unacked", "unacked_index") == 0
        redis_client.config_resetstat()
        first.ack()
        second.reject()
        assert commands() == {}
        assert redis_client.llen(QUEUE) == 0
    assert redis_client.llen(QUEUE) == 0
    assert redis_client.zcard(LEDGER_OPEN) == 2


def _of_others(app: Celery, redis_client: Any) -> None:
    app.tasks["others.test"].delay("u")


def _kept_out(app: Celery, redis_client: Any) -> None:
    app.tasks["packetfs.test"].apply_async(("u",), headers={"packetfs_ledger": False})


def _pushed_by_hand(app: Celery, redis_client: Any) -> None:
    redis_client.lpush(QUEUE, raw(good()))


@pytest.mark.parametrize("publish", [_of_others, _kept_out, _pushed_by_hand])
def test_any_other_message_is_noted(app: Celery, redis_client: Any, publish: Callable[[Celery, Any], None]) -> None:
    publish(app, redis_client)
    with holding(app, 1) as (message,):
        assert (redis_client.hlen("unacked"), redis_client.zcard("unacked_index")) == (1, 1)
        message.ack()
        assert redis_client.exists("unacked", "unacked_index") == 0


def test_what_another_redis_has_in_its_ledger_is_noted_in_this_one(
    make: Callable[..., Celery], redis_client: Any
) -> None:
    app = make(broker_transport_options={"packetfs_ledger": False})
    redis_client.lpush(QUEUE, raw({**good(), PUBLISHED: 1.0}))
    with holding(app, 1):
        assert redis_client.hlen("unacked") == 1


@pytest.mark.parametrize("publish", [lambda app, _: app.tasks["packetfs.test"].delay("u"), _kept_out])
def test_what_is_given_back_is_on_its_list_again(
    app: Celery, redis_client: Any, publish: Callable[[Celery, Any], None]
) -> None:
    publish(app, redis_client)
    taken = decoded(redis_client.lindex(QUEUE, 0))
    assert taken is not None
    with holding(app, 1) as (message,):
        assert redis_client.llen(QUEUE) == 0
        redis_client.lpush(QUEUE, b"another")
        message.requeue()
        given = decoded(redis_client.lindex(QUEUE, 0))  # behind the other: it has had its turn
    assert redis_client.llen(QUEUE) == 2
    assert redis_client.exists("unacked", "unacked_index") == 0
    assert given is not None
    assert given["headers"].pop("redelivered") is True
    assert given["properties"]["delivery_info"].pop("redelivered") is True
    assert given == taken


def test_a_worker_that_stops_gives_back_what_it_has_not_finished(app: Celery, redis_client: Any) -> None:
    ids = [app.tasks["packetfs.test"].apply_async(("u",), priority=priority).id for priority in (0, 0, 6)]
    with holding(app, 3) as got:
        done = next(message for message in got if message.headers["id"] == ids[0])
        done.ack()
        redis_client.lpush(QUEUE, b"another")
    other, item = redis_client.lrange(QUEUE, 0, -1)  # before the other: it was here first
    assert (other, decoded(item)["headers"]["id"]) == (b"another", ids[1])  # type: ignore[index]
    (item,) = redis_client.lrange(QUEUE + "\x06\x166", 0, -1)
    assert decoded(item)["headers"]["id"] == ids[2]  # type: ignore[index]
    assert redis_client.exists("unacked", "unacked_index") == 0


def test_what_is_held_counts_against_the_prefetch_limit(app: Celery, redis_client: Any) -> None:
    for number in range(3):
        app.tasks["packetfs.test"].delay(number)
    with holding(app, 2, prefetch=2) as got:
        with pytest.raises(TimeoutError):
            got[0].channel.connection.client.drain_events(timeout=0.3)
        assert redis_client.llen(QUEUE) == 1
        got[0].ack()
        got[0].channel.connection.client.drain_events(timeout=5)
        assert redis_client.llen(QUEUE) == 0
        assert len(got) == 3
