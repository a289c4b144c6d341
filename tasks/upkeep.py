"""What Celery beat sends now and then: probe the substrates, sweep the ledger. Each task is one turn."""

import functools
import os

from packetfs_compute.celery import app, current_settings
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.journal import open_journal
from packetfs_compute.names import PROBE_TASK, SWEEP_TASK
from packetfs_compute.substrates import load_fleet
from packetfs_compute.upkeep import Prober, sweep_turn
from tasks.base import JobTask

__all__ = ["probe", "sweep"]


@app.task(base=JobTask, name=SWEEP_TASK, ledger=False, ignore_result=True)
def sweep() -> None:
    """Publish again what was lost."""
    sweep_turn(app)


@app.task(base=JobTask, name=PROBE_TASK, ledger=False, ignore_result=True)
def probe() -> None:
    """Probe the substrates whose turn it is."""
    _prober(os.getpid()).turn()


@functools.lru_cache(maxsize=1)
def _prober(pid: int) -> Prober:
    del pid  # a fork has no threads and must not share connections
    settings = current_settings()
    substrates = load_fleet(settings)
    fleet = open_fleet(settings, [one.capabilities for one in substrates])
    return Prober(fleet, substrates, opened=open_journal(settings).opened)
