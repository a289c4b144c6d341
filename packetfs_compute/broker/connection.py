"""kombu's connection, with our transport where kombu would take its own for Redis.

URLs stay ``redis://``, ``rediss://`` and ``redis+socket://``, which every tool of Celery's can read.
"""

from typing import Any

import kombu
from kombu import connection as kombu_connection
from kombu.transport import redis as kombu_redis
from kombu.utils.collections import HashedSeq

from packetfs_compute.broker.transport import Transport
from packetfs_compute.names import LEDGER_FLAG

__all__ = ["Connection"]


class Connection(kombu.Connection):
    """A connection, and a maker of pools of such."""

    def get_transport_cls(self) -> Any:
        """Return the class of the transport."""
        found: Any = super().get_transport_cls()
        return Transport if found is kombu_redis.Transport else found

    @property
    def keeps_ledger(self) -> bool:
        """Whether a job is entered in the ledger by the very act of publishing over this connection."""
        options = self.transport_options or {}
        return bool(
            options.get(LEDGER_FLAG)
            and not options.get("global_keyprefix")
            and issubclass(self.get_transport_cls(), Transport)
        )

    def Pool(self, limit: int | None = None, **options: Any) -> kombu_connection.ConnectionPool:  # noqa: N802  (kombu's name)
        """Return a pool of connections of this kind; kombu's own would be of its kind."""
        return _Pool(self, limit, **options)

    def __eqhash__(self) -> Any:
        # kombu keeps one pool for all connections that are equal, whatever their class.
        return HashedSeq(LEDGER_FLAG, super().__eqhash__())


class _Pooled(kombu_connection.PooledConnection, Connection):  # type: ignore[misc]
    """A connection that goes back to its pool."""


class _Pool(kombu_connection.ConnectionPool):
    def new(self) -> Any:
        """Return another connection like the pool's."""
        described = dict(self.connection._info(resolve=False))  # noqa: SLF001
        return _Pooled(self, **described)
