"""Many jobs at once where kombu has to carry them, and the errands that go along with results."""

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from packetfs_compute.broker import errands
from packetfs_compute.broker.bulk import Order, Publication
from packetfs_compute.broker.lua import Script
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.fleet import Leased
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.names import LEDGER_OPEN
from packetfs_compute.routing import Outcome
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_fleet

TASK = "packetfs.test"
HEADERS = {"packetfs_submitted_at": 1.5}

Make = Callable[..., Celery]


def orders(count: int) -> list[Order]:
    return [Order(f"j{n}", {"data_url": "https://host/object", "offset": n}, "packetfs.local") for n in range(count)]


def publish(app: Celery, some: list[Order], priority: int = 0) -> dict[str, ValueError]:
    publication = Publication(app, TASK, some, HEADERS, priority)
    publication.start()
    publication.finish()
    return publication.refused


class TestAnotherBroker:
    """One in memory stands for RabbitMQ: what matters is that it is not the Redis of the ledger."""

    def test_each_is_in_the_ledger_before_its_message_is_sent(
        self, make: Make, redis_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = make(broker_url="memory://", broker_transport_options={})
        known_when_sent: list[int] = []
        put = Connection("memory://").transport.Channel._put

        def noting(self: Any, queue: str, message: Any, **options: Any) -> None:
            known_when_sent.append(redis_client.zscore(LEDGER_OPEN, message["headers"]["id"]) is not None)
            put(self, queue, message, **options)

        monkeypatch.setattr("kombu.transport.memory.Channel._put", noting)
        assert publish(app, orders(3)) == {}
        assert known_when_sent == [True] * 3
        assert redis_client.zcard(LEDGER_OPEN) == 3

    def test_they_arrive_in_order_with_their_headers_and_priority(self, make: Make) -> None:
        app = make(broker_url="memory://", broker_transport_options={})
        publish(app, orders(3), 4)
        with app.connection_for_read() as connection, connection.SimpleQueue("packetfs.local") as queue:
            taken = [queue.get(block=False) for _ in range(3)]
        assert [message.headers["id"] for message in taken] == ["j0", "j1", "j2"]
        assert [message.payload[1]["offset"] for message in taken] == [0, 1, 2]
        assert {message.headers["packetfs_submitted_at"] for message in taken} == {1.5}
        assert {message.properties["priority"] for message in taken} == {4}

    def test_one_that_cannot_be_sent_is_refused_alone(self, make: Make, redis_client: Any) -> None:
        app = make(broker_url="memory://", broker_transport_options={})
        some = [*orders(1), Order("bad", {"offset": float("nan")}, "packetfs.local")]
        assert list(publish(app, some)) == ["bad"]
        assert redis_client.zrange(LEDGER_OPEN, 0, -1) == [b"j0"]


class TestWhoIsToBeTold:
    def test_where_each_that_is_sent_is_told_of_kombu_sends_them(self, make: Make, redis_client: Any) -> None:
        app = make(task_send_sent_event=True)
        with redis_client.pubsub(ignore_subscribe_messages=True) as listener:
            listener.psubscribe("*celeryev*")
            listener.get_message(timeout=5)
            publish(app, orders(2))
            heard = [one for _ in range(5) if (one := listener.get_message(timeout=0.3)) is not None]
        sent = [json.loads(base64.b64decode(json.loads(one["data"])["body"])) for one in heard]
        assert [(one["type"], one["uuid"]) for one in sent] == [("task-sent", "j0"), ("task-sent", "j1")]
        assert redis_client.llen("packetfs.local") == redis_client.zcard(LEDGER_OPEN) == 2


def backend_of(app: Celery) -> ResultBackend:
    assert isinstance(app.backend, ResultBackend)
    return app.backend


def note(key: str, value: str) -> errands.Errand:
    text = f"redis.call('RPUSH', KEYS[1], '{value}')"
    script = Script("store")
    digest = redis.Redis().register_script(text).sha
    assert digest != script.digest
    return errands.Errand(text, digest, [key], [])


class TestErrands:
    @pytest.fixture(autouse=True)
    def _none_left(self) -> Any:
        yield
        errands.clear()

    def test_one_is_taken_only_where_a_result_follows(self) -> None:
        assert not errands.put(note("notes", "a"))
        with errands.along_with_result():
            assert errands.put(note("notes", "b"))
        assert not errands.put(note("notes", "c"))
        assert len(errands.pending()) == 1

    def test_it_is_run_before_the_result_is_seen(self, make: Make, redis_client: Any) -> None:
        backend = backend_of(make())
        with errands.along_with_result():
            errands.put(note("notes", "a"))
        assert redis_client.llen("notes") == 0
        backend.store_result("j", {"value": 1}, "SUCCESS")
        assert redis_client.lrange("notes", 0, -1) == [b"a"]
        assert backend.get_state("j") == "SUCCESS"
        backend.store_result("k", {"value": 1}, "SUCCESS")
        assert redis_client.llen("notes") == 1

    def test_one_that_fails_takes_no_result_with_it(self, make: Make, redis_client: Any) -> None:
        backend = backend_of(make())
        redis_client.set("notes", "no list")
        with errands.along_with_result():
            errands.put(note("notes", "a"))
        backend.store_result("j", {"value": 1}, "SUCCESS")
        assert backend.get_state("j") == "SUCCESS"

    def test_an_attempt_that_is_recorded_with_a_result_is_as_one_that_is_recorded_alone(
        self, make: Make, redis_settings: Settings
    ) -> None:
        backend, fleet = (
            backend_of(make()),
            open_fleet(redis_settings, [one.capabilities for one in load_fleet(redis_settings)]),
        )
        ok = Outcome(ok=True, byte_count=1000, seconds=0.5, cost_usd=0.25)
        healths = []
        for entrusted in (False, True):
            leased = Leased("local", "j")
            assert fleet.begin(leased, 1000.0)
            assert fleet.snapshot(1000.0).members[0].health.in_flight == 1
            if entrusted:
                with errands.along_with_result():
                    errands.put(errands.Errand(*fleet.recording(leased, ok, 1000.0)))
                backend.store_result("j", {"value": 1}, "SUCCESS")
            else:
                fleet.record(leased, ok, 1000.0)
            healths.append(fleet.snapshot(1000.0).members[0].health)
            backend.client.flushall()
        assert healths[0] == healths[1]
        assert (healths[1].attempts, healths[1].byte_count, healths[1].in_flight) == (1, 1000, 0)

    def test_they_are_each_threads_own(self) -> None:
        seen: list[int] = []
        with errands.along_with_result():
            errands.put(note("notes", "a"))
            other = threading.Thread(
                target=lambda: seen.extend([len(errands.pending()), errands.put(note("notes", "b"))])
            )
            other.start()
            other.join()
        assert seen == [0, False]
