"""Publish many jobs: messages made of one template, entered and pushed by the hundred in one round trip.

kombu makes each message anew, in some hundred microseconds of one CPU. Of jobs of one task all but the ids, the arguments
and the queue is the same, so Celery makes the message of one, and the others are filled in. What a worker takes off
its queue is what ``delay()`` would have put there; a test compares the two.

The ledger's guarantee is that of a single publish: one script enters jobs and pushes their messages, and a script runs as
a whole or not at all. So whenever the publisher is killed, a job is either known and published, or neither.

Where another broker carries the messages, or Celery is to tell of each that was sent, kombu publishes them one by one.
"""

import json
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from celery import Celery
from kombu.exceptions import EncodeError
from kombu.transport.redis import PRIORITY_STEPS
from kombu.utils.json import dumps

from packetfs_compute.broker.connection import Connection
from packetfs_compute.broker.envelope import PERSISTENT, SHOWN_CHARS
from packetfs_compute.broker.ledger import Batch, Entering
from packetfs_compute.broker.messages import MAX_MESSAGE_BYTES, defect_of_envelope
from packetfs_compute.broker.results import ResultBackend

__all__ = ["Order", "Publication"]

_ID, _TAG, _BODY, _SHOWN = "{1}", "{2}", "{3}", "{4}"
"""Places in the template for what is each job's own; see :meth:`packetfs_compute.broker.ledger.Batch`."""
_PRIORITY_SEPARATOR: Final = "\x06\x16"
_MAX_ARGUMENT_CHARS: Final = MAX_MESSAGE_BYTES // 2
"""As base64 they take a third more."""
_encode: Final = json.JSONEncoder(allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Order:
    """A job to publish: its id, which its publisher chose, its task's keyword arguments as JSON, where it goes."""

    job_id: str
    arguments: Mapping[str, Any]
    queue: str


class Publication:
    """Jobs of one task, made ready to be published: :meth:`start` sends them, :meth:`finish` waits until they are.

    Between the two the server works, and the next ones can be made ready. Their ids must differ. Where kombu has to carry
    them, ``start`` does all. Both raise what Redis and kombu raise, after as many tries as for a result: then of each 250
    jobs of a queue all are published or none. Whoever will not ``finish`` has to ``abandon``.
    """

    def __init__(
        self,
        app: Celery,
        task: str,
        orders: Sequence[Order],
        headers: Mapping[str, Any],
        priority: int = 0,
        reply_to: str | None = None,
    ) -> None:
        self.refused: dict[str, ValueError] = {}
        """Why a job cannot be sent, by its id; complete when it has been finished."""
        self._app = app
        self._backend: Any = app.backend
        common = headers, priority, reply_to or app.thread_oid
        self._plain = (task, orders, *common)
        self._entering: Entering | None = None
        self._batches: list[Batch] | None = None
        if _keeps_ledger(app):
            queues = self._parts(orders, _embedded(app, task))
            suffix = _list_suffix(priority)
            self._batches = [
                Batch(queue + suffix, _template(app, task, queue, *common), jobs) for queue, jobs in queues.items()
            ]

    def start(self) -> None:
        """Send them."""
        if self._batches is None:
            self.refused.update(_one_by_one(self._app, *self._plain))
        elif self._batches:
            entering = Entering(self._backend.client, self._batches)
            with suppress(*self._backend.connection_errors):  # finish() tries again
                entering.start()
                self._entering = entering

    def finish(self) -> None:
        """Wait until they are published; where their way is lost, send them again: what has arrived is passed over."""
        if not self._batches:
            return
        entering, self._entering = self._entering, None
        if entering is not None:
            with suppress(*self._backend.connection_errors):
                entering.finish()
                return
        self._backend.ensure(self._backend.ledger.enter_many, (self._batches,))

    def abandon(self) -> None:
        """Do not wait."""
        if self._entering is not None:
            self._entering.abandon()
            self._entering = None

    def _parts(self, orders: Sequence[Order], embedded: str) -> dict[str, list[tuple[str, ...]]]:
        """Return what is each job's own, by their queues."""
        tags = uuid.uuid4().hex
        queues: dict[str, list[tuple[str, ...]]] = {}
        for at, order in enumerate(orders):
            try:
                arguments = _arguments(order)
            except ValueError as error:
                self.refused[order.job_id] = error
                continue
            body = b64encode(f"[[], {arguments}, {embedded}]".encode()).decode("ascii")
            parts = order.job_id, f"{tags}.{at}", body, encode_basestring_ascii(arguments[:SHOWN_CHARS])[1:-1]
            queues.setdefault(order.queue, []).append(parts)
        return queues


def _keeps_ledger(app: Celery) -> bool:
    """Whether publishing is pushing on lists of the very Redis that has the ledger, and nobody is to be told of it."""
    connection = app.connection_for_write()  # not opened: it only knows how it would be
    return (
        isinstance(connection, Connection)
        and connection.keeps_ledger
        and isinstance(app.backend, ResultBackend)
        and not app.conf.task_send_sent_event
        and not app.conf.task_compression
    )


def _arguments(order: Order) -> str:
    """Return a job's arguments as JSON; raise :class:`ValueError` where they have none, or too much."""
    try:
        text = _encode(order.arguments)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if len(text) > _MAX_ARGUMENT_CHARS:
        raise ValueError(f"its arguments have {len(text)} characters; at most {_MAX_ARGUMENT_CHARS} can be sent")
    return text


def _template(app: Celery, task: str, queue: str, headers: Mapping[str, Any], priority: int, reply_to: str) -> str:
    """Return the message that jobs have in common; raise :class:`ValueError` for one that a worker would put aside."""
    made = _made(app, task, _ID, {}, _SHOWN, reply_to)
    envelope = {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**made.headers, **headers},
        "properties": {
            **made.properties,
            "delivery_mode": PERSISTENT,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": _TAG,
        },
    }
    reason = defect_of_envelope({**envelope, "body": b64encode(dumps(made.body).encode()).decode()})
    if reason is not None:
        raise ValueError(f"the message cannot be sent: {reason}")
    return dumps(envelope)


