"""Idle connections, kept a short while for the next window of the same scan.

Keyed by scheme, host and port, so that a connection is never shared across names: its address was vetted, and its
certificate proven, for that name alone. Bounded, safe between threads, and never carried across a fork, where two
processes would read each other's answers.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from packetfs_compute.sources.connection import Connection
from packetfs_compute.sources.guard import Target

__all__ = ["Pool"]

_Key = tuple[str, str, int]

_MAX_IDLE: Final = 64
_MAX_IDLE_PER_HOST: Final = 16
_IDLE_S: Final = 15.0


@dataclass(slots=True, weakref_slot=True)
class _Idle:
    """The idle connections of one process, the longest idle first."""

    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    entries: list[tuple[_Key, float, Connection]] = field(default_factory=list)

    def close(self) -> None:
        for _, _, connection in self.entries:
            connection.close()
        self.entries.clear()


class Pool:
    """Takes connections back and gives them out again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._idle = self._new()

    def take(self, target: Target) -> Connection | None:
        """Return an idle connection to the target's scheme, host and port that is still good, or ``None``."""
        key = _key(target)
        while True:
            with self._current().lock:
                stale = self._evict()
                connection = self._pop(key)
            _close(stale)
            if connection is None or connection.quiet:
                return connection
            connection.close()

    def give(self, target: Target, connection: Connection) -> None:
        """Keep ``connection``, on which nothing is under way, or close it when there is no room."""
        key = _key(target)
        idle = self._current()
        with idle.lock:
            stale = self._evict()
            if sum(entry[0] == key for entry in idle.entries) < _MAX_IDLE_PER_HOST:
                idle.entries.append((key, self._clock() + _IDLE_S, connection))
            else:
                stale.append(connection)
        _close(stale)

    def close(self) -> None:
        """Close every idle connection."""
        idle = self._current()
        with idle.lock:
            idle.close()

    def _pop(self, key: _Key) -> Connection | None:
        """Return the one that was used last: the likeliest to be alive."""
        entries = self._idle.entries
        for at in range(len(entries) - 1, -1, -1):
            if entries[at][0] == key:
                return entries.pop(at)[2]
        return None

    def _evict(self) -> list[Connection]:
        """Take out what is too old, and the oldest where there are too many; the caller closes them."""
        entries, now = self._idle.entries, self._clock()
        keep = [entry for entry in entries if entry[1] > now][-(_MAX_IDLE - 1) :]
        stale = [entry[2] for entry in entries if entry not in keep]
        entries[:] = keep
        return stale

    def _current(self) -> _Idle:
        if self._idle.pid != os.getpid():
            # In a child after fork: close its copies of the descriptors; the parent's connections live on.
            self._idle.close()
            self._idle = self._new()
        return self._idle

    def _new(self) -> _Idle:
        idle = _Idle()
        # A pool that is dropped, or the process's end, closes what is idle.
        weakref.finalize(self, idle.close)
        return idle


def _key(target: Target) -> _Key:
    return target.scheme, target.host, target.port


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
