"""Scans that run, as the dashboard shows them: each says how far it is, and who has not for a while is not told of.

Each is a key of its own that ends by itself, so that who dies is forgotten; a set names them all.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import redis

from packetfs_compute.journal.ended import about
from packetfs_compute.names import JOURNAL_SCAN, JOURNAL_SCANS
from packetfs_compute.program import Program
from packetfs_compute.settings import Settings
from packetfs_compute.state import connect

__all__ = ["MOST_SCANS", "ScanBoard", "open_board", "running"]

MOST_SCANS: Final = 20
"""Scans that are told of at once."""
_TOLD_S: Final = 20
"""For how long a scan is told of that says nothing: longer than the ledger takes to have somebody go on with it."""
_SET_S: Final = 86_400
_SILENCE_S: Final = 2.0


class ScanBoard:
    """Where a scan worker says how far its scans are. It never raises: what Redis does not take is told a second later."""

    def __init__(self, client: redis.Redis, wall: Callable[[], float] = time.time) -> None:
        self._client: Any = client
        self._wall = wall

    def tell(self, job_id: str, program: Program, since: float, progress: Mapping[str, Any]) -> None:
        """Say how far a scan is that was begun at ``since`` (Unix seconds)."""
        told = {**about(job_id, program), "since": round(since, 3), "progress": dict(progress)}
        with suppress(redis.RedisError, OSError), self._client.pipeline(transaction=True) as pipe:
            pipe.set(JOURNAL_SCAN + job_id, json.dumps(told, allow_nan=False, separators=(",", ":")), ex=_TOLD_S)
            pipe.sadd(JOURNAL_SCANS, job_id)
            pipe.expire(JOURNAL_SCANS, _SET_S)
            pipe.execute()

    def end(self, job_id: str) -> None:
        """Tell of a scan no more."""
        with suppress(redis.RedisError, OSError), self._client.pipeline(transaction=True) as pipe:
            pipe.delete(JOURNAL_SCAN + job_id)
            pipe.srem(JOURNAL_SCANS, job_id)
            pipe.execute()


def open_board(settings: Settings) -> ScanBoard:
    """Return the board in the Redis of ``settings``; nothing is connected yet."""
    return ScanBoard(connect(settings, silence_s=_SILENCE_S, retries=0))


def running(client: Any) -> list[dict[str, Any]]:
    """Return the scans that say that they run, the latest first; those that have died meanwhile are dropped."""
    names = sorted(client.smembers(JOURNAL_SCANS))
    if not names:
        return []
    told = client.mget([JOURNAL_SCAN.encode() + name for name in names])
    dead = [name for name, one in zip(names, told, strict=True) if one is None]
    if dead:
        client.srem(JOURNAL_SCANS, *dead)
    found: list[dict[str, Any]] = [json.loads(one) for one in told if one is not None]
    return sorted(found, key=lambda one: float(one["since"]), reverse=True)[:MOST_SCANS]
