"""A system on this machine: the embedded Redis, and Celery workers, started in order, watched, and stopped in order."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self

from celery import Celery

from packetfs_compute.celery import broker_errors, celery_config
from packetfs_compute.embedded.directory import private_directory
from packetfs_compute.embedded.lock import exclusive
from packetfs_compute.embedded.processes import Child, stopped_on_failure
from packetfs_compute.embedded.server import STOP, check_redis, start_redis_server
from packetfs_compute.errors import BrokerUnavailable, PacketFSError
from packetfs_compute.names import LOCAL, queue_of
from packetfs_compute.settings import Settings, to_environment

__all__ = ["System"]

_log = logging.getLogger(__name__)

_Asks = tuple[tuple[signal.Signals, float], ...]

_WORKER_START_TIMEOUT_S: Final = 30.0
_STOP_WORKER: Final = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 2.0))
"""Celery's warm shutdown lets running jobs finish; its cold one cuts them off, to be run again after the next start."""
_STOP_WORKER_FOR_GOOD: Final = ()
"""A system that keeps nothing has nobody left to finish a job for; the warm shutdown would take 2 s."""
_WATCH_EVERY_S: Final = 0.5
_RESTART_DELAYS_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0)
_CALM_S: Final = 60.0
"""A child that ran this long before it ended starts again from the first delay."""


class System:
    """The embedded Redis (when settings name no other) and a local worker, as a context manager.

    ``persistent`` keeps jobs and results across restarts. Raises :class:`~packetfs_compute.errors.AlreadyRunning` when
    another system holds the data directory.
    """

    def __init__(self, settings: Settings, *, persistent: bool, verbose: bool = False) -> None:
        self._settings = settings
        self._persistent = persistent
        self._log_level = "INFO" if verbose else "WARNING"
        self._stack = ExitStack()
        self._watched: list[_Watched] = []

    def __enter__(self) -> Self:
        settings = self._settings
        private_directory(settings.data_dir)
        with ExitStack() as stack:
            stack.enter_context(exclusive(settings.data_dir))
            if settings.embedded:
                self._start(stack, lambda: start_redis_server(settings, persistent=self._persistent), STOP)
                stack.callback(_remove_socket, settings)
            else:
                check_redis(settings)
            self._start(stack, self._start_worker, _STOP_WORKER if self._persistent else _STOP_WORKER_FOR_GOOD)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def pids(self) -> dict[str, int]:
        """The children by name."""
        return {watched.child.name: watched.child.pid for watched in self._watched}

    def watch(self, stop: Callable[[float], bool]) -> None:
        """Restart children that end, each time a little later, until ``stop(seconds)`` (a bounded wait) says so."""
        while not stop(_WATCH_EVERY_S):
            for watched in self._watched:
                watched.restart_if_ended(time.monotonic())

    def _start(self, stack: ExitStack, start: Callable[[], Child], stop: _Asks) -> None:
        watched = _Watched(start)
        self._watched.append(watched)
        stack.callback(lambda: watched.child.stop(*stop))

    def _start_worker(self) -> Child:
        settings = self._settings
        name = f"{LOCAL}@{os.uname().nodename}"
        argv = [
            *(sys.executable, "-m", "celery", "--app", "packetfs_compute", "worker"),
            *("--queues", queue_of(LOCAL), "--hostname", name, "--loglevel", self._log_level),
            *("--concurrency", str(settings.concurrency), "--without-gossip", "--without-mingle"),
        ]
        # An orphaned worker has no broker to say goodbye to; its jobs were not acknowledged and are run again.
        environ = {**os.environ, **to_environment(settings)}
        log = settings.data_dir / "worker.log"
        child = Child("worker", argv, environ, log, when_orphaned=signal.SIGKILL)
        with stopped_on_failure(child, _STOP_WORKER):
            _wait_until_consuming(child, name, settings)
        return child


def _remove_socket(settings: Settings) -> None:
    """Leave nothing behind: the socket, nor the directory that it has when the data directory's path is too long."""
    path = settings.socket_path
    path.unlink(missing_ok=True)
    if path.parent != settings.data_dir:
        with suppress(OSError):  # something else is in it
            path.parent.rmdir()


class _Watched:
    """A child that is started again when it ends."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self.child = start()
        self._started_s = time.monotonic()
        self._restarts = 0

    def restart_if_ended(self, now_s: float) -> None:
        if self.child.exit_code is None:
            return
        if now_s - self._started_s > _CALM_S:
            self._restarts = 0
        delay_s = _RESTART_DELAYS_S[min(self._restarts, len(_RESTART_DELAYS_S) - 1)]
        if now_s - self._started_s < delay_s:
            return
        self._restarts += 1
        self._started_s = now_s
        _log.warning("%s ended (exit code %s); starting it again", self.child.name, self.child.exit_code)
        self.child.stop()  # what it started itself may have outlived it
        try:
            self.child = self._start()
        except PacketFSError as error:
            _log.warning("%s", error)


def _wait_until_consuming(child: Child, name: str, settings: Settings) -> None:
    """Wait until the worker answers a ping over the broker: only then is it known to consume."""
    give_up = time.monotonic() + _WORKER_START_TIMEOUT_S
    with Celery(set_as_current=False) as probe:  # of its own: this process's application may have other settings
        probe.conf.update(celery_config(settings))
        while time.monotonic() < give_up and child.exit_code is None:
            with suppress(*broker_errors(probe)):  # it died meanwhile, and is started again next
                if probe.control.ping(destination=[name], timeout=0.25):
                    return
    raise BrokerUnavailable(
        f"the worker did not start: {child.last_words() or 'it printed nothing'}", {"hint": f"its log is {child.log}"}
    )
