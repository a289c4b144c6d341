"""``packetfs upkeep``: probe the substrates and sweep the ledger, until Ctrl-C."""

import logging
import time

import click

from packetfs_compute.celery import app, celery_config
from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.journal import open_journal
from packetfs_compute.settings import load_settings
from packetfs_compute.substrates import load_fleet
from packetfs_compute.upkeep import Prober, run_turns, sweep_turn

__all__ = ["upkeep"]


@click.command(short_help="Probe the substrates and sweep the ledger, until Ctrl-C.")
def upkeep() -> None:
    """Probe every substrate (each 2 s, or 10 s while it is well), and publish lost jobs again.

    `packetfs up` runs this beside its workers. On several machines run it on one or two of them, or let Celery beat send
    the tasks packetfs.probe and packetfs.sweep, which do the same.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    settings = load_settings()
    app.conf.update(celery_config(settings))
    substrates = load_fleet(settings)
    fleet = open_fleet(settings, [one.capabilities for one in substrates])
    prober = Prober(fleet, substrates, opened=open_journal(settings).opened)
    try:
        with interruptible():
            run_turns((lambda: sweep_turn(app), prober.turn), _pause)
    except KeyboardInterrupt:
        prober.close()


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False
