"""A task system that is measured by ``system.py``: its workers and its driver, with a bound on every wait.

Between its turns a system is frozen, since several poll their broker many times a second, which would be measured of the
others. While publishing is measured, the workers are frozen too: nobody consumes.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from _peers import PATIENCE_S, Peer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.processes import descendants

__all__ = ["Failed", "Running", "python_for"]

HERE = Path(__file__).resolve().parent
START_S = 60.0
_ANSWER_S = PATIENCE_S + 10.0
_INSTALL_S = 300.0
_END_S = 5.0
_REASON_CHARS = 160


class Failed(RuntimeError):
    """A system did not do what it was asked; the message is for the table."""


class Running:
    """A system's processes, started at once; :meth:`ready` waits for them.

    ``workers`` are the processes of workers that somebody else started and ends; they are frozen only while publishing is
    measured. ``beside`` are those of others that work for it, such as its broker: their CPU time counts as its own.
    ``environ`` is added to this process's.
    """

    def __init__(
        self,
        name: str,
        peer: Peer,
        python: Path,
        folder: Path,
        environ: Mapping[str, str],
        workers: tuple[int, ...] = (),
        beside: tuple[int, ...] = (),
    ) -> None:
        self.peer = peer
        self._beside = beside
        folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        path = f"{python.parent}:{os.environ['PATH']}"  # some start their workers by name
        environ = {**os.environ, "PEER": name, "PYTHONPATH": str(HERE), "PATH": path, "TMPDIR": str(folder), **environ}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._buffer = b""

        def start(arguments: list[str], **pipes: int) -> "subprocess.Popen[bytes]":
            with self._log.open("ab") as log:
                started = subprocess.Popen([str(python), *arguments], cwd=folder, env=environ, stderr=log, **pipes)
            self._processes.append(started)
            return started

        for arguments in peer.workers:
            argv = [part.replace("{redis}", environ.get("PEER_REDIS", "")) for part in arguments]
            start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._workers = (*workers, *(one.pid for one in self._processes))
        self._others = bool(workers)
        self._driver = start([str(HERE / "_peers.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ready(self, call: tuple[str, int, int]) -> None:
        """Wait until a job that does nothing has been run. Raises :class:`Failed`."""
        self._answer("start", START_S)
        self.ask("many", "noop", [call], patience_s=START_S)

    def ask(
        self, do: str, task: str, calls: list[tuple[str, int, int]], times: int = 1, patience_s: float = _ANSWER_S
    ) -> tuple[list[float], int]:
        """Have the driver do it; return the seconds that it took, and the values' sum. Raises :class:`Failed`."""
        line = json.dumps({"do": do, "task": task, "calls": calls, "times": times}) + "\n"
        try:
            os.write(self._pipe(self._driver.stdin), line.encode())
        except OSError as error:
            raise Failed(self._last_words() or str(error)) from error
        told = self._answer(f"{do} {task}", patience_s)
        return told["seconds"], told["sum"]

    def publish(self, calls: list[tuple[str, int, int]], times: int) -> float:
        """Return the seconds of publishing alone; waits for the values too. Raises :class:`Failed`."""
        self._signal(signal.SIGSTOP, self._workers)
        try:
            seconds, _ = self.ask("send", "noop", calls, times)
        finally:
            self._signal(signal.SIGCONT, self._workers)
        self.ask("wait", "noop", [])
        return seconds[0]

    def cpu_s(self) -> float:
        """Return the CPU time, user and system, of all its processes until now; the kernel counts in steps of 10 ms."""
        pids = {*self._beside, *self._workers, *(one.pid for one in self._processes)}
        return sum(map(_cpu_s, pids | {pid for root in pids for pid in descendants(root)}))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let it run inside the context only."""
        mine = tuple(one.pid for one in self._processes)
        self._signal(signal.SIGCONT, mine)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP, () if self._others else mine)

    def end(self) -> None:
        """Kill all of it, by process id: there is nothing that it should keep."""
        pids = [pid for one in self._processes for pid in (*descendants(one.pid), one.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for one in self._processes:
            one.wait(_END_S)

    def _signal(self, number: signal.Signals, pids: tuple[int, ...]) -> None:
        for pid in [each for root in pids for each in (root, *descendants(root))]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answer(self, what: str, patience_s: float) -> Any:
        source, give_up = self._pipe(self._driver.stdout), time.monotonic() + patience_s
        while b"\n" not in self._buffer:
            left = give_up - time.monotonic()
            if left <= 0 or not select.select([source], [], [], left)[0]:
                raise Failed(f"no answer to `{what}` within {patience_s:.0f} s; {self._last_words()}".rstrip("; "))
            read = os.read(source, 1 << 16)
            if not read:
                raise Failed(self._last_words() or f"it ended in `{what}`")
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        told = json.loads(line)
        if "failed" in told:
            raise Failed(_short(f"`{what}`: {told['failed']}"))
        return told

    def _last_words(self) -> str:
        said = [line for line in self._log.read_text(errors="replace").splitlines() if any(map(str.isalpha, line))]
        return _short(said[-1]) if said else ""

    def _pipe(self, stream: Any) -> int:
        return int(stream.fileno())


def _cpu_s(pid: int) -> float:
    """Return a process's CPU time, with that of its children that have ended; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _short(reason: str) -> str:
    """Return what fits in a cell of a table."""
    return " ".join(reason.replace("|", " ").split())[:_REASON_CHARS]


def python_for(needs: str, folder: Path, install: bool) -> Path:
    """Return the Python of the environment for ``{needs}.requirements.txt``, made if asked for. Raises :class:`Failed`."""
    if not needs:
        return Path(sys.executable)
    python, wanted, stamp = (
        folder / needs / "bin/python",
        HERE / f"{needs}.requirements.txt",
        folder / needs / "installed",
    )
    if install and not (stamp.exists() and stamp.read_text() == wanted.read_text()):
        try:
            if not python.exists():
                venv.create(folder / needs, with_pip=True)
            argv = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)]
            subprocess.run(argv, check=True, timeout=_INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise Failed(f"not installed: {type(error).__name__}; see pip's words above") from error
        stamp.write_text(wanted.read_text())
    if not python.exists():
        raise Failed("not installed")
    return python
