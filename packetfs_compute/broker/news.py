"""News of jobs: a wait that ends as soon as the state of one of them is stored, since storing it publishes it.

Nothing depends on it: who waits looks for himself after each wait, and where news cannot be had a wait lasts as long as it
may.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import redis

from packetfs_compute.names import JOB_STATE

__all__ = ["News", "news_of"]

_TOGETHER_S: Final = 0.01
"""What is stored within this is told of at once: who waits looks at many jobs each time."""


class News:
    """A subscription, for one thread. What is published is thrown away but for that it was."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    def wait(self, seconds: float) -> None:
        """Return once something was published after the last wait, and after ``seconds`` at the latest."""
        give_up_s = time.monotonic() + seconds
        time.sleep(min(seconds, _TOGETHER_S))
        try:
            while (left_s := give_up_s - time.monotonic()) > 0 and not self._heard(left_s):
                pass
            while self._heard(0.0):
                pass
        except (redis.RedisError, OSError):
            time.sleep(max(0.0, give_up_s - time.monotonic()))

    def _heard(self, within_s: float) -> bool:
        told = self._subscription.get_message(timeout=within_s)
        return told is not None and told["type"] in ("message", "pmessage")


@contextmanager
def news_of(client: Any, pattern: str) -> Iterator[News]:
    """Yield the news of all jobs whose ids match ``pattern``, a glob of Redis; ``client`` is redis-py's."""
    subscription = client.pubsub(ignore_subscribe_messages=True)
    with suppress(redis.RedisError, OSError):
        subscription.psubscribe(JOB_STATE + pattern)
    try:
        yield News(subscription)
    finally:
        with suppress(redis.RedisError, OSError):
            subscription.close()
