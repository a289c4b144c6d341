"""``packetfs up``: the whole system on this machine."""

import json
import os
import time
from dataclasses import replace

import click

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.embedded.faces import Flower, plan_flower
from packetfs_compute.embedded.system import System
from packetfs_compute.settings import Settings, load_settings

__all__ = ["up"]


@click.command(short_help="The whole system on this machine, until Ctrl-C.")
@click.option("--concurrency", type=click.IntRange(1, 1024), help="Jobs at once.  [default: two a CPU]")
@click.option("--no-scans", is_flag=True, help="Without the worker that scans of whole objects need.")
@click.option("--no-gateway", is_flag=True, help="Without HTTP and the dashboard.")
@click.option("--flower", "with_flower", is_flag=True, help="Flower as well, on this machine alone, with a password.")
@click.option("--flower-port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Its port.")
@click.option("--verbose", is_flag=True, help="Log every job to the worker's log.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document once everything is up.")
def up(
    concurrency: int | None,
    no_scans: bool,
    no_gateway: bool,
    with_flower: bool,
    flower_port: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the whole system here until Ctrl-C: Redis (embedded, unless PACKETFS_REDIS_URL is set), workers, and the gateway.

    Jobs and results survive a restart. A process that dies is started again. Flower's password is made anew at each start
    and told once; with FLOWER_BASIC_AUTH=user:password it is that one.

    \b
    packetfs up                        then, in another shell:
    packetfs run crc32c https://host/object
    celery -A packetfs_compute status
    """
    settings = load_settings()
    if concurrency is not None:
        settings = replace(settings, concurrency=concurrency)
    chosen = os.environ.get("FLOWER_BASIC_AUTH") or None
    flower = plan_flower(flower_port, chosen) if with_flower else None
    told = flower.basic_auth if flower is not None and chosen is None else None
    try:
        with (
            interruptible(),
            System(
                settings,
                persistent=True,
                verbose=verbose,
                scans=not no_scans,
                gateway=not no_gateway,
                flower=flower,
            ) as system,
        ):
            (_tell if as_json else _greet)(settings, system, flower, told)
            system.watch(_pause)
    except KeyboardInterrupt:
        click.echo("packetfs stopped", err=True)


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _tell(settings: Settings, system: System, flower: Flower | None, told: str | None) -> None:
    ready = {
        "redis_url": settings.state_url,
        "data_dir": str(settings.data_dir),
        "gateway_url": system.gateway_url,
        "flower_url": None if flower is None else flower.url,
        "flower_basic_auth": told,
        "pids": system.pids,
    }
    click.echo(json.dumps(ready))


def _greet(settings: Settings, system: System, flower: Flower | None, told: str | None) -> None:
    click.echo("packetfs is up; Ctrl-C stops it", err=True)
    for name, pid in system.pids.items():
        click.echo(f"  {name:<7} process {pid}", err=True)
    redis = settings.state_url if settings.embedded else "PACKETFS_REDIS_URL"
    click.echo(f"  at      {redis}\n  logs    {settings.data_dir}/*.log", err=True)
    if system.gateway_url is not None:
        click.echo(f"open:                {system.gateway_url}/", err=True)
    if flower is not None:
        password = "" if told is None else "  user {}, password {}".format(*told.split(":", 1))
        click.echo(f"Flower:              {flower.url}{password}", err=True)
    click.echo("from another shell:  packetfs run crc32c https://host/object", err=True)
    click.echo("from Python:         from tasks import crc32c; crc32c.delay(url).get(timeout=10)", err=True)
    click.echo("to watch:            celery -A packetfs_compute status", err=True)
