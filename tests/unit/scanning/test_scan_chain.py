"""A chain in this process: in order whatever comes first, ahead but bounded, and over at once when it fails."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from packetfs_compute import kernels
from packetfs_compute.deadline import Deadline, Token
from packetfs_compute.errors import Cancelled, SourceChanged, SourceFailed, SourceNotFound
from packetfs_compute.program import Op
from packetfs_compute.scanning.chain import RING_BYTES, run_chain
from packetfs_compute.scanning.plan import Plan, Window
from packetfs_compute.scanning.tally import Part
from packetfs_compute.settings import Settings

DATA = bytes(range(251)) * 400
PLAN = Plan(1000, 90_001, 1000, len(DATA), '"v1"', chained_here=True)
OPS = (Op("fnv64"), Op("crc32c"), Op("counteq", 7))
SETTINGS = Settings()
UNORDERED = OPS[1:]
NOTHING = (0, None)


def right(ops: Sequence[Op] = OPS, data: bytes = DATA[1000:91_001]) -> list[int]:
    return list(kernels.plan([(op.name, op.imm) for op in ops]).run(data, [op.identity for op in ops]))


RIGHT = right()


def fill(window: Window, buffer: memoryview, deadline: Deadline) -> None:
    deadline.remaining_s()
    buffer[: window.length] = DATA[window.offset : window.offset + window.length]


@dataclass(frozen=True)
class Filled:
    """A ``Read`` of what fills buffers."""

    fill: Callable[[Window, memoryview, Deadline], None]

    def each(self, window: Window, take: Callable[[memoryview], object], deadline: Deadline) -> None:
        data = memoryview(bytearray(window.length))
        self.fill(window, data, deadline)
        take(data[:3])
        take(data[3:])


@pytest.fixture(autouse=True, params=["narrow", "at first", "wide"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether it reads on one connection, goes wide after a few windows, or at once."""
    monkeypatch.setattr("packetfs_compute.scanning.chain._BUSY", -1.0 if request.param == "narrow" else 2.0)
    if request.param == "wide":
        monkeypatch.setattr("packetfs_compute.scanning.chain._TRIED", 0)
    return str(request.param)


class Run:
    """A chain that is run, and what it has told."""

    def __init__(
        self,
        read: Callable[[Window, memoryview, Deadline], None] = fill,
        start: tuple[int, Part | None] = NOTHING,
        plan: Plan = PLAN,
        deadline: Deadline | None = None,
        ops: Sequence[Op] = OPS,
    ) -> None:
        self.ops = ops
        self.told: list[tuple[int, Part]] = []
        self.failed: list[Any] = []
        self.read, self.start, self.plan = read, start, plan
        self.deadline = deadline or Deadline.after(60)

    def __call__(self) -> Part:
        before = threading.active_count()
        try:
            return run_chain(
                self.ops, self.plan, self.start, Filled(self.read), self.deadline, SETTINGS, self.failed.append,
                lambda done, part: self.told.append((done, part)),
            )  # fmt: skip
        finally:
            assert threading.active_count() == before, "something of it goes on"


@pytest.mark.parametrize("ops", [OPS, UNORDERED], ids=["ordered", "not"])
def test_it_is_what_the_kernels_give(ops: Sequence[Op], mode: str) -> None:
    run = Run(ops=ops)
    part = run()
    assert (list(part.values), part.byte_count, part.substrate) == (right(ops), PLAN.length, "local")
    positions = [done for done, _ in run.told]
    assert positions[:4] == [1000, 2000, 3000, 4000]
    assert positions[-1] == PLAN.length
    if mode == "narrow":
        assert positions == sorted(set(positions))
    else:
        assert positions == [*range(1000, 90_001, 1000), PLAN.length]
    assert run.failed == []


