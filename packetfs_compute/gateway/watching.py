"""What the gateway needs of jobs, and a job watched until it changes: what long polls and event streams are made of."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

__all__ = ["ENDED", "Jobs", "Status", "Watch"]

Status = Mapping[str, Any]
"""A job's status as :mod:`packetfs_compute.desk` gives it."""

ENDED: Final = frozenset({"done", "failed", "cancelled"})
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_GROWTH: Final = 1.5


class Jobs(Protocol):
    """The way into the system that the gateway needs: what :class:`packetfs_compute.desk.Desk` is. Its calls block."""

    def submit(self, job_id: str, program: object, policy: object = None, priority: int = 0) -> Status:
        """Submit a job, or return the status of the same one that is known already."""

    def submit_scan(
        self, job_id: str, program: object, window: object = None, policy: object = None, priority: int = 0
    ) -> Status:
        """Submit a scan, or return the status of the same one that is known already."""

    def status(self, job_id: str) -> Status | None:
        """Return a job's status; ``None`` where nobody knows of one."""

    def statuses(self, job_ids: Sequence[str]) -> Sequence[Status | None]:
        """Return the status of each, in order."""

    def cancel(self, job_id: str) -> Status | None:
        """Cancel a job that has not ended, and return its status."""


class Watch:
    """Asks for one job's status, at first often, then each second. ``over`` says when nobody wants to know any more."""

    def __init__(self, read: Callable[[], Awaitable[Status | None]], over: Callable[[], Awaitable[bool]]) -> None:
        self._read = read
        self._over = over
        self._pause_s = _FIRST_PAUSE_S

    async def changed(self, before: Status | None, patience_s: float) -> Status | None:
        """Return the status once it is not ``before``, or what it is after ``patience_s``; ``None``: it is forgotten."""
        give_up = time.monotonic() + patience_s
        while True:
            now = await self._read()
            left_s = give_up - time.monotonic()
            if now != before or left_s <= 0 or await self._over():
                return now
            await asyncio.sleep(min(self._pause_s, left_s))
            self._pause_s = min(self._pause_s * _GROWTH, _LONGEST_PAUSE_S)

    async def ended(self, before: Status, patience_s: float) -> Status | None:
        """Return the status once the job has ended, or what it is after ``patience_s``."""
        give_up = time.monotonic() + patience_s
        now: Status | None = before
        while now is not None and now["status"] not in ENDED:
            left_s = give_up - time.monotonic()
            if left_s <= 0 or await self._over():
                break
            now = await self.changed(now, left_s)
        return now
