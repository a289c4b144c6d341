"""Publishing enters a job, consuming vets a message: kombu's own producers and consumers over a real Redis."""

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kombu
import pytest
from celery import Celery
from support.malformed import GOOD_ID, MALFORMED, good, raw

from packetfs_compute.broker import rejected
from packetfs_compute.broker.entry import PATIENCE_S
from packetfs_compute.broker.letters import PUBLISHED, decoded
from packetfs_compute.broker.transport import Channel, Transport, polled
from packetfs_compute.names import LEDGER_JOBS, LEDGER_OPEN, LEDGER_RUNS, rejected_of

QUEUE = "packetfs.local"


def test_publishing_enters_the_job_in_the_same_round_trip(
    app: Celery, redis_client: Any, commands: Callable[[], dict[str, int]]
) -> None:
    job = app.tasks["packetfs.test"]
    job.apply_async(("first",), ignore_result=True)
    redis_client.config_resetstat()
    job_id = job.apply_async(("u",), ignore_result=True).id
    assert commands() == {"evalsha": 1, "time": 1, "zadd": 1, "hset": 1, "lpush": 1}
    item = redis_client.lindex(QUEUE, 0)
    assert redis_client.hget(LEDGER_JOBS, job_id) == QUEUE.encode() + b"\n" + item
    message = decoded(item)
    assert message is not None
    assert message["headers"]["id"] == job_id
    assert abs(message[PUBLISHED] - time.time()) < 5
    assert redis_client.zscore(LEDGER_OPEN, job_id) == pytest.approx(message[PUBLISHED] + PATIENCE_S, abs=1e-3)


def test_a_job_that_is_to_wait_is_looked_at_after_that(app: Celery, redis_client: Any) -> None:
    eta = datetime.now(UTC) + timedelta(hours=2)
    job_id = app.tasks["packetfs.test"].apply_async(("u",), eta=eta).id
    assert redis_client.zscore(LEDGER_OPEN, job_id) == pytest.approx(eta.timestamp() + PATIENCE_S, abs=1e-3)


@pytest.mark.parametrize(("priority", "key"), [(0, QUEUE), (3, QUEUE + "\x06\x163"), (9, QUEUE + "\x06\x169")])
def test_each_priority_has_its_list(app: Celery, redis_client: Any, priority: int, key: str) -> None:
    job_id = app.tasks["packetfs.test"].apply_async(("u",), priority=priority).id
    assert redis_client.llen(key) == 1
    assert redis_client.hget(LEDGER_JOBS, job_id).startswith(key.encode() + b"\n{")


def test_what_is_opted_out_or_of_others_is_not_entered(app: Celery, redis_client: Any) -> None:
    app.tasks["packetfs.test"].apply_async(("u",), headers={"packetfs_ledger": False})
    app.tasks["others.test"].delay("u")
    app.control.broadcast("ping")
    assert redis_client.llen(QUEUE) == 2
    assert redis_client.exists(LEDGER_OPEN, LEDGER_JOBS) == 0


def test_the_same_id_again_is_one_entry_and_keeps_its_runs(app: Celery, redis_client: Any) -> None:
    job = app.tasks["packetfs.test"]
    job.apply_async(("a",), task_id="j")
    redis_client.hset(LEDGER_RUNS, "j", 3)
    job.apply_async(("b",), task_id="j")
    assert redis_client.zcard(LEDGER_OPEN) == 1
    assert redis_client.hget(LEDGER_JOBS, "j").endswith(redis_client.lindex(QUEUE, 0))
    assert redis_client.hget(LEDGER_RUNS, "j") == b"3"


def test_a_batch_is_entered_whole(app: Celery, redis_client: Any) -> None:
    job = app.tasks["packetfs.test"]
    with app.producer_pool.acquire(block=True) as producer, producer.batch(100):
        for i in range(250):
            job.apply_async((i,), task_id=f"j{i}", producer=producer, ignore_result=True)
    assert redis_client.llen(QUEUE) == redis_client.zcard(LEDGER_OPEN) == redis_client.hlen(LEDGER_JOBS) == 250
    stamps = [decoded(item)[PUBLISHED] for item in redis_client.lrange(QUEUE, 0, -1)]  # type: ignore[index]
    assert stamps == sorted(stamps, reverse=True)


def test_a_server_that_lost_its_scripts_is_no_obstacle(app: Celery, redis_client: Any) -> None:
    job = app.tasks["packetfs.test"]
    job.delay(1)
    redis_client.script_flush()
    job.delay(2)
    assert redis_client.zcard(LEDGER_OPEN) == 2


def test_what_a_worker_would_put_aside_cannot_be_sent(app: Celery, redis_client: Any) -> None:
    job = app.tasks["packetfs.test"]
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    for publish in (
        lambda: job.delay("x" * (1 << 20)),
        lambda: job.delay(deep),
        lambda: job.apply_async(("u",), compression="bzip2"),
        lambda: job.apply_async(("u",), task_id="x" * 200),
        lambda: job.apply_async(("u",), eta="tomorrow"),
    ):
        with pytest.raises(ValueError, match="be sent"):
            publish()
    assert redis_client.exists(QUEUE, LEDGER_OPEN) == 0


@pytest.fixture
def consume(app: Celery) -> Any:
    """Take messages from a queue as a worker does, for as long as there are any."""

    def consumed(queue: str = QUEUE) -> list[Any]:
        got: list[Any] = []
        with app.connection_for_read() as connection:
            transport = connection.transport
            assert isinstance(transport, Transport)
            transport.brpop_timeout = 0.2
            consumer = connection.Consumer([kombu.Queue(queue)], accept=["json"], on_message=got.append)
            with consumer:
                quiet_since = time.monotonic()
                while time.monotonic() - quiet_since < 0.5:
                    before = len(got)
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)
                    if len(got) > before:
                        got[-1].ack()
                        quiet_since = time.monotonic()
        return got

    return consumed