@pytest.mark.parametrize("mode", ["wide"], indirect=True)
@pytest.mark.parametrize("ops", [OPS, UNORDERED], ids=["ordered", "not"])
def test_windows_may_come_in_any_order(ops: Sequence[Op]) -> None:
    second = threading.Event()

    def read(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        if window.number % 2:
            second.set()
        else:
            assert second.wait(10), "the one after it is fetched meanwhile"
            second.clear() if window.number < 88 else None
        fill(window, buffer, deadline)

    assert list(Run(read, plan=replace(PLAN, length=2000), ops=ops)().values) == right(ops, DATA[1000:3000])


@pytest.mark.parametrize("mode", ["narrow", "at first"], indirect=True)
@pytest.mark.parametrize("ops", [OPS, UNORDERED], ids=["ordered", "not"])
def test_wherever_it_was_it_goes_on(ops: Sequence[Op]) -> None:
    whole = Run(ops=ops)
    whole()
    for done in [NOTHING, *whole.told]:
        assert list(Run(start=done, ops=ops)().values) == right(ops)


@pytest.mark.parametrize("mode", ["narrow"], indirect=True)
@pytest.mark.parametrize("ops", [OPS, UNORDERED], ids=["ordered", "not"])
def test_what_came_of_a_try_that_failed_is_forgotten(monkeypatch: pytest.MonkeyPatch, ops: Sequence[Op]) -> None:
    monkeypatch.setattr("packetfs_compute.scanning.chain._AGAIN_S", 0.01)
    left = [1, 2, 5, 5]

    class Cut(Filled):
        def each(self, window: Window, take: Callable[[memoryview], object], deadline: Deadline) -> None:
            if window.number in left:
                left.remove(window.number)
                take(memoryview(DATA[window.offset : window.offset + 10]))
                raise SourceFailed("cut")
            super().each(window, take, deadline)

    run = Run(ops=ops)
    part = run_chain(ops, PLAN, NOTHING, Cut(fill), run.deadline, SETTINGS, run.failed.append, lambda *_: None)
    assert list(part.values) == right(ops)
    assert len(run.failed) == 2


@pytest.mark.parametrize("mode", ["wide"], indirect=True)
@pytest.mark.parametrize("ops", [OPS, UNORDERED], ids=["ordered", "not"])
@pytest.mark.parametrize("windows", [0, 1, 37, 90, 91])
def test_it_goes_on_from_where_it_was(windows: int, ops: Sequence[Op]) -> None:
    whole = Run(ops=ops)
    whole()
    done = [NOTHING, *whole.told][windows]
    read: list[int] = []

    def watched(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        read.append(window.number)
        fill(window, buffer, deadline)

    assert list(Run(watched, start=done, ops=ops)().values) == right(ops)
    assert sorted(read) == list(range(windows, PLAN.windows))


def test_of_nothing_it_is_the_identity() -> None:
    part = Run(plan=replace(PLAN, length=0))()
    assert (part.values, part.byte_count) == (tuple(op.identity for op in OPS), 0)


@pytest.mark.parametrize("mode", ["wide"], indirect=True)
@pytest.mark.parametrize("ops", [OPS, UNORDERED], ids=["ordered", "not"])
def test_a_window_that_fails_is_fetched_anew_alone(monkeypatch: pytest.MonkeyPatch, ops: Sequence[Op]) -> None:
    monkeypatch.setattr("packetfs_compute.scanning.chain._AGAIN_S", 0.01)
    left = {3: 2, 50: 3}
    read: list[int] = []

    def read_badly(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        read.append(window.number)
        if left.get(window.number, 0):
            left[window.number] -= 1
            buffer[:10] = b"garbage..."
            raise SourceFailed("cut")
        fill(window, buffer, deadline)

    run = Run(read_badly, ops=ops)
    assert list(run().values) == right(ops)
    assert len(read) == PLAN.windows + 5
    assert [one["error"]["type"] for one in run.failed] == ["source_failed"] * 5


@pytest.mark.parametrize("mode", ["at first", "wide"], indirect=True)
@pytest.mark.parametrize(
    "error", [SourceChanged("v2"), SourceNotFound("gone"), SourceFailed("no", {"retryable": False})]
)
def test_what_no_other_time_would_mend_ends_it(error: Exception) -> None:
    tries: list[int] = []

    def read(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        if window.number == 5:
            tries.append(1)
            raise error
        fill(window, buffer, deadline)

    with pytest.raises(type(error)):
        Run(read)()
    assert len(tries) == 1


@pytest.mark.parametrize("mode", ["wide"], indirect=True)
def test_it_is_ahead_by_a_bounded_number_of_bytes() -> None:
    buffers: set[int] = set()

    def read(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        buffers.add(id(buffer.obj))
        time.sleep(0)
        fill(window, buffer, deadline)

    Run(read)()
    assert 2 < len(buffers) <= 12
    wide = Plan(0, 1 << 40, RING_BYTES // 3, None, None, chained_here=True)
    sizes: list[int] = []

    def never(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        sizes.append(len(buffer))
        raise SourceNotFound("gone")

    with pytest.raises(SourceNotFound):
        Run(never, plan=wide)()
    assert sum(sizes) <= RING_BYTES


def test_who_cancels_it_ends_what_is_fetched() -> None:
    token = Token()
    deadline = Deadline(time.monotonic() + 60, 60, time.monotonic, token)

    def read(window: Window, buffer: memoryview, deadline: Deadline) -> None:
        if window.number < 4:
            fill(window, buffer, deadline)
            return
        token.cancel()
        while True:  # a source that drips
            deadline.remaining_s()
            time.sleep(0.01)

    with pytest.raises(Cancelled):
        Run(read, deadline=deadline)()
