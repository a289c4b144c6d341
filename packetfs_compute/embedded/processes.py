"""Child processes that never outlive us.

Each child leads its own session, so that Ctrl-C at the terminal reaches only the parent, which then stops its children in
order. On Linux the kernel also ends a child when its parent dies (prctl(2), PR_SET_PDEATHSIG): ``kill -9`` of the parent
leaves no orphan. What a child started itself is in its group and is ended with it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Child", "stopped_on_failure"]

_PR_SET_PDEATHSIG: Final = 1
_MAX_LOG_BYTES: Final = 16 << 20
"""A larger log is put aside when its process starts, over the one put aside before."""


class Child:
    """A running child process. ``log`` receives all that it prints; ``when_orphaned`` is what ends it without us.

    ``pass_fds`` are descriptors that it has as well, by the same numbers.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        log: Path,
        *,
        when_orphaned: signal.Signals = signal.SIGTERM,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  (the arguments are ours)
                argv,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=_die_with_parent(os.getpid(), when_orphaned),  # noqa: PLW1509  (called from the main thread, before others)
            )

    @property
    def pid(self) -> int:
        """The process id, which is its group's as well."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, or ``None`` while it runs."""
        return self._process.poll()

    def stop(self, *asks: tuple[signal.Signals, float]) -> None:
        """Ask with each signal in turn, waiting its seconds for the child to end; then kill what is left of its group."""
        for ask, patience_s in asks:
            if self.exit_code is not None:
                break
            self._process.send_signal(ask)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def last_words(self, lines: int = 3) -> str:
        """Return the end of its log, for an error message."""
        return " | ".join(self.log.read_text("utf-8", "replace").strip().splitlines()[-lines:])


@contextlib.contextmanager
def stopped_on_failure(child: Child, asks: Sequence[tuple[signal.Signals, float]]) -> Iterator[None]:
    """Stop ``child``, which has just been started, when what waits for it to be ready fails or is interrupted."""
    try:
        yield
    except BaseException:
        child.stop(*asks)
        raise


def _die_with_parent(parent: int, how: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child of a fork may do very little

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # the parent died between the fork and the line above
            os._exit(1)

    return arrange
