"""What a worker process has besides Celery: one dispatcher, the leases of its running attempts, and its pulse.

*Leases.* While an attempt runs, a thread renews its lease every second. When the process dies, nobody does: the slot is free
again and the sweeper publishes the job again, fifteen seconds later. The same round trip tells which jobs were cancelled:
their attempts end at the next look at their deadline, which they have within half a second.

*Pulse.* Every two seconds a worker says in the fleet which queues it consumes and how much it runs at once, but only for
those whose broker has answered it lately, or while all its slots are busy. So a worker that is alive and no longer
consumes (celery #8030, #8091) says nothing, routers stop sending to it, and whoever supervises it starts it again.
"""

import functools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis
from celery.app.task import Context
from celery.concurrency.thread import TaskPool as Threads
from celery.signals import celeryd_init, task_postrun, worker_process_shutdown, worker_ready, worker_shutdown
from celery.worker import state

from packetfs_compute import affinity
from packetfs_compute.broker import errands
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.broker.transport import polled
from packetfs_compute.cache.redis import open_cache
from packetfs_compute.celery import current_settings, router_of
from packetfs_compute.deadline import Token, cancelled_by
from packetfs_compute.dispatch import Dispatcher, Observer
from packetfs_compute.errors import BrokerUnavailable, JobError
from packetfs_compute.fleet import LEASE_S, Fleet, Leased
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.journal import Journal, open_journal
from packetfs_compute.names import QUEUE_PREFIX, SCANS, SCANS_QUEUE, TASK_PREFIX, queue_of
from packetfs_compute.program import Program
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_fleet, substrate_names

__all__ = [
    "PULSE_TTL_S",
    "Leases",
    "Pulse",
    "current_dispatcher",
    "current_journal",
    "scan_ended",
    "substrate_of_queue",
]

_RENEW_S: Final = 1.0
"""Often for a lease, which lives for fifteen; but a cancelled job is not to compute for longer than this."""
_PULSE_S: Final = 2.0
PULSE_TTL_S: Final = 8.0
"""How long a pulse is believed."""
_SILENT_S: Final = 8.0
"""A blocking pop is asked for in turns of a second: without an answer for this long, the queue is not being consumed."""


class Leases:
    """The leases of this process's running attempts, kept alive by one thread for as long as there are any.

    The thread also learns of cancelled jobs, and takes their attempts' tokens back.
    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.time, every_s: float = _RENEW_S) -> None:
        self._fleet = fleet
        self._clock = clock
        self._every_s = every_s
        self._held: dict[Token, Leased] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def hold(self, leased: Leased) -> Iterator[None]:
        """Keep ``leased`` alive inside the context, which ends with :class:`Cancelled` where its job was cancelled."""
        token = Token()
        with self._lock:
            self._held[token] = leased
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="packetfs-leases", daemon=True)
                self._thread.start()
        try:
            with cancelled_by(token):
                yield
        finally:
            with self._lock:
                del self._held[token]
        token.check()  # whatever it ended with

    def _keep(self) -> None:
        while True:
            time.sleep(self._every_s)
            with self._lock:
                held = dict(self._held)
                if not held:
                    self._thread = None
                    return
            with suppress(BrokerUnavailable):  # a lease outlives two turns without an answer
                unwanted = self._fleet.renew(held.values(), self._clock())
                for token, leased in held.items():
                    if leased.job_id in unwanted:
                        token.cancel()


class Pulse:
    """Says in the fleet, while it is true, that this worker consumes its queues; and in the ledger, which jobs it holds.

    A job that a worker has taken and not begun (one that is to run later, say) has no lease of an attempt's. Were it not
    said whose it is, the sweeper would publish it again.
    """

    def __init__(
        self,
        fleet: Fleet,
        consumer: str,
        slots: Mapping[str, int],
        polled: Mapping[str, float],
        busy: Callable[[], int],
        hold: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._consumer = consumer
        self._slots = dict(slots)
        self._polled = polled
        self._busy = busy
        self._hold = hold
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="packetfs-pulse", daemon=True)

    def start(self) -> None:
        """Begin; a worker that is ready consumes."""
        self._thread.start()

    def stop(self) -> None:
        """End, and say at once that this worker is gone."""
        self._stop.set()
        self._thread.join(_PULSE_S)
        with suppress(BrokerUnavailable):
            self._fleet.consuming(self._consumer, dict.fromkeys(self._slots, 0), time.time(), 0.0)

    def consumed(self) -> dict[str, int]:
        """Return the substrates whose queue is being consumed now, and the slots of each."""
        now, busy = self._clock(), self._busy()
        return {
            name: slots
            for name, slots in self._slots.items()
            if busy >= slots or now - self._polled.get(queue_of(name), -_SILENT_S) < _SILENT_S
        }

    def _beat(self) -> None:
        while not self._stop.is_set():
            consumed = self.consumed()
            with suppress(BrokerUnavailable):
                if consumed:
                    self._fleet.consuming(self._consumer, consumed, time.time(), PULSE_TTL_S)
                self._hold()
            self._stop.wait(_PULSE_S)


def substrate_of_queue(routing_key: str | None, settings: Settings) -> str | None:
    """Return the substrate whose queue ``routing_key`` names, or ``None`` for a queue that is no substrate's."""
    return next((name for name in substrate_names(settings) if queue_of(name) == routing_key), None)


