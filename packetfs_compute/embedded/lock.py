"""One system a data directory: an advisory lock that the kernel lets go of when its holder dies, however it dies.

A pid file alone goes stale after ``kill -9``, and its number may by then be another process's. Here the lock is the truth
and the pid in the file is only for the message.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from packetfs_compute.errors import AlreadyRunning

__all__ = ["exclusive", "holder_pid"]

_NAME: Final = "packetfs.lock"


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the lock of ``data_dir``; raise :class:`AlreadyRunning` at once when another process holds it."""
    with (data_dir / _NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = holder_pid(data_dir)
            raise AlreadyRunning(
                f"packetfs already runs on {data_dir} (process {pid or 'unknown'})",
                {"pid": pid, "hint": "use the one that runs, stop it, or set PACKETFS_DATA_DIR to another directory"},
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder_pid(data_dir: Path) -> int | None:
    """Return the process that holds the lock of ``data_dir``, or ``None`` when none does.

    A holder that has not written its number yet is given as 0.
    """
    try:
        with (data_dir / _NAME).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdecimal() else 0
    except FileNotFoundError:
        pass
    return None
