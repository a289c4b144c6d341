"""A system on this machine: the embedded Redis, workers for each substrate, one for scans, upkeep, intake, gateway.

Processes are watched by what they do: a worker says in the fleet that it consumes (:mod:`packetfs_compute.worker`), and
one that lives but no longer says so, while Redis answers, is started again. So are a gateway and a Flower that no longer
answer.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final, Self

from celery import Celery

from packetfs_compute.celery import broker_errors, celery_config
from packetfs_compute.embedded.directory import private_directory
from packetfs_compute.embedded.faces import Answers, Flower, gateway_socket, with_browsers_key
from packetfs_compute.embedded.lock import exclusive
from packetfs_compute.embedded.processes import Child
from packetfs_compute.embedded.server import STOP, check_redis, start_redis_server
from packetfs_compute.embedded.watch import Watched
from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.fleet.redis import RedisFleet, open_fleet
from packetfs_compute.names import LOCAL, SCANS, queue_of
from packetfs_compute.routing import Capabilities
from packetfs_compute.settings import Settings, to_environment
from packetfs_compute.substrates import load_fleet

__all__ = ["System"]

_Asks = tuple[tuple[signal.Signals, float], ...]

_WORKER_START_TIMEOUT_S: Final = 30.0
_STOP_WORKER: Final = ((signal.SIGTERM, 10.0), (signal.SIGQUIT, 2.0))
"""Celery's warm shutdown lets running jobs finish; its cold one cuts them off, to be run again after the next start."""
_STOP_WORKER_FOR_GOOD: Final = ()
"""A system that keeps nothing has nobody left to finish a job for; the warm shutdown would take 2 s."""
_STOP_HELPER: Final = ((signal.SIGTERM, 5.0),)
_WATCH_EVERY_S: Final = 0.5
_LOOK_EVERY_S: Final = 2.0
_FORWARDER_SLOTS: Final = 32
"""Attempts at once of a forwarding worker whose substrate declares no slots."""
_SCAN_SLOTS: Final = 4
"""Scans at once: their windows have the slots of the substrates, and each may hold 48 MiB here."""
_STOP_SCANS: Final = ((signal.SIGTERM, 1.0),)
"""A scan is not waited for: the next start goes on where it was."""