def current_dispatcher() -> Dispatcher:
    """Return this process's dispatcher, built on first use."""
    return _dispatcher(os.getpid(), current_settings())


@functools.lru_cache(maxsize=4)
def _dispatcher(pid: int, settings: Settings) -> Dispatcher:
    del pid  # a fork has no threads and must not share connections
    fleet = open_fleet(settings, [one.capabilities for one in load_fleet(settings)])
    observers: tuple[Observer, ...] = (_journal(os.getpid(), settings),)
    if settings.metrics_port:
        from packetfs_compute import metrics  # noqa: PLC0415  (a publisher needs none)

        observers = (*observers, metrics.WorkerMetrics())
    return Dispatcher(
        settings, fleet, router_of(settings), observers, Leases(fleet).hold,
        lambda leased, outcome, now: errands.put(errands.Errand(*fleet.recording(leased, outcome, now))),
        cache=open_cache(settings, lambda *script: errands.put(errands.Errand(*script))),
    )  # fmt: skip


def current_journal() -> Journal:
    """Return this process's journal."""
    return _journal(os.getpid(), current_settings())


def scan_ended(
    job_id: str, program: Program, result: Mapping[str, Any] | None, error: JobError | None, total_s: float
) -> None:
    """Tell of a scan that has ended, with a result or an error."""
    current_journal().scanned(job_id, program, result, error, total_s)
    if current_settings().metrics_port:
        from packetfs_compute import metrics  # noqa: PLC0415  (a publisher needs none)

        metrics.scan_ended(error, cached=result is not None and bool(result["cached"]), total_s=total_s)


@functools.lru_cache(maxsize=4)
def _journal(pid: int, settings: Settings) -> Journal:
    del pid  # each process tells what it has counted itself
    return open_journal(settings)


_endings: Final[list[Callable[[], object]]] = []
"""What this worker has to end when it stops."""


@celeryd_init.connect
def _count_in_files(sender: str = "", **_: Any) -> None:
    settings = current_settings()
    if settings.metrics_port:
        from packetfs_compute import metrics  # noqa: PLC0415  (a publisher needs none)

        metrics.count_in_files(_metrics_folder(settings, sender))


@worker_ready.connect
def _begin(sender: Any = None, **_: Any) -> None:
    settings = current_settings()
    fleet = open_fleet(settings, [one.capabilities for one in load_fleet(settings)])
    if settings.metrics_port:
        from packetfs_compute import metrics  # noqa: PLC0415  (a publisher needs none)

        shared = metrics.SharedState(fleet, sender.app.backend)
        folder = _metrics_folder(settings, sender.hostname)
        server = metrics.serve(settings.metrics_port, settings.metrics_address, folder, shared)
        if server is not None:
            _endings.append(server.shutdown)
    queues = [queue for queue in sender.app.amqp.queues.consume_from if queue.startswith(QUEUE_PREFIX)]
    slots = {name: int(sender.pool.limit or 1) for queue in queues if (name := substrate_of_queue(queue, settings))}
    if slots and settings.one_core and isinstance(sender.pool, Threads):
        affinity.stay()
    if SCANS_QUEUE in queues:
        slots[SCANS] = int(sender.pool.limit or 1)
    if slots:
        backend = sender.app.backend
        pulse = Pulse(
            fleet, sender.hostname, slots, polled, lambda: len(state.active_requests), lambda: _hold_jobs(backend)
        )
        _endings.append(pulse.stop)
        pulse.start()


@task_postrun.connect
def _run_errands(task: Any = None, **_: Any) -> None:
    """Run the errands of a task that has stored no result."""
    left = errands.pending()
    if left:
        errands.clear()
        with suppress(redis.RedisError, OSError):  # what cannot be recorded is lost, and its lease ends by itself
            errands.run(task.backend.client, left)


@worker_shutdown.connect
def _end(**_: Any) -> None:
    while _endings:
        _endings.pop()()
    _tell_the_rest()


@worker_process_shutdown.connect
def _tell_the_rest(**_: Any) -> None:
    """Have the journal told of this process's last half second."""
    _journal(os.getpid(), current_settings()).flush()


def _hold_jobs(backend: object) -> None:
    """Say in the ledger which jobs this worker has taken, running or not; and of those that run, which were revoked.

    Celery flags a task that runs and lets it be. Here its result says so at once, by which its attempt is stopped.
    """
    if isinstance(backend, ResultBackend):
        try:
            backend.ledger.renew(list(state.requests), LEASE_S)
            for one in list(state.active_requests):
                if one.id in state.revoked and one.task.name.startswith(TASK_PREFIX):
                    backend.mark_as_cancelled(one.id, "revoked", Context(one.request_dict))
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailable(f"the ledger's Redis does not answer: {error}") from error


def _metrics_folder(settings: Settings, node: str) -> Path:
    return settings.data_dir / "metrics" / re.sub(r"[^A-Za-z0-9@._-]", "_", node or "worker")