def _embedded(app: Celery, task: str) -> str:
    """Return the options that stand in a message's body, as JSON."""
    return dumps(_made(app, task, _ID, {}, _SHOWN, "").body[2])


def _made(app: Celery, task: str, job_id: str, arguments: Mapping[str, Any], shown: str, reply_to: str) -> Any:
    """Have Celery make a message, as ``delay()`` does."""
    amqp: Any = app.amqp
    registered = app.tasks.get(task)
    limits = {name: getattr(registered, name, None) for name in ("time_limit", "soft_time_limit")}
    return amqp.create_task_message(
        job_id, task, (), arguments, argsrepr="()", kwargsrepr=shown, reply_to=reply_to, ignore_result=False,
        create_sent_event=bool(app.conf.task_send_sent_event), **limits,
    )  # fmt: skip


def _list_suffix(priority: int) -> str:
    """Return what follows a queue's name in that of its list (kombu.transport.redis, ``_q_for_pri``)."""
    step = max(step for step in PRIORITY_STEPS if step <= priority)
    return f"{_PRIORITY_SEPARATOR}{step}" if step else ""


def _one_by_one(
    app: Celery, task: str, orders: Sequence[Order], headers: Mapping[str, Any], priority: int, reply_to: str
) -> dict[str, ValueError]:
    refused: dict[str, ValueError] = {}
    amqp: Any = app.amqp
    with app.producer_or_acquire() as producer, producer.batch():
        for order in orders:
            try:
                message = _made(app, task, order.job_id, order.arguments, _arguments(order)[:SHOWN_CHARS], reply_to)
                amqp.send_task_message(
                    producer, task, message, queue=order.queue, headers=dict(headers), priority=priority
                )
            except (EncodeError, ValueError) as error:  # nothing of it is in the batch yet
                refused[order.job_id] = ValueError(str(error))
    return refused
