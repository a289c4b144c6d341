"""kombu's Redis ``QoS``, which notes no message whose job the ledger has anyway.

kombu writes each message that it takes into ``unacked``, and out of it again when it is acknowledged: two transactions, a
third of all that a worker tells Redis of a job. What is noted there is delivered again when a worker has died, after the
visibility timeout, which is over the longest job. The sweeper publishes an open job again seconds after its lease has
ended, and also where the worker died between taking the message and noting it. So a message that was entered in this
Redis's ledger is remembered in this process alone: to count it against the prefetch limit, and to put it back on its list
when the worker stops, or a pool process of it is lost.

Messages of others, of jobs that are kept out of the ledger, and what a publisher without one has pushed are noted as ever.
"""

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import QoS as MemoryQoS

from packetfs_compute.broker.letters import PUBLISHED

__all__ = ["QoS"]


class QoS(kombu_redis.QoS):
    """Messages that were taken and not acknowledged yet."""

    channel: Any
    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember a message."""
        if self._in_ledger(message):
            MemoryQoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message: it is done with."""
        if self._in_ledger(self._delivered.get(delivery_tag)):
            MemoryQoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget a message, and put it back on its list if it is to be delivered again."""
        if self._in_ledger(self._delivered.get(delivery_tag)) and not requeue:
            MemoryQoS.ack(self, delivery_tag)
        else:
            super().reject(delivery_tag, requeue)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back on its list."""
        message = self._delivered.get(tag)
        if not self._in_ledger(message):
            super().restore_by_tag(tag, client, leftmost)
            return
        info = message.delivery_info
        with self.channel.conn_or_acquire(client) as connected:
            self.channel.put_back(message._raw, info["exchange"], info["routing_key"], connected, leftmost)  # noqa: SLF001

    def _in_ledger(self, message: Any) -> bool:
        """Whether the ledger of this Redis has the message's job; it stamps what it enters."""
        return message is not None and self.channel.packetfs_ledger and PUBLISHED in message._raw  # noqa: SLF001
