"""kombu's Redis transport, with two things more: publishing enters a job in the ledger, and consuming vets each message.

*Publishing* is one round trip as before: a script enters the job and pushes its message. It is for tasks of this project
alone, and where the transport option ``packetfs_ledger`` says that this Redis is also the one that holds results.

*Consuming*: what BRPOP or RPOP gives of a queue of this project is asked whether it is a message
(:mod:`packetfs_compute.broker.messages`) before kombu parses it. One that is none goes on ``packetfs:rejected:<queue>``, and
kombu is told that there was nothing.
"""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from packetfs_compute.broker.entry import enter_arguments
from packetfs_compute.broker.ledger import ENTER
from packetfs_compute.broker.letters import ledger_id
from packetfs_compute.broker.messages import MAX_MESSAGE_BYTES, defect, defect_of_envelope, moment
from packetfs_compute.broker.rejected import set_aside
from packetfs_compute.broker.unacked import QoS
from packetfs_compute.names import LEDGER_FLAG, QUEUE_PREFIX

__all__ = ["Channel", "Transport", "polled"]

_log = logging.getLogger(__name__)

polled: Final[dict[str, float]] = {}
"""For each queue of this project that this process consumes, the monotonic time of the last answer to a blocking pop.

An empty answer counts: it comes every second. A worker whose slots are all taken asks for nothing meanwhile.
"""


class _VettingClient(redis.Redis):
    """A client that gives what it pops only if ``vet(key, item)`` lets it; ``answered`` hears of each blocking pop."""

    def __init__(
        self, *args: Any, vet: Callable[[Any, bytes], bool], answered: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._vet = vet
        self._answered = answered

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Read a reply. kombu sends BRPOP itself and comes here for what it gave."""
        reply = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name != "BRPOP":
            return reply
        self._answered()
        return reply if reply is None or self._vet(*reply) else None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command."""
        reply: Any = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return None if args[0] == "RPOP" and reply is not None and not self._vet(args[1], reply) else reply


class Channel(kombu_redis.Channel):
    """A channel of kombu's Redis transport that keeps the ledger and vets what it consumes."""

    from_transport_options = (*kombu_redis.Channel.from_transport_options, LEDGER_FLAG)

    packetfs_ledger = False
    """The transport option: whether the ledger is kept in this very Redis."""

    QoS = QoS

    _expires: dict[str, int]
    """kombu's: how long each queue with ``x-expires`` lives after its last use, in ms."""
    _kept: Any = None
    _q_for_pri: Any
    _do_restore_message: Any

    def _get_client(self) -> Any:
        client: Any = super()._get_client()  # type: ignore[misc]
        if client is not redis.Redis:  # with global_keyprefix; no setting of this project leads here
            return client
        return functools.partial(_VettingClient, vet=self._sound, answered=self._answered)

    def _sound(self, key: bytes | str, item: bytes) -> bool:
        name = key.decode() if isinstance(key, bytes) else key
        queue = name.rsplit(self.sep, 1)[0]  # without the priority
        if not queue.startswith(QUEUE_PREFIX):  # replies to remote control, or a queue of somebody else's tasks
            return True
        reason = defect(item)
        if reason is None:
            return True
        _log.warning("a message of %d bytes in %s was put aside: %s", len(item), queue, reason)
        set_aside(self._create_client(), queue, item, reason)
        return False

    def _answered(self) -> None:
        now = time.monotonic()
        polled.update((queue, now) for queue in self._active_queues if queue.startswith(QUEUE_PREFIX))

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Publish; a job is entered in the ledger first. Raises :class:`ValueError` for what a worker would put aside."""
        job_id = ledger_id(message["headers"]) if self.packetfs_ledger and not self.global_keyprefix else None
        if job_id is None:
            super()._put(queue, message, **options)
            return
        raw = dumps(message)
        if len(raw) > MAX_MESSAGE_BYTES:
            raise ValueError(f"the message has {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} can be sent")
        reason = defect_of_envelope(message)
        if reason is not None:
            raise ValueError(f"the message cannot be sent: {reason}")
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        keys, arguments = enter_arguments(job_id, key, raw, moment(message["headers"].get("eta")))
        lifetimes = [
            (self._q_for_pri(queue, step), self._expires[queue])
            for step in self.priority_steps
            if queue in self._expires
        ]
        batch = options.get("_publish_batch")
        if batch is not None:
            # In full: were its digest not known, the batch would have failed in its middle.
            batch.add("eval", ENTER.text, len(keys), *keys, *arguments)
            for lifetime in lifetimes:
                batch.add("pexpire", *lifetime)
            return
        client = self._create_client()
        ENTER(client, keys, arguments)
        for lifetime in lifetimes:
            client.pexpire(*lifetime)

    def put_back(self, raw: Any, exchange: str, routing_key: str, client: Any, leftmost: bool) -> None:
        """Put a message on its list again, as one that was delivered before; ``leftmost``: behind all others."""
        self._do_restore_message(raw, exchange, routing_key, client, leftmost)

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return a client: one for as long as its pool is the channel's, which a fork replaces.

        kombu makes one for each message that it sends, notes or acknowledges; that costs as much as all that the ledger
        does.
        """
        if asynchronous:  # to wait with: its connection is its own
            return super()._create_client(asynchronous)  # type: ignore[misc]
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[misc]
        return self._kept


class Transport(kombu_redis.Transport):
    """kombu's Redis transport over :class:`Channel`."""

    Channel = Channel
