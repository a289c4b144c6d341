"""A range in this process: learn the object's size and version, and run all of it as one chain.

It is how a coordinator runs a chain whose windows would run on its machine, and the whole of a scan that runs alone, with no
broker. That one begins in a tenth of a second, so nothing here imports Celery or a Redis client.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from packetfs_compute.deadline import Deadline
from packetfs_compute.errors import BadPolicy, BrokerUnavailable, JobError, RangeNotSatisfiable, SourceFailed
from packetfs_compute.names import LOCAL
from packetfs_compute.scanning.chain import CHAIN_WINDOW, RING_BYTES, read_window, run_chain
from packetfs_compute.scanning.plan import Plan, plan_of
from packetfs_compute.scanning.recall import Marker
from packetfs_compute.scanning.request import Scan
from packetfs_compute.scanning.tally import Part, Progress, ScanResult, Speed, Tally, scan_result
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, open_source
from packetfs_compute.sources.ranges import beyond
from packetfs_compute.validation import bad

__all__ = ["Checkpoints", "chain_here", "chain_plan", "scan_here", "whole_range"]

_SIZE_TRIES: Final = 3
_AGAIN_S: Final = 0.5
_CHECKPOINT_S: Final = 1.0


class Checkpoints(Protocol):
    """Where it is kept how far a chain is. Each call may raise :class:`BrokerUnavailable`."""

    def keep_chain(self, position: int, so_far: Part) -> None:
        """Keep what the first ``position`` bytes came to."""

    def keep_tally(self, tally: Tally) -> None:
        """Keep what went wrong."""


def scan_here(scan: Scan, settings: Settings, tell: Callable[[Progress], object] = lambda _: None) -> ScanResult:
    """Run a scan in this process alone, with no broker: all of it as one chain."""
    started_s = time.monotonic()
    deadline = Deadline.after(scan.policy.deadline_s or settings.result_ttl_s)
    tally = Tally()
    try:
        _refuse_append_only(scan)
        plan = chain_plan(scan, whole_range(scan, deadline, settings, time.sleep))
        start = Part(tuple(op.identity for op in scan.program.ops), 0, LOCAL, settings.region)
        part = chain_here(scan, plan, (0, start), tally, deadline, settings, None, tell)
    except JobError as error:
        error.details.update(job_id=scan.id, attempts=tally.failed)
        raise
    parts = [part] if part.byte_count else []
    total_s = time.monotonic() - started_s
    return scan_result(scan, plan, part.values, parts, tally, queued_s=None, total_s=total_s)


def whole_range(scan: Scan, deadline: Deadline, settings: Settings, sleep: Callable[[float], object]) -> Plan:
    """Return all of the range as it is found now, in one window."""
    size, etag = _probe(scan, deadline, settings, sleep)
    length = _length(scan, size)
    return Plan(scan.program.offset, length, max(1, length), size, etag)


def chain_plan(scan: Scan, left: Plan) -> Plan:
    """Return the chain of a range: no window so wide that fewer than three would be in the ring."""
    window = min(scan.window or CHAIN_WINDOW, RING_BYTES // 3)
    return plan_of(left.offset, left.length, window, left.object_size, left.etag, chained_here=True)


def chain_here(
    scan: Scan,
    plan: Plan,
    start: tuple[int, Part],
    tally: Tally,
    deadline: Deadline,
    settings: Settings,
    state: Checkpoints | None,
    tell: Callable[[Progress], object],
    marker: Marker | None = None,
) -> Part:
    """Run a chain from ``start`` on, keeping how far it is where there is a ``state``; return what it came to."""
    speed, told_s = Speed(), deadline.clock()
    position, so_far = start

    def at(done: int, part: Part) -> None:
        nonlocal told_s
        if marker is not None:
            marker.passed(done, part.values)
        now = deadline.clock()
        if now - told_s < _CHECKPOINT_S and done < plan.length:
            return
        told_s = now
        if state is not None:
            with suppress(BrokerUnavailable):  # then more is done again, should it come to that
                state.keep_chain(done, part)
                state.keep_tally(tally)
        tell(speed.progress(now, plan, done, -(-done // plan.window), tally.failed_usd))

    tell(speed.progress(told_s, plan, position, -(-position // plan.window), 0.0))
    read = read_window(scan.program.data_url, plan, settings)
    try:
        return run_chain(
            scan.program.ops, plan, (position, so_far), read, deadline, settings, lambda one: tally.add([one], 0.0), at
        )
    except JobError as error:
        error.details["attempts"] = list(tally.failed)
        raise


def _refuse_append_only(scan: Scan) -> None:
    if scan.policy.append_only:
        fix = "leave it out, or run it on a system, without --inline"
        raise bad("policy.append_only", "is for scans that know of each other, and this one runs alone", fix, BadPolicy)


def _probe(
    scan: Scan, deadline: Deadline, settings: Settings, sleep: Callable[[float], object]
) -> tuple[int | None, str | None]:
    """Return the object's size and its strong ETag, as far as its source tells them, by a GET of one byte."""
    wanted = RangeRequest(scan.program.data_url, scan.program.offset, 0, scan.program.etag)
    tries = 0
    while True:
        budget_s = min(deadline.remaining_s(), settings.timeout_s)
        try:
            within = Deadline(deadline.clock() + budget_s, budget_s, deadline.clock, deadline.token)
            with open_source(wanted, within, settings) as stream:
                return stream.object_size, stream.etag
        except RangeNotSatisfiable as error:
            size = error.details.get("object_size")
            if size is None:
                raise
            raise beyond(replace(wanted, length=scan.program.length), size) from error  # it is not the one byte that is
        except JobError as error:
            tries += 1
            if tries > _SIZE_TRIES or not error.retryable:
                raise
            sleep(_AGAIN_S * tries)


def _length(scan: Scan, size: int | None) -> int:
    """Return how many bytes the scan is over."""
    offset, length = scan.program.offset, scan.program.length
    if size is None:
        if length is None:
            raise SourceFailed(
                "the source does not tell the object's size",
                {"retryable": False, "hint": "give a length, or submit it as one program"},
            )
        return length
    if offset + (length or 0) > size:
        raise beyond(RangeRequest(scan.program.data_url, offset, length), size)
    return size - offset if length is None else length
