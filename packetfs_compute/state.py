"""The Redis of shared state: how everything that keeps something there connects, and what its absence is called."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, ParamSpec, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.settings import Settings

__all__ = ["SILENCE_S", "connect", "options", "sent", "translated"]

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


@contextmanager
def sent(client: Any, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Iterator[Callable[[], Any]]:
    """Send a script and do not wait: calling what this gives returns its answer, or raises what running it raises.

    It must be one that may be run twice: where the connection has died, it is run again when its answer is asked for.
    """
    pool = client.connection_pool
    connection: Any = None
    unread = False

    def answer() -> Any:
        nonlocal unread
        if unread:
            unread = False
            with suppress(redis.ConnectionError, redis.TimeoutError):
                return connection.read_response()
        return script(keys, arguments)

    try:
        with suppress(redis.RedisError, OSError):  # running it will tell
            connection = pool.get_connection()
            # In full: were its digest not known, nobody would hear of it before he asks.
            connection.send_command("EVAL", script.script, len(keys), *keys, *arguments)
            unread = True
        yield answer
    finally:
        if connection is not None:
            if unread:  # or the next to use it would take this answer for his
                connection.disconnect()
            pool.release(connection)
