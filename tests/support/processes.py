"""Looking at real processes from outside, through /proc."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

STALL_S: Final = 15.0
"""How long a machine may be busy with something else: what a test allows until an end is that much over what it takes."""


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``, whatever session it is in."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def peak_memory_mib(pid: int) -> float:
    """The most memory that the process has had resident (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmHWM")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait for ``condition``; fail naming ``what`` when it does not come true in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def memory_mib(pids: Iterable[int]) -> float:
    """What processes have resident together, each page shared out among all that map it (PSS); who is gone has none."""
    kib = 0
    for pid in pids:
        try:
            told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        kib += sum(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:"))
    return kib / 1024
