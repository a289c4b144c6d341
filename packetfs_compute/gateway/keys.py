"""API keys: made here, shown once, and kept in Redis as their SHA-256 with what they may do.

A key holds 256 random bits, so that its plain hash gives nothing away; and it is looked up by that hash, so that no
comparison's time depends on how much of it was guessed right.
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import redis

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect, translated

__all__ = ["MAX_NAME_CHARS", "SCOPES", "Key", "KeyStore", "Scope", "open_keys"]

Scope = Literal["submit", "read", "admin", "browser"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
MAX_NAME_CHARS: Final = 64

_translated: Final = translated("the keys'")
_KEYS: Final = "packetfs:gateway:keys"
"""A hash from a key's SHA-256, in hex, to what is known of it, as JSON."""
_SHAPE: Final = re.compile(r"pfs_[A-Za-z0-9_-]{43}")
_MAX_KEYS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: all but the key."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: float


class KeyStore:
    """The keys in the Redis of ``client``."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    @_translated
    def add(self, scopes: Iterable[Scope], name: str = "") -> tuple[str, Key]:
        """Make a key; return it, for the only time, and what is known of it."""
        wanted = frozenset(scopes)
        secret = f"pfs_{secrets.token_urlsafe(32)}"
        key = Key(secrets.token_hex(6), name, tuple(one for one in SCOPES if one in wanted), round(time.time(), 3))
        if self._client.hlen(_KEYS) >= _MAX_KEYS:
            details = {"field": "keys", "hint": "revoke what nobody uses: `packetfs keys list`"}
            raise ConfigurationError(f"there are {_MAX_KEYS} keys already", details)
        known = {"id": key.id, "name": key.name, "scopes": key.scopes, "created_at": key.created_at}
        self._client.hset(_KEYS, _digest(secret), json.dumps(known))
        return secret, key

    @_translated
    def find(self, secret: str | None) -> tuple[Key | None, bool]:
        """Return the key that ``secret`` is, if it is one, and whether there is any key at all; one round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hlen(_KEYS)
            if secret is not None and _SHAPE.fullmatch(secret):
                pipe.hget(_KEYS, _digest(secret))
            count, *stored = pipe.execute()
        return (_key(stored[0]) if stored and stored[0] is not None else None), bool(count)

    @_translated
    def all(self) -> list[Key]:
        """Return what is known of every key, the oldest first."""
        return sorted(map(_key, self._client.hvals(_KEYS)), key=lambda key: (key.created_at, key.id))

    @_translated
    def revoke(self, key_id: str) -> Key | None:
        """Forget a key, and return what was known of it; ``None`` where there is none of this id."""
        for digest, stored in self._client.hgetall(_KEYS).items():
            key = _key(stored)
            if key.id == key_id:
                self._client.hdel(_KEYS, digest)
                return key
        return None


def open_keys(settings: Settings) -> KeyStore:
    """Return the keys in the Redis of ``settings``; nothing is connected yet."""
    return KeyStore(connect(settings))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _key(stored: bytes) -> Key:
    known = json.loads(stored)
    return Key(known["id"], known["name"], tuple(known["scopes"]), known["created_at"])