def rejects(redis_client: Any, queue: str = QUEUE) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in redis_client.lrange(rejected_of(queue), 0, -1)]


def test_malformed_messages_are_moved_aside_and_the_good_ones_arrive(consume: Any, redis_client: Any) -> None:
    mixed = [item for bad in MALFORMED.values() for item in (bad, raw(good()))]
    redis_client.lpush(QUEUE, *mixed)
    got: list[Any] = []
    while redis_client.llen(QUEUE):
        got += consume()
    assert len(got) == len(MALFORMED)
    moved = rejects(redis_client)
    assert [entry["bytes"] for entry in moved] == [len(bad) for bad in MALFORMED.values()][::-1]
    for entry, bad in zip(moved, reversed(MALFORMED.values()), strict=True):
        assert entry["reason"]
        assert entry["queue"] == QUEUE
        assert abs(entry["at"] - time.time()) < 120
        assert bad.decode("utf-8", "backslashreplace").startswith(entry["message"])
        assert len(bad) > 10_000 or entry["message"] == bad.decode("utf-8", "backslashreplace")


def test_a_message_of_a_priority_is_moved_aside_for_its_queue(consume: Any, redis_client: Any) -> None:
    redis_client.lpush(QUEUE + "\x06\x166", b"garbage")
    assert consume() == []
    assert [entry["message"] for entry in rejects(redis_client)] == ["garbage"]


def test_asking_for_one_message_vets_it_too(app: Celery, redis_client: Any) -> None:
    redis_client.lpush(QUEUE, b"null", raw(good()), b"[]")
    with app.connection_for_read() as connection:
        queue = kombu.Queue(QUEUE)(connection.default_channel)
        queue.declare()
        got = [queue.get(no_ack=True) for _ in range(4)]
    assert [message and message.headers["id"] for message in got] == [None, GOOD_ID, None, None]
    assert len(rejects(redis_client)) == 2


def test_the_messages_of_others_are_their_own_affair(consume: Any, redis_client: Any) -> None:
    redis_client.lpush("others", raw({**good(), "headers": {}, "content-type": None}))
    assert len(consume("others")) == 1


def test_only_the_newest_rejects_are_kept(redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejected, "_MAX_KEPT", 3)
    for i in range(5):
        rejected.set_aside(redis_client, QUEUE, b"%d\xff" % i, "why")
    assert [entry["message"] for entry in rejects(redis_client)] == ["4\\xff", "3\\xff", "2\\xff"]


def test_each_answer_of_the_broker_is_noted(consume: Any) -> None:
    polled.clear()
    before = time.monotonic()
    consume()
    assert before < polled[QUEUE] <= time.monotonic()
    consume("others")
    assert list(polled) == [QUEUE]


def test_pooled_connections_and_clones_have_our_transport_and_keep_their_url(app: Celery) -> None:
    connection: Any = app.connection_for_write()
    with app.pool.acquire(block=True) as pooled, app.producer_pool.acquire(block=True) as producer:
        for one in (connection, connection.clone(), pooled, producer.connection):
            assert one.keeps_ledger
            assert one.get_transport_cls() is Transport
            assert one.as_uri() == app.conf.broker_url
        assert isinstance(producer.channel, Channel)
        assert producer.channel.packetfs_ledger is True


def test_kombus_own_connections_are_left_alone(app: Celery) -> None:
    theirs = kombu.Connection(app.conf.broker_url, transport_options=app.conf.broker_transport_options)
    ours: Any = app.connection_for_write()
    assert ours.__eqhash__() != theirs.__eqhash__()
    assert theirs.get_transport_cls() is kombu.transport.redis.Transport  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "keeps"),
    [
        ("redis://user:secret@host:6380/2", True),
        ("rediss://:secret@host:6379/0?ssl_cert_reqs=required", True),
        ("redis+socket:///run/redis.sock", True),
        ("amqp://mq", False),
        ("memory://", False),
    ],
)
def test_which_urls_keep_the_ledger(make: Callable[..., Celery], url: str, keeps: bool) -> None:
    connection: Any = make(broker_url=url).connection_for_write()
    assert connection.keeps_ledger is keeps
    assert "secret" not in connection.as_uri()
    assert (
        connection.as_uri(include_password=True).partition("?")[0].rstrip("/") == url.partition("?")[0].rstrip("/")
        or not keeps
    )


@pytest.mark.parametrize(
    "options", [{}, {"packetfs_ledger": False}, {"packetfs_ledger": True, "global_keyprefix": "x:"}]
)
def test_without_the_option_the_transport_keeps_none(make: Callable[..., Celery], options: dict[str, Any]) -> None:
    connection: Any = make(broker_transport_options=options).connection_for_write()
    assert connection.keeps_ledger is False


def test_a_queue_that_expires_lives_on_when_it_is_used(app: Celery, redis_client: Any) -> None:
    queue = kombu.Queue("packetfs.brief", expires=60)
    app.tasks["packetfs.test"].apply_async(("u",), queue=queue)
    with app.producer_pool.acquire(block=True) as producer, producer.batch(10):
        app.tasks["packetfs.test"].apply_async(("u",), queue=queue, producer=producer)
    assert redis_client.llen("packetfs.brief") == 2
    assert 0 < redis_client.pttl("packetfs.brief") <= 60_000
