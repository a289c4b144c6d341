"""A chain in this process: a range's windows read side by side, and seen in order by all ops of a scan in one pass.

A few connections fetch windows ahead into a ring of buffers, of 48 MiB in all however wide the windows and however long the
range; one thread runs the kernels over them in order. The kernels let go of the GIL, and so does a socket that is read, so
that the slower of the two sets the pace. A window that fails and may pass is fetched anew alone.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Final, Protocol

from packetfs_compute import kernels
from packetfs_compute.deadline import Deadline, Token
from packetfs_compute.errors import Cancelled, JobError, SourceChanged
from packetfs_compute.names import LOCAL
from packetfs_compute.program import Op
from packetfs_compute.result import Attempt
from packetfs_compute.scanning.plan import Plan, Window
from packetfs_compute.scanning.tally import Part
from packetfs_compute.scanning.windows import changed_size
from packetfs_compute.settings import Settings
from packetfs_compute.sources import RangeRequest, open_source

__all__ = ["CHAIN_WINDOW", "RING_BYTES", "Read", "read_window", "run_chain"]

CHAIN_WINDOW: Final = 4 << 20
RING_BYTES: Final = 48 << 20
_CONNECTIONS: Final = 3
_MOST_BUFFERS: Final = 12
_MAX_TRIES: Final = 3
_AGAIN_S: Final = 0.25
_TURN_S: Final = 0.5


class Read(Protocol):
    """How a window is fetched: into a buffer, whole, or a ``JobError``. Called from several threads."""

    def __call__(self, window: Window, buffer: memoryview, deadline: Deadline) -> None:
        """Fill the first ``window.length`` bytes of ``buffer``."""


@dataclass(slots=True)
class _Reading:
    """A window on its way into a buffer."""

    window: Window
    buffer: memoryview
    arrived: "Future[None]"


def read_window(url: str, plan: Plan, settings: Settings) -> Read:
    """Return what fetches windows of the object at ``url``, each from the version that ``plan`` names."""

    def read(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        wanted = RangeRequest(url, window.offset, window.length, plan.etag)
        at = 0
        with open_source(wanted, deadline, settings) as stream:
            if changed_size(plan, stream.object_size):
                raise SourceChanged(f"the object has {stream.object_size} bytes, and had {plan.object_size} at first")
            for chunk in stream:
                buffer[at : at + len(chunk)] = chunk
                at += len(chunk)
                deadline.remaining_s()

    return read


def run_chain(
    ops: Sequence[Op],
    plan: Plan,
    start: tuple[int, Part | None],
    read: Read,
    deadline: Deadline,
    settings: Settings,
    failed: Callable[[Attempt], object],
    tell: Callable[[int, Part], object],
) -> Part:
    """Run ``ops`` over the plan's range in order and return what it came to.

    ``start`` is how many bytes are done, and what they came to. ``tell`` hears the same after every window, ``failed`` of
    each failed try to read one. Raises the ``JobError`` that it ended with; nothing of it goes on after that.
    """
    position, so_far = start
    part = so_far or Part(tuple(op.identity for op in ops), 0, LOCAL, settings.region)
    program = kernels.plan([(op.name, op.imm) for op in ops])
    stop = Token()
    fetch_by = replace(deadline, token=stop)
    windows = iter(plan.at(number) for number in range(-(-position // plan.window), plan.windows))
    ring = _ring(plan)
    reading: deque[_Reading] = deque()
    pool = ThreadPoolExecutor(_CONNECTIONS, "packetfs-chain")
    try:
        while True:
            while ring and (window := next(windows, None)) is not None:
                buffer = ring.pop()
                arrived = pool.submit(_fetch, window, buffer, read, fetch_by, settings, failed)
                reading.append(_Reading(window, buffer, arrived))
            if not reading:
                return part
            one = reading.popleft()
            fetch_s = _wait(one.arrived, deadline)
            started_s = time.perf_counter()
            values = program.run(one.buffer[: one.window.length], part.values)
            compute_s = part.compute_s + time.perf_counter() - started_s
            ring.append(one.buffer)
            done = part.byte_count + one.window.length
            part = replace(
                part, values=tuple(values), byte_count=done, fetch_s=part.fetch_s + fetch_s, compute_s=compute_s
            )
            tell(one.window.offset + one.window.length - plan.offset, part)
    finally:
        stop.cancel()
        pool.shutdown(cancel_futures=True)


def _ring(plan: Plan) -> list[memoryview]:
    count = max(2, min(_MOST_BUFFERS, RING_BYTES // plan.window, plan.windows))
    return [memoryview(bytearray(min(plan.window, max(plan.length, 1)))) for _ in range(count)]


def _wait(arrived: "Future[None]", deadline: Deadline) -> float:
    """Return how long was waited for a window; whoever cancels the scan is heard twice a second."""
    started_s = time.perf_counter()
    while not wait([arrived], min(_TURN_S, deadline.remaining_s())).done:
        pass
    arrived.result()
    return time.perf_counter() - started_s


def _fetch(
    window: Window,
    buffer: memoryview,
    read: Read,
    deadline: Deadline,
    settings: Settings,
    failed: Callable[[Attempt], object],
) -> None:
    """Fetch one window, anew where that may help; each try has as long as a job has."""
    tries = 0
    while True:
        started_s = deadline.clock()
        budget_s = min(deadline.remaining_s(), settings.timeout_s)
        try:
            read(window, buffer, Deadline(started_s + budget_s, budget_s, deadline.clock, deadline.token))
        except Cancelled:
            raise
        except JobError as error:
            tries += 1
            told = {"type": error.type, "message": error.message}
            failed({"substrate": LOCAL, "ok": False, "error": told, "seconds": round(deadline.clock() - started_s, 6)})  # type: ignore[typeddict-item]
            if tries > _MAX_TRIES or not error.retryable:
                raise
            time.sleep(min(_AGAIN_S * 2**tries, deadline.remaining_s()))
        else:
            return
