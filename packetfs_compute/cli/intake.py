"""``packetfs intake``: take jobs from a Redis list, until SIGTERM or Ctrl-C."""

import logging
import signal
from types import FrameType

import click

from packetfs_compute.celery import app, celery_config
from packetfs_compute.desk import Desk
from packetfs_compute.intake import Intake
from packetfs_compute.settings import load_settings

__all__ = ["intake"]


@click.command(short_help="Take jobs from the Redis list packetfs:jobs:queue, until Ctrl-C.")
@click.option("--batch", type=click.IntRange(1, 1000), default=200, show_default=True, help="Messages taken at once.")
def intake(batch: int) -> None:
    """Take jobs from the Redis list packetfs:jobs:queue and submit them.

    `packetfs up` runs this beside its workers. Several may run at once, on any hosts: what one had taken when it died,
    another takes over.

    \b
    redis-cli LPUSH packetfs:jobs:queue '{"job_id": "j1", "program": {"data_url": "https://host/object", "op": "crc32c"}}'
    redis-cli GET packetfs:results:j1           how it ended, kept for a day
    redis-cli LRANGE packetfs:jobs:rejected 0 9     what was no job, and why
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    settings = load_settings()
    app.conf.update(celery_config(settings))
    app.loader.import_default_modules()
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        del number, frame
        stopping = True

    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, stop)
    Intake(settings, Desk(settings), batch).run(lambda: stopping)
