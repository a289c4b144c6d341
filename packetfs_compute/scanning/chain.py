"""A chain in this process: a range's windows seen in order by all ops of a scan in one pass, and read side by side.

It begins with one connection, whose bytes go through the kernels as they come, in the cache, with nothing copied. That is
the least that a byte can cost, so where the source keeps this thread busy it stays so: more connections would take the CPU
from a source on the same machine, or find none free. Where it mostly waits, which is what a distant source makes it do, it
goes *wide*.

A few connections then fetch windows ahead into a ring of buffers, of 48 MiB in all however wide the windows and however long
the range; one thread runs the kernels over them in order. The kernels let go of the GIL, and so does a socket that is read,
so that the slower of the two sets the pace. Where no operation needs the order, whoever has fetched a window runs the
kernels over it, and only values are joined in order. A window that fails and may pass is fetched anew alone.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeVar

from packetfs_compute import kernels
from packetfs_compute.deadline import Deadline, Token
from packetfs_compute.errors import Cancelled, JobError, SourceChanged
from packetfs_compute.names import LOCAL
from packetfs_compute.program import Op
from packetfs_compute.result import Attempt
from packetfs_compute.scanning.combine import joined
from packetfs_compute.scanning.plan import Plan, Window, changed_size
from packetfs_compute.scanning.tally import Part
from packetfs_compute.settings import Settings
from packetfs_compute.sources import ByteStream, RangeRequest, open_source

__all__ = ["CHAIN_WINDOW", "RING_BYTES", "Read", "read_window", "run_chain"]

_T = TypeVar("_T")

CHAIN_WINDOW: Final = 4 << 20
RING_BYTES: Final = 48 << 20
_CONNECTIONS: Final = 3
_TRIED: Final = 4
"""So many windows are read before it is known whether the source keeps this thread busy."""
_BUSY: Final = 0.1
"""It does where this part of the time is CPU time: on an idle machine some 150 MB/s."""
_SPAN: Final = 4
"""Windows read by one request where it does."""
_MOST_BUFFERS: Final = 12
_MAX_TRIES: Final = 3
_AGAIN_S: Final = 0.25
_TURN_S: Final = 0.5


class Read(Protocol):
    """How a window is fetched: whole, or a ``JobError``. Called from several threads."""

    def fill(self, window: Window, buffer: memoryview, deadline: Deadline) -> None:
        """Fill the first ``window.length`` bytes of ``buffer``."""

    def each(self, window: Window, take: Callable[[memoryview], object], deadline: Deadline) -> None:
        """Give ``take`` the window's bytes in order, in chunks, each of which is valid only as long as it runs."""


@dataclass(slots=True)
class _Reading:
    """A window on its way into a buffer; where no operation needs the order, on its way to what it came to alone."""

    window: Window
    buffer: memoryview
    arrived: "Future[_Came | None]"


@dataclass(frozen=True, slots=True)
class _Came:
    """What bytes came to, and how long the kernels took."""

    values: Sequence[int]
    compute_s: float


@dataclass(frozen=True, slots=True)
class _Chain:
    """All that stays the same from window to window."""

    ops: Sequence[Op]
    program: kernels.Plan
    plan: Plan
    read: Read
    deadline: Deadline
    settings: Settings
    failed: Callable[[Attempt], object]
    tell: Callable[[int, Part], object]


@dataclass(frozen=True, slots=True)
class _Reader:
    url: str
    plan: Plan
    settings: Settings

    def fill(self, window: Window, buffer: memoryview, deadline: Deadline) -> None:
        with self._opened(window, deadline) as stream:
            stream.fill(buffer[: window.length])

    def each(self, window: Window, take: Callable[[memoryview], object], deadline: Deadline) -> None:
        with self._opened(window, deadline) as stream:
            for chunk in stream:
                take(chunk)
                deadline.remaining_s()

    def _opened(self, window: Window, deadline: Deadline) -> ByteStream:
        wanted = RangeRequest(self.url, window.offset, window.length, self.plan.etag)
        stream = open_source(wanted, deadline, self.settings)
        if changed_size(self.plan, stream.object_size):
            stream.close()
            raise SourceChanged(f"the object has {stream.object_size} bytes, and had {self.plan.object_size} at first")
        return stream


