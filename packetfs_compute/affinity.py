"""CPU affinity of a worker's threads: one core for Python, all of them for bytes.

Threads of one process take turns at the interpreter, so however many cores there are, Python runs on one at a time. Each
time a thread lets go of it to talk to Redis, the kernel wakes another one on a core that sleeps, and the first has to wait
for its next turn. Threads that share a core do without: the one that comes back from Redis mostly finds the interpreter
free. docs/performance.md tells what that is worth.

So the threads of a worker stay on one core, and one that is going to read and compute many bytes, which needs no
interpreter, leaves it for as long as that takes. Which core that is, the kernel says: every few seconds the thread that
takes jobs is let go, and where it is run then, the others follow. So workers do not crowd on one core while another is idle.

Only Linux has what this needs. Elsewhere, where there is but one core, and in a process that has not called :func:`stay`,
nothing here does anything.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["FEW_BYTES", "away", "stay"]

FEW_BYTES: Final = 256 << 10
"""What a file gives in one chunk; so few are not worth two changes of a thread's cores. Chosen, not measured."""
_SETTLE_S: Final = 2.0
_LET_GO_S: Final = 0.01
"""If there are jobs, the thread that takes them is woken several times meanwhile; each time the kernel looks for a core."""
_TASKS: Final = Path("/proc/self/task")
_PROCESSOR: Final = 36
"""Where stat(5) has the core that a thread was last run on, counted from behind the name, which may hold anything."""


class _Home:
    """The core on which this process's threads stay, and those that are away from it."""

    def __init__(self, leader: int, cores: Set[int]) -> None:
        self._leader = leader
        self._cores = cores
        self._core: int | None = None
        self._away: set[int] = set()
        self._lock = threading.Lock()

    def settle(self) -> None:
        """Have the threads stay where the leader is run when it may be run anywhere."""
        _pin(self._leader, self._cores)
        time.sleep(_LET_GO_S)
        core = _core_of(self._leader)
        if core is None or core not in self._cores:  # it cannot be read, or the cores that we may use are others by now
            return
        with self._lock:
            self._core = core
            for thread in {int(task.name) for task in _TASKS.iterdir()} - self._away:
                _pin(thread, {core})

    def keep_settled(self) -> None:
        """Settle again and again: other processes come and go."""
        while True:
            self.settle()
            time.sleep(_SETTLE_S)

    def leave(self, thread: int) -> None:
        """Let a thread be run on every core."""
        with self._lock:
            self._away.add(thread)
            _pin(thread, self._cores)

    def come_back(self, thread: int) -> None:
        """Have it stay with the others again."""
        with self._lock:
            self._away.discard(thread)
            if self._core is not None:
                _pin(thread, {self._core})


_homes: Final[list[_Home]] = []
"""This process's, once it has one."""


def stay() -> None:
    """Have this process's threads stay on one core from now on; the calling one is that which the others follow."""
    if sys.platform != "linux" or _homes:
        return
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        return
    _homes.append(_Home(threading.get_native_id(), cores))
    threading.Thread(target=_homes[0].keep_settled, name="packetfs-affinity", daemon=True).start()


@contextmanager
def away(byte_count: int | None) -> Iterator[None]:
    """Let the calling thread be run on every core inside: it is going to read and compute so many bytes, or unknown many."""
    if not _homes or (byte_count is not None and byte_count <= FEW_BYTES):
        yield
        return
    thread = threading.get_native_id()
    _homes[0].leave(thread)
    try:
        yield
    finally:
        _homes[0].come_back(thread)


def _core_of(thread: int) -> int | None:
    try:
        return int((_TASKS / str(thread) / "stat").read_bytes().rpartition(b")")[2].split()[_PROCESSOR])
    except (OSError, ValueError, IndexError):
        return None


def _pin(thread: int, cores: Set[int]) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # it has ended, or may no more be run there
            os.sched_setaffinity(thread, cores)
