"""The reading end: what the journal says of the last minutes, of the last day, of the last jobs and of breakers.

A step or an hour that is over never changes, since writers' counts are dated by the server's clock. So each is read once;
a look a second costs two round trips, of a handful of keys.
"""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.journal.counts import Tally, summed, tallies
from packetfs_compute.journal.scans import running
from packetfs_compute.journal.writer import HOURS, MOST_JOBS, STEP_S
from packetfs_compute.names import JOURNAL_DONE, JOURNAL_FAILED, JOURNAL_HOURS, JOURNAL_OPENED, JOURNAL_STEPS
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect

__all__ = ["STEPS", "JournalReader", "Reading", "open_reader"]

STEPS: Final = 150
"""Whole steps that are read: five minutes."""
_HOUR_S: Final = 3600
_FAILURES: Final = 10
"""Of the last jobs, so many are failures if there were any, however many have been done since."""


@dataclass(frozen=True)
class Reading:
    """What the journal says. ``steps`` are whole ones, the oldest first, the first of which began at ``begun``."""

    begun: float = 0.0
    """Unix seconds by the server's clock."""
    steps: tuple[dict[str, Tally], ...] = ({},) * STEPS
    """What ended in each, by substrate."""
    day: dict[str, Tally] = field(default_factory=dict)
    """What ended in the last whole :data:`HOURS` and the hour under way; without what attempts took."""
    jobs: tuple[dict[str, Any], ...] = ()
    """The last that ended, the newest first."""
    opened: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What opened each substrate's breaker last."""
    scans: tuple[dict[str, Any], ...] = ()
    """Those that run, the latest first."""


class JournalReader:
    """Reads the journal in the Redis of ``client``, and remembers what cannot change. May be used from many threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._steps = _Memory(JOURNAL_STEPS, STEPS)
        self._hours = _Memory(JOURNAL_HOURS, HOURS)
        self._lock = threading.Lock()

    def read(self) -> Reading:
        """Return what the journal says now; raises :class:`BrokerUnavailable` when its Redis does not answer."""
        with self._lock:
            try:
                return self._read()
            except (redis.RedisError, OSError) as error:
                raise BrokerUnavailable(f"the journal's Redis does not answer: {error}") from error

    def _read(self) -> Reading:
        now = int(self._client.time()[0])
        step, hour = now // STEP_S, now // _HOUR_S
        steps, hours = self._steps.unknown(step), self._hours.unknown(hour)
        with self._client.pipeline(transaction=False) as pipe:
            for key in (*map(self._steps.key, steps), *map(self._hours.key, hours), self._hours.key(hour)):
                pipe.hgetall(key)
            pipe.lrange(JOURNAL_DONE, 0, MOST_JOBS - 1)
            pipe.lrange(JOURNAL_FAILED, 0, MOST_JOBS - 1)
            pipe.hgetall(JOURNAL_OPENED)
            *hashes, done, failed, opened = pipe.execute()
        *hashes, this_hour = map(tallies, hashes)
        self._steps.learn(steps, hashes[: len(steps)])
        self._hours.learn(hours, hashes[len(steps) :])
        return Reading(
            begun=float((step - STEPS) * STEP_S),
            steps=self._steps.known(),
            day=summed([*self._hours.known(), this_hour]),
            jobs=_last(map(_job, done), map(_job, failed)),
            opened={name.decode(): json.loads(cause) for name, cause in opened.items()},
            scans=tuple(running(self._client)),
        )


class _Memory:
    """Parts of time that are over, the last ``most`` of them, each by its number."""

    def __init__(self, prefix: str, most: int) -> None:
        self._prefix = prefix
        self._most = most
        self._parts: dict[int, dict[str, Tally]] = {}

    def key(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def unknown(self, now: int) -> list[int]:
        """Forget what is too old at the part ``now``, and return what is to be read."""
        wanted = range(now - self._most, now)
        # A clock that went back would have parts written to again that were thought to be over.
        back = any(number >= now for number in self._parts)
        self._parts = {number: part for number, part in self._parts.items() if number in wanted and not back}
        return [number for number in wanted if number not in self._parts]

    def learn(self, numbers: Iterable[int], parts: Iterable[dict[str, Tally]]) -> None:
        self._parts.update(zip(numbers, parts, strict=True))

    def known(self) -> tuple[dict[str, Tally], ...]:
        return tuple(self._parts[number] for number in sorted(self._parts))


def open_reader(settings: Settings) -> JournalReader:
    """Return a reader of the journal in the Redis of ``settings``; nothing is connected yet."""
    return JournalReader(connect(settings))


def _last(done: Iterable[dict[str, Any]], failed: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return the last jobs of both lists, the newest first, with some failures among them."""
    failures = _newest(failed)
    kept = failures[:_FAILURES]
    others = _newest([*done, *failures[_FAILURES:]])
    return tuple(_newest([*kept, *others[: MOST_JOBS - len(kept)]]))


def _job(line: bytes) -> dict[str, Any]:
    """Return a job that was told of, with what an earlier version did not tell."""
    return {"cached": False, "window_of": None, "scan": None, **json.loads(line)}


def _newest(jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(jobs, key=lambda job: float(job["at"]), reverse=True)
