"""The Redis of shared state: how everything that keeps something there connects, and what its absence is called."""

import functools
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.settings import Settings

__all__ = ["SILENCE_S", "connect", "options", "translated"]

SILENCE_S: Final = 5.0
"""How long an answer is waited for."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def connect(settings: Settings, *, silence_s: float = SILENCE_S, retries: int = 1) -> redis.Redis:
    """Return a client of the Redis of ``settings``; nothing is connected yet.

    One more try, at once, is for a connection that was kept and has died meanwhile; ``retries=0`` is for what must not
    arrive twice.
    """
    return redis.Redis.from_url(settings.state_url, **options(settings, silence_s, retries))


def options(settings: Settings, silence_s: float = SILENCE_S, retries: int = 1) -> dict[str, Any]:
    """Return the same as redis-py's arguments, for who makes a pool of his own."""
    return {
        "socket_connect_timeout": min(settings.connect_timeout_s, silence_s),
        "socket_timeout": silence_s,
        "retry": Retry(NoBackoff(), retries),
    }


def translated(whose: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Return the decorator that gives redis-py's errors this package's name; ``whose`` Redis it is stands in the message."""

    def decorate(call: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(call)
        def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return call(*args, **kwargs)
            except (redis.RedisError, OSError) as error:
                raise BrokerUnavailable(f"{whose} Redis does not answer: {error}") from error

        return wrapper

    return decorate
