"""Prometheus metrics of a worker: what it counts itself, and what the shared state says at each scrape.

A worker of several processes counts in files that they share (prometheus_client's multiprocess mode, which
:func:`count_in_files` turns on before there are any). Counters are the worker's own, to be summed over workers; the
gauges, and the counters of breakers and of the ledger, are the fleet's and the same from every worker, to be taken once
(``max``).
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from packetfs_compute.broker.ledger import Ledger
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.dispatch import Course
from packetfs_compute.errors import BrokerUnavailable, JobError
from packetfs_compute.fleet import Fleet
from packetfs_compute.job import Job
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Health, Outcome
from packetfs_compute.routing.breaker import State, state_at
from packetfs_compute.routing.recovery import Again

__all__ = ["SharedState", "WorkerMetrics", "count_in_files", "scan_ended", "serve"]

_log = logging.getLogger(__name__)

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LONG: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400)
_STATES: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}

_OWN: Final = CollectorRegistry()
_PLACE: Final = ["substrate"]
_jobs = Counter(
    "packetfs_jobs", "Jobs that ended, by how: done, or their error's type.", ["op", *_PLACE, "outcome"], registry=_OWN
)
_cached = Counter("packetfs_cached", "Jobs that were done because their values were known.", _PLACE, registry=_OWN)
_attempts = Counter("packetfs_attempts", "Attempts that ended, by how.", [*_PLACE, "outcome"], registry=_OWN)
_seconds = Histogram("packetfs_attempt_seconds", "What an attempt took.", _PLACE, buckets=_BUCKETS, registry=_OWN)
_moves = Counter("packetfs_moves", "Jobs that went on to another attempt.", [*_PLACE, "to"], registry=_OWN)
_cost = Counter("packetfs_cost_usd", "What attempts cost, egress from the source included.", _PLACE, registry=_OWN)
_scans = Counter(
    "packetfs_scans", "Scans that ended, by how: done, cached, or their error's type.", ["outcome"], registry=_OWN
)
_scan_seconds = Histogram("packetfs_scan_seconds", "What a scan took, its wait included.", buckets=_LONG, registry=_OWN)
_bytes = Counter("packetfs_bytes", "Bytes that were computed on.", _PLACE, registry=_OWN)

_GAUGES: Final[tuple[tuple[str, str, Callable[[Health, float], float]], ...]] = (
    ("packetfs_breaker_state", "0 closed, 1 half-open, 2 open.", lambda h, now: _STATES[state_at(h.breaker, now)]),
    ("packetfs_queue_depth", "Messages in the substrate's queue.", lambda h, _: h.depth),
    ("packetfs_running_attempts", "Attempts that hold a lease.", lambda h, _: h.in_flight),
    ("packetfs_slots", "Attempts that live consumers run at once.", lambda h, _: h.slots or 0),
)


class WorkerMetrics:
    """Counts what a dispatcher tells it; see :class:`packetfs_compute.dispatch.Observer`."""

    def attempt(self, job: Job, attempt: Attempt, outcome: Outcome, *, opened: bool) -> None:
        """One attempt has ended."""
        del job, opened  # the fleet counts openings
        name = attempt["substrate"]
        _attempts.labels(name, "done" if attempt["error"] is None else attempt["error"]["type"]).inc()
        _seconds.labels(name).observe(attempt["seconds"])
        _cost.labels(name).inc(outcome.cost_usd)
        _bytes.labels(name).inc(outcome.byte_count)

    def moved(self, job: Job, substrate: str, again: Again) -> None:
        """The job goes on to another attempt."""
        del job
        _moves.labels(substrate, again.substrate).inc()

    def finished(self, job: Job, substrate: str, error: JobError | None, course: Course) -> None:
        """The job has ended."""
        if course.cached:
            _cached.labels(substrate).inc()
        ops = job.program.ops
        op = ops[0].name if len(ops) == 1 else "program"
        _jobs.labels(op, substrate, "done" if error is None else error.type).inc()


def scan_ended(error: JobError | None, *, cached: bool, total_s: float) -> None:
    """A scan has ended. Its windows are jobs, and counted as such."""
    _scans.labels(error.type if error is not None else "cached" if cached else "done").inc()
    _scan_seconds.observe(total_s)


class SharedState(Collector):
    """Reads the fleet and the ledger at each scrape; while their Redis is away there are no such samples."""

    def __init__(self, fleet: Fleet, backend: ResultBackend) -> None:
        self._fleet = fleet
        self._backend = backend

    def collect(self) -> Iterable[Metric]:
        """Return the samples of now."""
        now = time.time()
        try:
            members = self._fleet.snapshot(now).members
            ledger: Ledger = self._backend.ledger
            stats = ledger.stats()
        except (BrokerUnavailable, redis.RedisError, OSError):
            return
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=_PLACE)
            for member in members:
                gauge.add_metric([member.place.name], value(member.health, now))
            yield gauge
        opened = CounterMetricFamily("packetfs_breaker_opened", "How often a breaker opened.", labels=_PLACE)
        for member in members:
            opened.add_metric([member.place.name], member.health.opened)
        yield opened
        yield GaugeMetricFamily("packetfs_open_jobs", "Jobs in the ledger: published, and not ended.", stats.open)
        yield CounterMetricFamily(
            "packetfs_resubmitted", "Messages that the sweeper published again.", stats.resubmitted
        )
        yield CounterMetricFamily("packetfs_given_up", "Jobs that the sweeper gave up.", stats.given_up)


class _Own(Collector):
    """What all processes of this worker have counted."""

    def __init__(self, folder: Path) -> None:
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()


def count_in_files(folder: Path) -> None:
    """Have this process, and those that it forks, count together in ``folder``, which is emptied first.

    prometheus_client looks at the variable when it is imported, which Celery's command line does early where Flower is
    installed; so the choice is made again here. It holds for every sample that is counted from now on.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a worker of this name before
    folder.mkdir(mode=0o700, parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def serve(port: int, address: str, folder: Path, shared: SharedState) -> Any:
    """Serve the metrics of this worker at ``/metrics``; return the server, to be shut down, or ``None`` without one.

    A port that is taken is logged as an error: a worker that computes unwatched is better than none.
    """
    registry = CollectorRegistry()
    registry.register(_Own(folder))
    registry.register(shared)
    try:
        server, _ = start_http_server(port, address, registry)
    except OSError as error:
        _log.error("no metrics: %s port %d cannot be listened on: %s", address, port, error.strerror)
        return None
    return server
