"""What a client waits for results with: one channel tells it of all that it has published.

Celery subscribes to each result before it publishes, and unsubscribes when it has come: two commands a job on both ends, a
fifth to a quarter of the CPU that a job which is quick costs its client. Here a message says by which channel its client
hears (``reply_to``), and whoever stores its result tells that channel too. A client subscribes once, in the thread that
publishes.

A result that this client did not publish itself, or not with its channel, is subscribed to as in Celery when it is waited
for. Nothing depends on the news alone: a waiting client looks at what is stored now and then.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from celery.backends.redis import ResultConsumer as CeleryResultConsumer  # type: ignore[attr-defined]
from celery.result import AsyncResult
from redis import RedisError

from packetfs_compute.names import REPLIES

__all__ = ["Mark", "ResultConsumer"]

_LOOK_S: Final = 1.0
"""After so long with no news a waiting client looks at what is stored; then after twice as long, and so on."""
_LONGEST_LOOK_S: Final = 30.0
Mark = tuple[str, int]
"""A channel that a job tells of its end, and the period of it that the job was published in."""
_MARK: Final = "packetfs_heard"
"""The attribute of a handle that holds its mark."""
_UNMARKED: Final[Mark] = ("", 0)


class ResultConsumer(CeleryResultConsumer):  # type: ignore[misc]
    """What waits for results: for the news of them, and now and then by a look at what is stored.

    Celery looks once, and then goes by the news alone. It subscribes on one connection and looks on another without waiting
    for either to have happened, so a server that is busy may do the look first, then store the result and tell those who
    have subscribed, and only then subscribe the one who asks. News is also lost with its connection.

    Where the channel was heard since before a job was published, and no news can have been missed since, not even that one
    look is needed. A time without a gap is a *period*, counted by a number.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.channel = self._new_channel()
        """What messages give as ``reply_to``."""
        self._period = 0
        self._heard_by: Any = None
        """The subscription that the channel was entered in; another one in its place knows nothing of it."""
        self._alone: set[str] = set()
        """Ids of results that are subscribed to by themselves."""

    @staticmethod
    def _new_channel() -> str:
        return f"{REPLIES}{uuid.uuid4()}"

    def hear(self) -> None:
        """Subscribe to the channel unless it is heard. Raises what Celery raises where it cannot subscribe."""
        if self._heard_by is not None and self._heard_by is self._pubsub:
            return
        with self._locked():
            key = self._get_key_for_task(self.channel)
            self.subscribed_to.discard(key)  # by a connection that is gone
            super().consume_from(self.channel)
            self._heard_by = self._pubsub
            self._period += 1

    def mark(self) -> Mark:
        """Return what :meth:`put` gives the handles of jobs that are going to be published with this channel."""
        return self.channel, self._period

    @staticmethod
    def put(mark: Mark, handles: Iterable[Any]) -> None:
        """Mark the handles of jobs that were published."""
        for handle in handles:
            setattr(handle, _MARK, mark)

    def consume_from(self, task_id: str) -> None:
        """Have the news of a result told to this client: by its channel, if all who wait for the result published it."""
        waiting = [one for each in self._pending_results for one in list(each.get(task_id, {}).values())]
        if waiting and all(self._mark_of(one)[0] == self.channel for one in waiting):
            self.hear()
        else:
            self._alone.add(task_id)
            super().consume_from(task_id)

    def cancel_for(self, task_id: str) -> None:
        """Do not wait for a result any more."""
        if task_id in self._alone:
            self._alone.discard(task_id)
            super().cancel_for(task_id)

    def on_wait_for_pending(self, result: Any, **options: Any) -> None:
        """Look at what is stored, unless it cannot be there without this client having been told."""
        if self._mark_of(result) != (self.channel, self._period):
            super().on_wait_for_pending(result, **options)

    def on_state_change(self, meta: Any, message: Any) -> None:
        """Take the news of a result."""
        super().on_state_change(meta, message)
        kept = self._pending_messages  # of results that nobody waits for yet
        if kept.total >= kept.maxsize:  # and of these the oldest are forgotten
            self._period += 1

    def on_after_fork(self) -> None:
        """Begin anew in a child process: the channel is the parent's."""
        super().on_after_fork()
        self.channel = self._new_channel()
        self._heard_by = None
        self._period += 1

    def _reconnect_pubsub(self) -> None:
        super()._reconnect_pubsub()
        self._period += 1  # it has subscribed again, but what was told meanwhile is lost

    @staticmethod
    def _mark_of(result: Any) -> Mark:
        mark: Mark = getattr(result, _MARK, _UNMARKED) if isinstance(result, AsyncResult) else _UNMARKED
        return mark

    def _wait_for_pending(
        self, result: Any, timeout: float | None = None, on_interval: Callable[[], object] | None = None, **kwargs: Any
    ) -> Any:
        wait_s, period = _LOOK_S, self._period
        due = time.monotonic() + wait_s

        def look() -> None:
            nonlocal wait_s, due, period
            if self._period != period or time.monotonic() >= due:
                period = self._period
                with suppress(RedisError, OSError):  # the news may still come
                    CeleryResultConsumer.on_wait_for_pending(self, result, **kwargs)
                wait_s = min(2 * wait_s, _LONGEST_LOOK_S)
                due = time.monotonic() + wait_s
            if on_interval is not None:
                on_interval()

        return super()._wait_for_pending(result, timeout=timeout, on_interval=look, **kwargs)