class System:
    """The embedded Redis (when settings name no other), a worker for each substrate, and upkeep, as a context manager.

    ``persistent`` keeps jobs and results across restarts, and runs an intake: others may push jobs. With ``scans`` there is
    a worker for them, which is not waited for. With ``gateway`` there
    is one, unless something stands in its way, which is told and leaves ``gateway_url`` at ``None``; with ``flower`` there
    is that. Raises :class:`~packetfs_compute.errors.AlreadyRunning` when another system holds the data directory,
    :class:`~packetfs_compute.errors.ConfigurationError` for a substrate that settings name wrongly.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        persistent: bool,
        verbose: bool = False,
        scans: bool = False,
        gateway: bool = False,
        flower: Flower | None = None,
    ) -> None:
        settings = with_browsers_key(settings) if gateway else settings
        self._settings = settings if flower is None else replace(settings, flower_url=flower.url)
        self._persistent = persistent
        self._scans = scans
        self._gateway = gateway
        self._flower = flower
        self.gateway_url: str | None = None
        self._log_level = "INFO" if verbose else "WARNING"
        self._stack = ExitStack()
        self._watched: list[Watched] = []

    def __enter__(self) -> Self:
        settings = self._settings
        places = [one.capabilities for one in load_fleet(settings)]
        private_directory(settings.data_dir)
        with ExitStack() as stack:
            stack.enter_context(exclusive(settings.data_dir))
            if settings.embedded:
                self._start(stack, lambda: start_redis_server(settings, persistent=self._persistent), STOP)
                stack.callback(_remove_socket, settings)
            else:
                check_redis(settings)
            pulse = _Pulses(open_fleet(settings, [*places, replace(places[0], name=SCANS)]))
            stop = _STOP_WORKER if self._persistent else _STOP_WORKER_FOR_GOOD
            first, workers = len(self._watched), _workers(places, settings.local_workers if self._persistent else 1)
            for worker in workers:
                works = partial(pulse.of, worker.place.name, worker.node)
                self._start(stack, partial(self._start_worker, worker), stop, works)
            if self._scans:
                stop_scans = _STOP_SCANS if self._persistent else _STOP_WORKER_FOR_GOOD
                self._start(
                    stack, lambda: self._start_scans(len(places)), stop_scans, lambda: pulse.of(SCANS, _node(SCANS))
                )
            helper = _STOP_HELPER if self._persistent else _STOP_WORKER_FOR_GOOD
            self._start(stack, lambda: self._start_helper("upkeep"), helper)
            for watched, worker in zip(self._watched[first : first + len(workers)], workers, strict=True):
                _wait_until_consuming(watched.child, worker.node, settings)
            # What brings jobs in and shows them comes last, and so ends first: none comes in that nobody would run.
            if self._persistent:
                self._start(stack, lambda: self._start_helper("intake"), helper)
            if self._flower is not None:
                self._start_flower(stack, self._flower, pulse)
            if self._gateway:
                self._start_gateway(stack, pulse)
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
        """Restart children that end or idle, each time a little later, until ``stop(seconds)`` (a bounded wait) says so."""
        while not stop(_WATCH_EVERY_S):
            for watched in self._watched:
                watched.look()

    def _start(
        self, stack: ExitStack, start: Callable[[], Child], stop: _Asks, works: Callable[[], bool | None] = lambda: None
    ) -> None:
        watched = Watched(start, works)
        self._watched.append(watched)
        stack.callback(lambda: watched.child.stop(*stop))

    def _start_worker(self, worker: "_Worker") -> Child:
        """Start a worker of one substrate.

        It runs threads, also where this machine computes: the kernels and the sockets let go of the GIL, and a job that goes
        to another process costs more CPU (docs/performance.md). Should one end the worker, all its jobs are run again.
        """
        place = worker.place
        threads = self._settings.concurrency if place.kind == LOCAL else place.slots or _FORWARDER_SLOTS
        pool = ["--pool", "threads", "--concurrency", str(threads)]
        return self._celery_worker(worker.name, worker.node, place.name, pool, self._metrics_port(worker.at))

    def _start_scans(self, at: int) -> Child:
        pool = ["--pool", "threads", "--concurrency", str(_SCAN_SLOTS)]
        return self._celery_worker(f"worker-{SCANS}", _node(SCANS), SCANS, pool, self._metrics_port(at))

    def _metrics_port(self, at: int) -> int:
        """Return the port of the metrics of one worker: the first where they are on, then the next."""
        return self._settings.metrics_port and self._settings.metrics_port + at

    def _celery_worker(self, name: str, node: str, queue: str, pool: list[str], metrics_port: int) -> Child:
        argv = [
            *(sys.executable, "-m", "celery", "--app", "packetfs_compute", "worker"),
            *("--queues", queue_of(queue), "--hostname", node, "--loglevel", self._log_level),
            *(*pool, "--without-gossip", "--without-mingle"),
            *(() if self._flower is None else ("--task-events",)),
        ]
        environ = {**os.environ, **to_environment(self._settings), "PACKETFS_METRICS_PORT": str(metrics_port)}
        # An orphaned worker has no broker to say goodbye to; its jobs were not acknowledged and are run again.
        log = self._settings.data_dir / f"{name}.log"
        return Child(name, argv, environ, log, when_orphaned=signal.SIGKILL)

    def _start_flower(self, stack: ExitStack, flower: Flower, pulse: "_Pulses") -> None:
        answers, environ = flower.answers(), {**os.environ, **to_environment(self._settings)}
        self._start(
            stack, lambda: flower.start(self._settings, environ), _STOP_HELPER, lambda: pulse.or_no_redis(answers())
        )

    def _start_gateway(self, stack: ExitStack, pulse: "_Pulses") -> None:
        opened = gateway_socket(self._settings)
        if opened is None:
            return
        listening, self.gateway_url = opened
        stack.enter_context(listening)
        fd, port = listening.fileno(), listening.getsockname()[1]
        answers = Answers(self._settings.gateway_host, port, "/health")
        self._start(
            stack,
            lambda: self._start_helper("gateway", "--fd", str(fd), pass_fds=(fd,)),
            _STOP_HELPER,
            lambda: pulse.or_no_redis(answers()),
        )
        stack.callback(listening.close)  # before its process is told to end: who calls now is refused, not kept waiting

    def _start_helper(self, command: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> Child:
        argv = [sys.executable, "-m", "packetfs_compute", command, *arguments]
        environ = {**os.environ, **to_environment(self._settings)}
        log = self._settings.data_dir / f"{command}.log"
        return Child(command, argv, environ, log, when_orphaned=signal.SIGKILL, pass_fds=pass_fds)


@dataclass(frozen=True, slots=True)
class _Worker:
    """A worker of one substrate; its port for metrics is the first and ``at`` more."""

    name: str
    node: str
    place: Capabilities
    at: int


def _workers(places: Sequence[Capabilities], local: int) -> list[_Worker]:
    """Return a worker for each place, and for this machine as many as are wanted; ``places`` begin with it."""
    here, *others = places
    found = [_Worker("worker", _node(here.name), here, 0)]
    found += [_Worker(f"worker-{place.name}", _node(place.name), place, at) for at, place in enumerate(others, 1)]
    # Behind the scans' port, so that all others are where they would be; with a dot, which is in no substrate's name.
    for nth in range(2, local + 1):
        found.append(_Worker(f"worker.{nth}", _node(f"{here.name}.{nth}"), here, len(places) + nth - 1))
    return found


class _Pulses:
    """Whether workers say that they consume, asked of Redis for all of them at once and not more often than needed."""

    def __init__(self, fleet: RedisFleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._clock = clock
        self._asked_s = -_LOOK_EVERY_S
        self._known: dict[str, frozenset[str]] | None = None

    def of(self, substrate: str, node: str) -> bool | None:
        """Return whether the worker ``node`` consumes the queue of ``substrate``; ``None`` while Redis does not answer."""
        known = self._ask()
        return None if known is None else node in known[substrate]

    def or_no_redis(self, works: bool) -> bool | None:
        """Return ``works``, but ``None`` for what does not work while Redis does not answer: it may be waiting for that."""
        return True if works else None if self._ask() is None else False

    def _ask(self) -> dict[str, frozenset[str]] | None:
        if self._clock() - self._asked_s >= _LOOK_EVERY_S:
            self._asked_s = self._clock()
            try:
                self._known = self._fleet.consumers(time.time())
            except BrokerUnavailable:
                self._known = None
        return self._known


def _node(name: str) -> str:
    return f"{name}@{os.uname().nodename}"


def _remove_socket(settings: Settings) -> None:
    """Leave nothing behind: the socket, nor the directory that it has when the data directory's path is too long."""
    path = settings.socket_path
    path.unlink(missing_ok=True)
    if path.parent != settings.data_dir:
        with suppress(OSError):  # something else is in it
            path.parent.rmdir()


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
