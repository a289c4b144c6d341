r"""Signatures of requests to an endpoint: who sent this, that it is whole, that it is new.

The header is ``X-PacketFS-Signature: v1;<key id>;<unix seconds>;<nonce>;<mac>``, its mac the hex HMAC-SHA256 over
``v1\nMETHOD\npath\nkey id\nseconds\nnonce\nhex sha256(body)``. Theory of operation of :class:`Verifier`:

- The header is parsed by ``[0-9]``, not ``\d``, and every part is bounded: what has no exact shape is refused unseen.
- The MAC is computed for an unknown key id as well, and compared in constant time: neither tells which ids there are.
- Only then is the time looked at, 60 s both ways, and only what passed that may enter the store of nonces: a stranger
  cannot fill it. A nonce is remembered for as long as its signature would be accepted.
- The store is bounded. When it is full, new requests are :class:`~packetfs_compute.errors.Busy`: forgetting one that is
  still good would let it be replayed. It is one process's: behind several, a request may be replayed once on each, which
  costs its work and changes nothing, since programs are pure.
"""

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from packetfs_compute.errors import Busy, ConfigurationError, Unauthorized

__all__ = ["HEADER", "WINDOW_S", "Verifier", "sign"]

HEADER: Final = "X-PacketFS-Signature"
WINDOW_S: Final = 60
"""How far the signer's clock may be from ours, in seconds, either way."""

_VERSION: Final = "v1"
_KEY_ID: Final = r"[A-Za-z0-9_-]{1,64}"
_NONCE: Final = r"[A-Za-z0-9_-]{16,64}"
_HEADER: Final = re.compile(rf"{_VERSION};({_KEY_ID});([0-9]{{1,12}});({_NONCE});([0-9a-f]{{64}})")
_PARTS: Final = re.compile(rf"({_KEY_ID});({_NONCE})")
_TARGET: Final = re.compile(r"[\x21-\x7e]{1,2048}")
"""A method or a path. A line break in it would let one signature stand for two requests."""
_NOBODYS: Final = "no key has this id"
_MAX_NONCES: Final = 200_000


def sign(method: str, path: str, body: bytes, key_id: str, secret: str, now: float, nonce: str) -> str:
    """Return the header's value for a request. ``now`` is Unix time; ``nonce``, 16 to 64 of ``A-Z a-z 0-9 _ -``, is new.

    Raises :class:`ValueError` for what could not be verified again.
    """
    if not _TARGET.fullmatch(method) or not _TARGET.fullmatch(path):
        raise ValueError("a method and a path are 1 to 2048 visible ASCII characters")
    if not _PARTS.fullmatch(f"{key_id};{nonce}") or not 0 <= now < 1e12:
        raise ValueError("a key id is 1 to 64, a nonce 16 to 64 of A-Z a-z 0-9 _ -, a time is Unix seconds")
    seconds = str(int(now))
    mac = _mac(secret, method, path, key_id, seconds, nonce, body)
    return f"{_VERSION};{key_id};{seconds};{nonce};{mac}"


class Verifier:
    """Accepts what one of ``keys``, each ``keyid:secret``, has signed. Safe to share between threads.

    ``clock`` gives Unix time; at most ``max_nonces`` requests are accepted within the window.
    """

    def __init__(
        self, keys: Iterable[str], clock: Callable[[], float] = time.time, max_nonces: int = _MAX_NONCES
    ) -> None:
        self._secrets: dict[str, str] = {}
        for key_id, _, secret in (key.partition(":") for key in keys):
            if key_id in self._secrets:
                hint = "each key has an id of its own; two live at once while one replaces the other"
                field = "PACKETFS_SIGNING_KEYS"
                raise ConfigurationError(f"{field} names {key_id!r} twice", {"field": field, "hint": hint})
            self._secrets[key_id] = secret
        self._clock = clock
        self._seen = _Nonces(max_nonces)

    def verify(self, method: str, path: str, body: bytes, header: str | None) -> str:
        """Return the id of the key that signed the request.

        Raises :class:`Unauthorized` for anything else, :class:`Busy` when no more requests can be remembered.
        """
        match = _HEADER.fullmatch(header) if header and len(header) <= 256 else None
        if match is None or not _TARGET.fullmatch(method) or not _TARGET.fullmatch(path):
            raise _refused("is missing" if not header else "has not the form of one", f"send {HEADER}")
        key_id, seconds, nonce, mac = match.groups()
        expected = _mac(self._secrets.get(key_id, _NOBODYS), method, path, key_id, seconds, nonce, body)
        genuine = hmac.compare_digest(mac, expected)
        if not genuine or key_id not in self._secrets:
            raise _refused("is not valid", "check that both ends have the same key")
        now, signed_at = self._clock(), int(seconds)
        if abs(now - signed_at) > WINDOW_S:
            when = "in the past" if signed_at < now else "in the future"
            raise _refused(f"is more than {WINDOW_S} s {when}", "set the clocks of both ends")
        self._seen.add(f"{key_id};{nonce}", signed_at + WINDOW_S, now)
        return key_id


class _Nonces:
    """What has been seen, by the second in which it may be forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._until: dict[int, set[str]] = {}
        self._count = 0
        self._forgotten = -1
        """The latest second whose nonces are forgotten: were the clock set back, they would be new again."""

    def add(self, nonce: str, until: int, now: float) -> None:
        with self._lock:
            for second in [second for second in self._until if second < now]:
                self._count -= len(self._until.pop(second))
                self._forgotten = max(self._forgotten, second)
            seen = self._until.get(until, set())
            if nonce in seen or until <= self._forgotten:
                raise _refused("was used before", "sign each request anew")
            if self._count >= self._limit:
                message = "more signed requests than can be remembered came within a minute"
                raise Busy(message, {"retry_after_s": 1.0})
            self._until.setdefault(until, seen).add(nonce)
            self._count += 1


def _mac(secret: str, method: str, path: str, key_id: str, seconds: str, nonce: str, body: bytes) -> str:
    lines = (_VERSION, method, path, key_id, seconds, nonce, hashlib.sha256(body).hexdigest())
    return hmac.new(secret.encode("utf-8"), "\n".join(lines).encode("ascii"), "sha256").hexdigest()


def _refused(why: str, hint: str) -> Unauthorized:
    return Unauthorized(f"the request's signature {why}", {"hint": hint})
