"""Who may come in: the key, its scopes, how often it may ask, and by which name it asks.

While there is no key at all, a gateway on loopback is open to whoever reaches it, but not to web pages: a page whose name
is made to resolve to 127.0.0.1 (DNS rebinding) gives itself away by its Host. The first key closes the gateway, and what
manages keys is never open.
"""

import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import redis
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.gateway.exposure import is_loopback
from packetfs_compute.gateway.keys import SCOPES, KeyStore, Scope
from packetfs_compute.gateway.problems import Refusal
from packetfs_compute.settings import Settings
from packetfs_compute.state import options
from packetfs_compute.validation import show

__all__ = ["Asked", "Caller", "Gate", "Limiter", "own_page"]

_OPEN_SCOPES: Final = frozenset(SCOPES) - {"admin"}
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a key by its id, or an address where none is needed."""

    id: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request decides whether it may come in."""

    authorization: str | None
    host: str
    address: str


class Limiter:
    """Counts requests in a window that moves, in Redis: all gateways of one system count together."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        pool = redis.ConnectionPool.from_url(settings.state_url, **options(settings))
        storage = RedisStorage("redis://", connection_pool=pool, key_prefix="packetfs:gateway:rates")
        self._rates = MovingWindowRateLimiter(storage)
        self._rate = RateLimitItemPerMinute(settings.gateway_requests_per_minute)
        self._clock = clock

    def count(self, who: str) -> None:
        """Count one request; raise the :class:`Refusal` that says when there is room again."""
        try:
            if self._rates.hit(self._rate, who):
                return
            room_at = self._rates.get_window_stats(self._rate, who).reset_time
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the Redis that counts requests does not answer: {error}") from error
        wait_s = max(1, math.ceil(room_at - self._clock()))
        raise Refusal(
            "busy",
            f"more than {self._rate.amount} requests in a minute",
            {"hint": f"ask again in {wait_s} s"},
            {"Retry-After": str(wait_s)},
        )


class Gate:
    """Lets callers in, or raises the :class:`Refusal` that says why not. Its calls block."""

    def __init__(self, settings: Settings, keys: KeyStore, limiter: Limiter) -> None:
        self._keys = keys
        self._limiter = limiter
        self._may_be_open = is_loopback(settings.gateway_host)

    def admit(self, asked: Asked, *any_of: Scope, anyone: bool = False) -> Caller:
        """Return who asks, when they may do what needs one of ``any_of``; ``anyone`` may who shows no key."""
        key, closed = self._keys.find(_bearer(asked.authorization))
        if key is not None:
            caller = Caller(f"key:{key.id}", frozenset(key.scopes))
        else:
            caller = Caller(f"address:{_network_of(asked.address)}", _OPEN_SCOPES)
        self._limiter.count(caller.id)
        if anyone and asked.authorization is None:
            return caller
        if key is None:
            if closed or not self._may_be_open:
                raise _no_key(asked.authorization)
            _check_host(asked.host)
        if not caller.scopes & {*any_of, "admin"}:
            raise Refusal(
                "forbidden",
                f"this needs the scope {' or '.join(any_of)}",
                {"hint": f"make such a key at the shell: packetfs keys add --scope {any_of[0]}"},
            )
        return caller


def own_page(origin: str, host: str) -> bool:
    """Return whether a page of ``origin`` came from ``host``, which is where the request was sent to."""
    return origin.partition("://")[2].lower() == host.lower()


def _bearer(authorization: str | None) -> str | None:
    kind, _, secret = (authorization or "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else None


def _no_key(authorization: str | None) -> Refusal:
    said = "no API key is given" if authorization is None else "the API key given is none of this gateway's"
    details = {"field": "Authorization", "hint": "send Authorization: Bearer pfs_…, made with `packetfs keys add`"}
    return Refusal("unauthorized", said, details, {"WWW-Authenticate": 'Bearer realm="packetfs"'})


def _check_host(host: str) -> None:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower() not in _LOCAL_NAMES and not is_loopback(name):
        raise Refusal(
            "forbidden",
            f"Host is {show(host)}, which is no name of this machine's loopback",
            {
                "field": "Host",
                "hint": "without keys only localhost and 127.0.0.1 are answered to; see `packetfs keys add`",
            },
        )


def _network_of(address: str) -> str:
    """Return an address as requests are counted by it: of IPv6 the /64, since each host has one to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
