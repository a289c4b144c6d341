"""News of jobs: a wait that ends as soon as the state of one of them is stored, since storing it publishes it.

Nothing depends on it: who waits looks for himself after each wait, and where news cannot be had a wait lasts as long as it
may.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Any, Final

import redis

from packetfs_compute.names import JOB_STATE

__all__ = ["News", "news_of"]

_TOGETHER_S: Final = 0.01
"""What is stored within this is told of at once: who waits looks at many jobs each time."""
_MOST_TOGETHER: Final = 10_000


class News:
    """A subscription, for one thread. What is published is thrown away but for that it was."""

    def __init__(self, subscription: Any, pattern: str) -> None:
        self._subscription = subscription
        self._pattern = (JOB_STATE + pattern).encode()

    def wait(self, seconds: float) -> None:
        """Return once something was published after the last wait, and after ``seconds`` at the latest."""
        give_up_s = time.monotonic() + seconds
        time.sleep(min(seconds, _TOGETHER_S))
        try:
            heard = False
            while not heard and (left_s := give_up_s - time.monotonic()) > 0:
                heard = self._is_ours(self._subscription.get_message(timeout=left_s))
            for _ in range(_MOST_TOGETHER):
                if self._subscription.get_message(timeout=0.0) is None:
                    break
        except (redis.RedisError, OSError):
            time.sleep(max(0.0, give_up_s - time.monotonic()))

    def _is_ours(self, told: Any) -> bool:
        return told is not None and fnmatchcase(told["channel"], self._pattern)


@contextmanager
def news_of(client: Any, pattern: str) -> Iterator[News]:
    """Yield the news of all jobs whose ids match ``pattern``, a glob; ``client`` is redis-py's, of bytes.

    All jobs' news is subscribed to and looked through, since an ACL lets a pattern be subscribed to that stands in it word
    for word (``deploy/redis/users.acl``), and no other.
    """
    subscription = client.pubsub(ignore_subscribe_messages=True)
    with suppress(redis.RedisError, OSError):
        subscription.psubscribe(JOB_STATE + "*")
    try:
        yield News(subscription, pattern)
    finally:
        with suppress(redis.RedisError, OSError):
            subscription.close()
