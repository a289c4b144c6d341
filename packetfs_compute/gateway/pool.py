"""Bounds on what goes on at once: blocking calls in threads, answers that are kept open, equal submissions and readings."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Generic, ParamSpec, TypeVar

from packetfs_compute.errors import Busy, PacketFSError

__all__ = ["Fresh", "Streams", "Threads", "Turns"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_THREADS: Final = 32
_MOST_CALLS: Final = 512
_MOST_STREAMS: Final = 512
_MOST_STREAMS_EACH: Final = 64
_RETRY_AFTER_S: Final = 1


class Threads:
    """Runs blocking calls off the event loop. One more than ``most`` under way or waiting is refused."""

    def __init__(self, threads: int = _THREADS, most: int = _MOST_CALLS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gateway")
        self._most = most
        self._under_way = 0
        self._lock = threading.Lock()

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what ``function`` does, raise what it does, or :class:`Busy`."""
        with self._lock:
            if self._under_way >= self._most:
                raise Busy("the gateway has too much to do", {"retry_after_s": _RETRY_AFTER_S})
            self._under_way += 1
        running = self._pool.submit(function, *args, **kwargs)
        # Counted until the thread is free again, which may be later than when the caller gives up.
        running.add_done_callback(self._ended)
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ended(self, _: Future[Any]) -> None:
        with self._lock:
            self._under_way -= 1


class Streams:
    """Places for answers that are kept open: ``most`` in all, ``each`` for one caller. Used by the event loop alone."""

    def __init__(self, most: int = _MOST_STREAMS, each: int = _MOST_STREAMS_EACH) -> None:
        self._most = most
        self._each = each
        self._held: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are taken."""
        return self._held.total()

    def take(self, caller: str) -> None:
        """Take a place; raise :class:`Busy` when there is none."""
        if self.count >= self._most or self._held[caller] >= self._each:
            whose = "this caller has" if self._held[caller] >= self._each else "the gateway has"
            raise Busy(f"{whose} too many answers open", {"retry_after_s": _RETRY_AFTER_S})
        self._held[caller] += 1

    def give(self, caller: str) -> None:
        """Give a place back."""
        self._held[caller] -= 1
        if self._held[caller] <= 0:
            del self._held[caller]

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """Hold a place."""
        self.take(caller)
        try:
            yield
        finally:
            self.give(caller)


class Turns:
    """One at a time for each name. Used by the event loop alone."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Hold the turn of ``name``, when those who asked before are done."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._wanted[name] += 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[name] -= 1
            if self._wanted[name] == 0:
                del self._wanted[name], self._locks[name]


class Fresh(Generic[_T]):
    """One value for all who ask, read anew when it is ``age_s`` old. Used by the event loop alone.

    That it could not be read is such a value too: while Redis is away, a hundred who watch do not wait for it in turn.
    """

    def __init__(self, age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._age_s = age_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._read_at = -age_s
        self._value: _T | PacketFSError | None = None

    async def get(self, read: Callable[[], Awaitable[_T]]) -> _T:
        """Return what ``read`` did, not long ago; raise the :class:`PacketFSError` that it did."""
        async with self._lock:
            if self._value is None or self._clock() - self._read_at >= self._age_s:
                try:
                    self._value = await read()
                except PacketFSError as error:
                    self._value = error
                self._read_at = self._clock()
            value = self._value
        if isinstance(value, PacketFSError):
            raise value.with_traceback(None)  # which would grow with everyone who is told
        return value
