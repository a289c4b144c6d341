"""A place of trust for what browsers say: the job system itself, asked for places of our own.

A check is a job like any other, so that the router finds it the best place, a worker's death loses it nothing, and whoever
watches sees it. Its policy asks for trust "own", which no place has that is a browser's: checks never lead back to browsers.
"""

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from packetfs_compute.errors import BrokerUnavailable, Internal, PacketFSError, error_class
from packetfs_compute.gateway.pool import Threads
from packetfs_compute.gateway.watching import ENDED, Jobs, Status
from packetfs_compute.wire import failure, job_id_of

__all__ = ["Trusted"]

_POLL_S: Final = (0.01, 0.25)
"""How often all open checks are looked at, together: at first, and when none has ended for a while."""
_GROWTH: Final = 1.3
_POLICY: Final = {"trust": "own"}
"""No deadline: one is kept by cancelling, and a place that seems too slow for it is better than none."""


class Trusted:
    """Computes requests of the wire as jobs of ``jobs``. Used by one event loop."""

    def __init__(self, jobs: Jobs, threads: Threads) -> None:
        self._jobs = jobs
        self._threads = threads
        self._open: dict[str, asyncio.Future[Status]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()

    async def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to ``request``; raise a :class:`PacketFSError` where the job system is away.

        Cancelling the call cancels the job.
        """
        job_id = f"check-{uuid.uuid4()}"
        ended = asyncio.get_running_loop().create_future()
        status = await self._threads.call(self._jobs.submit, job_id, request["program"], _POLICY)
        if status["status"] not in ENDED:
            self._open[job_id] = ended
            self._watch()
            try:
                status = await ended
            except asyncio.CancelledError:
                await asyncio.shield(self._cancel(job_id))
                raise
            finally:
                del self._open[job_id]
        return _answer(status, job_id_of(request))

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _cancel(self, job_id: str) -> None:
        with suppress(PacketFSError):  # it ends by its deadline
            await self._threads.call(self._jobs.cancel, job_id)

    def _watch(self) -> None:
        self._begun.set()
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._keep_looking())

    async def _keep_looking(self) -> None:
        """Look at all open checks at once, until there is none."""
        pause_s, longest_s = _POLL_S
        while self._open:
            self._begun.clear()
            with suppress(TimeoutError):  # a check that begins is looked at soon, however long the others take
                await asyncio.wait_for(self._begun.wait(), pause_s)
            if await self._look():
                pause_s = _POLL_S[0]
            pause_s = min(pause_s * _GROWTH, longest_s)

    async def _look(self) -> bool:
        """Tell those whose checks have ended; return whether there was any."""
        job_ids = list(self._open)
        try:
            statuses = await self._threads.call(self._jobs.statuses, job_ids)
        except PacketFSError:  # Redis is away: the checks that wait have their own deadlines
            return False
        found = False
        for job_id, status in zip(job_ids, statuses, strict=True):
            ended = self._open.get(job_id)
            if ended is None or ended.done():
                continue
            if status is None:
                ended.set_exception(BrokerUnavailable("a check was forgotten"))
            elif status["status"] in ENDED:
                ended.set_result(status)
            found = found or ended.done()
        return found


def _answer(status: Status, job_id: str | None) -> dict[str, Any]:
    """Return an ended job's status as the answer of the wire that a substrate would have given."""
    result, error = status["result"], status["error"]
    if result is None:
        known = error_class(error["type"])(error["message"]) if error else Internal("a check has no result")
        return failure(job_id, known, 0)
    fetch_s, compute_s = (result["timing"][part] for part in ("fetch_s", "compute_s"))
    return {
        "success": True,
        "jobId": job_id,
        "results": result["results"],
        "bytesProcessed": result["bytes_processed"],
        "objectSize": result["object_size"],
        "etag": result["etag"],
        "executionTimeMs": (fetch_s + compute_s) * 1000,
        "fetchTimeMs": fetch_s * 1000,
        "region": result["region"],
        "memoryUsedMb": None,
        "cache": None,
    }
