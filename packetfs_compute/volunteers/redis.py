"""Reputations in Redis: what one hub learns all know, and a restart forgets nothing.

Keys: ``packetfs:volunteers:account:NAME`` is an account's reputation (a hash), ``…:kept:NAME`` its results that no place
of trust has confirmed (a list of JSON, the newest first), ``…:doubts:ORIGIN`` who could not read a source and when (a
sorted set), ``…:spent:TOKEN`` what may not be used again.
"""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import redis

from packetfs_compute.settings import Settings
from packetfs_compute.state import connect, translated
from packetfs_compute.volunteers.base import CLOSED_S, DOUBTED_S, KEPT_S, MAX_KEPT
from packetfs_compute.volunteers.trust import Event, Reputation

__all__ = ["RedisReputations", "open_reputations"]

_translated: Final = translated("the reputations'")
_PREFIX: Final = "packetfs:volunteers"
_MOMENTS: Final = frozenset({"failed_at", "banned_at"})


def open_reputations(settings: Settings) -> "RedisReputations":
    """Return the reputations in the Redis of ``settings``; nothing is connected yet."""
    return RedisReputations(connect(settings))


class RedisReputations:
    """The reputations of all hubs that share ``client``'s Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._record = client.register_script(_lua("record"))
        self._keep = client.register_script(_lua("keep"))
        self._take = client.register_script(_lua("take"))
        self._doubt = client.register_script(_lua("doubt"))

    @_translated
    def get(self, account: str) -> Reputation:
        """Return what is known of an account."""
        pairs = self._client.hgetall(f"{_PREFIX}:account:{account}")
        return _built([part for pair in pairs.items() for part in pair])

    @_translated
    def record(self, account: str, event: Event, byte_count: int, now: float) -> Reputation:
        """Learn how an answer fared."""
        return _built(self._record([f"{_PREFIX}:account:{account}"], [event, byte_count, repr(now)]))

    @_translated
    def keep(self, account: str, result: Mapping[str, Any]) -> None:
        """Keep an unconfirmed result."""
        self._keep([f"{_PREFIX}:kept:{account}"], [json.dumps(result), MAX_KEPT, KEPT_S])

    @_translated
    def take(self, account: str) -> list[dict[str, Any]]:
        """Return what was kept, and forget it."""
        return [json.loads(result) for result in self._take([f"{_PREFIX}:kept:{account}"])]

    @_translated
    def closed(self, origin: str, now: float) -> bool:
        """Return whether browsers cannot read this source."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zcount(f"{_PREFIX}:doubts:{origin}", f"({now - CLOSED_S!r}", "+inf")
            pipe.zcount(f"{_PREFIX}:doubts:{origin}", f"({now - DOUBTED_S!r}", "+inf")
            ever, lately = pipe.execute()
        return bool(ever > 1 or lately)

    @_translated
    def doubt(self, origin: str, network: str, now: float) -> None:
        """Learn that a browser could not read this source."""
        self._doubt([f"{_PREFIX}:doubts:{origin}"], [network, repr(now), CLOSED_S])

    @_translated
    def spend(self, token: str, until: float, now: float) -> bool:
        """Return whether ``token`` is spent for the first time."""
        lives_s = max(1, int(until - now) + 1)
        return bool(self._client.set(f"{_PREFIX}:spent:{token}", "1", nx=True, ex=lives_s))


def _lua(name: str) -> str:
    return (resources.files("packetfs_compute.volunteers") / "scripts" / f"{name}.lua").read_text("utf-8")


def _built(flat: list[Any]) -> Reputation:
    texts = [part.decode() if isinstance(part, bytes) else part for part in flat]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    known: dict[str, Any] = {name: float(value) if name in _MOMENTS else int(value) for name, value in pairs}
    return Reputation(**known)
