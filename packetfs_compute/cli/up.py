"""``packetfs up``: the whole system on this machine."""

import json
import time
from dataclasses import replace

import click

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.embedded import System
from packetfs_compute.settings import load_settings

__all__ = ["up"]


@click.command(short_help="The whole system on this machine, until Ctrl-C.")
@click.option("--concurrency", type=click.IntRange(1, 1024), help="Jobs at once.  [default: one a CPU]")
@click.option("--verbose", is_flag=True, help="Log every job to the worker's log.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document once everything is up.")
def up(concurrency: int | None, verbose: bool, as_json: bool) -> None:
    """Run the whole system here until Ctrl-C: Redis (embedded, unless PACKETFS_REDIS_URL is set) and a worker.

    Jobs and results survive a restart. A process that dies is started again.

    \b
    packetfs up                        then, in another shell:
    packetfs run crc32c https://host/object
    celery -A packetfs_compute status
    """
    settings = load_settings()
    if concurrency is not None:
        settings = replace(settings, concurrency=concurrency)
    try:
        with interruptible(), System(settings, persistent=True, verbose=verbose) as system:
            if as_json:
                ready = {"redis_url": settings.state_url, "data_dir": str(settings.data_dir), "pids": system.pids}
                click.echo(json.dumps(ready))
            else:
                _greet(
                    settings.state_url if settings.embedded else "PACKETFS_REDIS_URL", str(settings.data_dir), system
                )
            system.watch(_pause)
    except KeyboardInterrupt:
        click.echo("packetfs stopped", err=True)


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _greet(redis: str, logs: str, system: System) -> None:
    click.echo("packetfs is up; Ctrl-C stops it", err=True)
    for name, pid in system.pids.items():
        click.echo(f"  {name:<7} process {pid}", err=True)
    click.echo(f"  at      {redis}\n  logs    {logs}/*.log", err=True)
    click.echo("from another shell:  packetfs run crc32c https://host/object", err=True)
    click.echo("from Python:         from tasks import crc32c; crc32c.delay(url).get(timeout=10)", err=True)
    click.echo("to watch:            celery -A packetfs_compute status", err=True)
