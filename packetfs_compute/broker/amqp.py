"""How the ledger is plugged into Celery: whatever publishes a task through the application enters it.

- :class:`AMQP` makes our connections, whose transport enters a job as it publishes. Where the broker is not the Redis that
  holds results (RabbitMQ, another Redis), it enters each job there itself, one round trip before its message is published.
- :class:`Loader` has the application take our result backend where Celery would take its own for Redis.
"""

from collections.abc import Mapping
from typing import Any, Final

import kombu
from celery import Celery
from celery.app import amqp as celery_amqp
from celery.loaders.app import AppLoader
from kombu.utils.json import dumps
from kombu.utils.uuid import uuid

from packetfs_compute.broker.connection import Connection
from packetfs_compute.broker.letters import ledger_id, read_body
from packetfs_compute.broker.messages import MAX_MESSAGE_BYTES, defect_of_envelope, moment
from packetfs_compute.broker.results import ResultBackend

__all__ = ["AMQP", "Loader", "publish_parcel", "queue_length"]

_PATIENCE_S: Final = 60.0
"""How long after its publication a job is looked at that another broker carries: of its queue only the length is known."""
_KEPT: Final = ("priority", "correlation_id", "reply_to", "delivery_mode")
"""Properties that a publication is repeated with."""


class AMQP(celery_amqp.AMQP):
    """Celery's way to the broker, by which no job is published that is not in the ledger."""

    Connection = Connection
    BrokerConnection = Connection

    def _create_task_sender(self) -> Any:
        send: Any = super()._create_task_sender()  # type: ignore[misc]

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            connection = producer.connection
            if not (isinstance(connection, Connection) and connection.keeps_ledger):
                backend = self.app.backend
                if isinstance(backend, ResultBackend):  # no Redis for results, no ledger
                    producer = _EnteringProducer(producer, backend)
            return send(producer, name, message, **options)

        return send_task_message


class _EnteringProducer:
    """A kombu producer that enters each job before it publishes."""

    def __init__(self, producer: Any, backend: ResultBackend) -> None:
        self._producer = producer
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        headers = options.get("headers") or {}
        job_id = ledger_id(headers)
        if job_id is not None:
            parcel = _parcel(body, headers, options)
            raw = dumps(parcel)
            reason = (
                f"it has {len(raw)} bytes" if len(raw) > MAX_MESSAGE_BYTES else defect_of_envelope(parcel)
            )  # what a worker behind Redis would put aside is no better behind another broker
            if reason is not None:
                raise ValueError(f"the message cannot be sent: {reason}")
            self._backend.enter(job_id, raw, moment(headers.get("eta")), _PATIENCE_S)
        return self._producer.publish(body, **options)


def _parcel(body: Any, headers: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return a publication in the form of an envelope, of which :func:`publish_parcel` can make it again."""
    exchange = options.get("exchange") or ""
    return {
        "body": dumps(body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            **{name: options[name] for name in _KEPT if name in options},
            "delivery_tag": uuid(),
            "delivery_info": {
                "exchange": exchange.name if isinstance(exchange, kombu.Exchange) else exchange,
                "routing_key": options.get("routing_key"),
            },
        },
    }


def publish_parcel(app: Celery, envelope: Mapping[str, Any]) -> None:
    """Publish what was kept of a publication once more. Raises kombu's errors."""
    args, kwargs, embedded = read_body(envelope)
    properties = envelope["properties"]
    to = properties["delivery_info"]
    with app.producer_or_acquire() as producer:
        producer.publish(
            [args, kwargs, embedded],
            exchange=to["exchange"],
            routing_key=to["routing_key"],
            headers=dict(envelope["headers"]),
            serializer="json",
            declare=[] if to["exchange"] else [app.amqp.queues[to["routing_key"]]],
            retry=True,
            retry_policy=app.conf.task_publish_retry_policy,
            **{name: properties[name] for name in _KEPT if name in properties},
        )


def queue_length(app: Celery, queue: str) -> int:
    """Return how many messages wait in a queue, whatever the broker: 0 where there is no such queue."""
    with app.connection_or_acquire() as connection:
        try:
            return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
        except connection.channel_errors:
            return 0


class Loader(AppLoader):
    """Celery's loader of an application, which knows our result backend by the names of Celery's own for Redis."""

    override_backends = dict.fromkeys(("redis", "rediss"), f"{ResultBackend.__module__}:{ResultBackend.__qualname__}")
