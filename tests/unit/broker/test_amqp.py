"""Where the broker is not the Redis that holds results, a job is entered there before it is published."""

from collections.abc import Callable
from typing import Any

import kombu
import pytest
from celery import Celery, group

from packetfs_compute.broker.amqp import publish_parcel, queue_length
from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.letters import decoded, read_body, read_letter
from packetfs_compute.names import LEDGER_OPEN

QUEUE = "packetfs.local"


@pytest.fixture
def app(make: Callable[..., Celery]) -> Celery:
    """An application whose broker is in this process's memory, and whose results are in Redis."""
    return make(broker_url="memory://", broker_transport_options={"polling_interval": 0.01})


def waiting(app: Celery) -> list[Any]:
    """Take everything that waits."""
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[QUEUE](connection.default_channel)
        return list(iter(lambda: queue.get(no_ack=True), None))


def test_a_job_is_entered_with_what_it_takes_to_publish_it_again(
    app: Celery, ledger: Ledger, redis_client: Any
) -> None:
    job = app.tasks["packetfs.test"]
    job.apply_async(("u",), {"offset": 1}, task_id="j", priority=3, headers={"mine": [1]})
    seconds, _ = redis_client.time()
    assert 55 < redis_client.zscore(LEDGER_OPEN, "j") - seconds <= 61
    _, (entry,) = ledger.due(10, seconds + 100)
    assert entry.key == ""
    envelope = decoded(entry.message)
    assert envelope is not None
    assert read_letter(envelope).queue == QUEUE
    (first,) = waiting(app)
    publish_parcel(app, envelope)
    (again,) = waiting(app)
    assert again.decode() == first.decode() == [["u"], {"offset": 1}, read_body(envelope)[2]]
    assert again.headers == first.headers
    for name in ("priority", "correlation_id", "reply_to", "delivery_mode"):
        assert again.properties[name] == first.properties[name]
    assert redis_client.zcard(LEDGER_OPEN) == 1


def test_every_way_to_publish_enters(app: Celery, ledger: Ledger) -> None:
    job = app.tasks["packetfs.test"]
    group(job.s(i) for i in range(3)).apply_async()
    app.send_task("packetfs.test", args=["u"])
    assert ledger.open_count() == 4
    app.send_task("others.test", args=["u"])
    job.apply_async(("u",), headers={"packetfs_ledger": False})
    assert ledger.open_count() == 4
    assert queue_length(app, QUEUE) == 6


def test_what_a_worker_could_not_take_cannot_be_sent(app: Celery, ledger: Ledger) -> None:
    job = app.tasks["packetfs.test"]
    for publish in (lambda: job.delay("x" * (1 << 20)), lambda: job.apply_async(("u",), task_id="x" * 200)):
        with pytest.raises(ValueError, match="cannot be sent"):
            publish()
    assert ledger.open_count() == queue_length(app, QUEUE) == 0


def test_a_queue_that_is_not_there_is_empty(app: Celery) -> None:
    assert queue_length(app, "packetfs.none") == 0


def test_without_redis_for_results_there_is_no_ledger(make: Callable[..., Celery], redis_client: Any) -> None:
    app = make(broker_url="memory://", result_backend="cache+memory://")
    app.tasks["packetfs.test"].delay("u")
    assert redis_client.keys() == []


def test_a_connection_of_the_callers_own_enters_too(
    make: Callable[..., Celery], ledger: Ledger, redis_client: Any
) -> None:
    app = make()
    with kombu.Connection(app.conf.broker_url) as theirs:
        app.tasks["packetfs.test"].apply_async(("u",), connection=theirs)
    assert ledger.open_count() == redis_client.llen(QUEUE) == 1