def read_window(url: str, plan: Plan, settings: Settings) -> Read:
    """Return what fetches windows of the object at ``url``, each from the version that ``plan`` names."""
    return _Reader(url, plan, settings)


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

    ``start`` is how many bytes are done, and what they came to. ``tell`` hears the same after every window or some,
    ``failed`` of each failed try to read one. Raises the ``JobError`` that it ended with; nothing of it goes on after that.
    """
    position, so_far = start
    part = so_far or Part(tuple(op.identity for op in ops), 0, LOCAL, settings.region)
    program = kernels.plan([(op.name, op.imm) for op in ops])
    chain = _Chain(ops, program, plan, read, deadline, settings, failed, tell)
    position, part = _narrow(chain, position, part)
    return _wide(chain, position, part) if position < plan.length else part


def _narrow(chain: _Chain, position: int, part: Part) -> tuple[int, Part]:
    """Read on one connection for as long as that keeps this thread busy; return how far it came, and what that is."""
    plan, tried, busy_s, all_s = chain.plan, 0, 0.0, 0.0
    while position < plan.length and (tried < _TRIED or busy_s > _BUSY * all_s):
        length = min((1 if tried < _TRIED else _SPAN) * plan.window, plan.length - position)
        window = replace(plan.at(position // plan.window), length=length)
        busy_before_s, started_s = time.thread_time(), time.perf_counter()
        came = _retried(chain, partial(_streamed, chain, window, part.values), chain.deadline)
        took_s = time.perf_counter() - started_s
        busy_s, all_s, tried = busy_s + time.thread_time() - busy_before_s, all_s + took_s, tried + 1
        position += length
        part = _after(part, came, length, took_s - came.compute_s)
        chain.tell(position, part)
    return position, part


def _streamed(chain: _Chain, window: Window, values: Sequence[int], deadline: Deadline) -> _Came:
    compute_s = 0.0

    def take(chunk: memoryview) -> None:
        nonlocal values, compute_s
        started_s = time.perf_counter()
        values = chain.program.run(chunk, values)
        compute_s += time.perf_counter() - started_s

    chain.read.each(window, take, deadline)
    return _Came(values, compute_s)


def _wide(chain: _Chain, position: int, part: Part) -> Part:
    """Read the rest on a few connections, ahead."""
    plan, ordered = chain.plan, any(op.name == "fnv64" for op in chain.ops)
    stop = Token()
    fetch_by = replace(chain.deadline, token=stop)
    windows = iter(plan.at(number) for number in range(-(-position // plan.window), plan.windows))
    ring = _ring(plan, _MOST_BUFFERS if ordered else _CONNECTIONS + 1)
    reading: deque[_Reading] = deque()
    pool = ThreadPoolExecutor(_CONNECTIONS, "packetfs-chain")

    def fetched(window: Window, buffer: memoryview) -> _Came | None:
        _retried(chain, partial(chain.read.fill, window, buffer), fetch_by)
        return None if ordered else _computed(chain, buffer[: window.length], [op.identity for op in chain.ops])

    try:
        while True:
            while ring and (window := next(windows, None)) is not None:
                buffer = ring.pop()
                reading.append(_Reading(window, buffer, pool.submit(fetched, window, buffer)))
            if not reading:
                return part
            one = reading.popleft()
            length = one.window.length
            fetch_s = _wait(one.arrived, chain.deadline)
            came = one.arrived.result()
            if came is None:
                came = _computed(chain, one.buffer[:length], part.values)
            else:
                came = replace(came, values=joined(chain.ops, part.values, came.values, length))
            ring.append(one.buffer)
            part = _after(part, came, length, fetch_s)
            chain.tell(one.window.offset + length - plan.offset, part)
    finally:
        stop.cancel()
        pool.shutdown(cancel_futures=True)


def _computed(chain: _Chain, data: memoryview, values: Sequence[int]) -> _Came:
    started_s = time.perf_counter()
    return _Came(chain.program.run(data, values), time.perf_counter() - started_s)


def _after(part: Part, came: _Came, length: int, fetch_s: float) -> Part:
    return replace(
        part,
        values=tuple(came.values),
        byte_count=part.byte_count + length,
        fetch_s=part.fetch_s + fetch_s,
        compute_s=part.compute_s + came.compute_s,
    )


def _ring(plan: Plan, most: int) -> list[memoryview]:
    count = max(2, min(most, RING_BYTES // plan.window, plan.windows))
    return [memoryview(bytearray(min(plan.window, max(plan.length, 1)))) for _ in range(count)]


def _wait(arrived: "Future[_Came | None]", deadline: Deadline) -> float:
    """Return how long was waited for a window; whoever cancels the scan is heard twice a second."""
    started_s = time.perf_counter()
    while not wait([arrived], min(_TURN_S, deadline.remaining_s())).done:
        pass
    return time.perf_counter() - started_s


def _retried(chain: _Chain, attempt: Callable[[Deadline], _T], deadline: Deadline) -> _T:
    """Return what ``attempt`` does, made anew where that may help; each has as long as a job has."""
    tries = 0
    while True:
        started_s = deadline.clock()
        budget_s = min(deadline.remaining_s(), chain.settings.timeout_s)
        try:
            return attempt(Deadline(started_s + budget_s, budget_s, deadline.clock, deadline.token))
        except Cancelled:
            raise
        except JobError as error:
            tries += 1
            told = {"type": error.type, "message": error.message}
            seconds = round(deadline.clock() - started_s, 6)
            chain.failed({"substrate": LOCAL, "ok": False, "error": told, "seconds": seconds})  # type: ignore[typeddict-item]
            if tries > _MAX_TRIES or not error.retryable:
                raise
            time.sleep(min(_AGAIN_S * 2**tries, deadline.remaining_s()))
