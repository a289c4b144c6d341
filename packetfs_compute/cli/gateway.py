"""``packetfs gateway``: jobs over HTTP, until Ctrl-C."""

import json
import logging
import os
import signal
from dataclasses import replace
from types import FrameType

import click

from packetfs_compute.celery import app as celery_app
from packetfs_compute.celery import celery_config
from packetfs_compute.desk import Desk
from packetfs_compute.embedded.server import check_redis
from packetfs_compute.errors import ConfigurationError
from packetfs_compute.gateway import open_keys
from packetfs_compute.gateway.exposure import check_exposure, inherit, listen, url_of
from packetfs_compute.settings import load_settings

try:
    from packetfs_compute.gateway.app import create_app
    from packetfs_compute.gateway.server import serve
except ModuleNotFoundError as error:  # `packetfs --help` loads every command, with the extra or without
    _missing = error.name
else:
    _missing = None

__all__ = ["gateway"]


@click.command(short_help="Jobs over HTTP, until Ctrl-C.")
@click.option("--host", help="Where to listen.  [default: PACKETFS_GATEWAY_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 is any.  [default: PACKETFS_GATEWAY_PORT, else 8765]")
@click.option("--fd", type=click.IntRange(3), help="Serve a socket that listens already: this descriptor.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document once it listens.")
def gateway(host: str | None, port: int | None, fd: int | None, as_json: bool) -> None:
    """Serve the HTTP API, its pages and its metrics, over the Redis in the settings.

    On this machine alone (127.0.0.1) it is open while there is no API key. To listen elsewhere it needs one first:

    \b
    packetfs keys add --scope submit --scope read
    packetfs gateway --host 0.0.0.0
    """
    if _missing is not None:
        hint = "pip install 'packetfs-unified-compute[gateway]'"
        raise ConfigurationError(f"{_missing} is not installed", {"field": "gateway", "hint": hint})
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    if fd is not None and (host is not None or port is not None):
        raise click.UsageError("--fd says where it listens: give no --host and no --port with it")
    settings = load_settings()
    inherited = None if fd is None else inherit(fd)
    if inherited is not None:  # whatever is set: who reaches this socket is what counts
        host, port = inherited.getsockname()[:2]
    settings = replace(
        settings,
        gateway_host=settings.gateway_host if host is None else host,
        gateway_port=settings.gateway_port if port is None else port,
    )
    check_redis(settings)
    check_exposure(settings, open_keys(settings))
    celery_app.conf.update(celery_config(settings))
    celery_app.loader.import_default_modules()  # the tasks are named in the configuration; this package does not know them
    application = create_app(settings, Desk(settings), lambda: celery_app.backend)
    with inherited or listen(settings.gateway_host, settings.gateway_port) as listening:
        url = url_of(settings.gateway_host, listening)
        if as_json:
            click.echo(json.dumps({"url": url, "pid": os.getpid()}))
        else:
            click.echo(f"packetfs gateway is at {url}, its API at {url}/docs; Ctrl-C stops it", err=True)
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, _end)
        serve(application, listening)


def _end(number: int, frame: FrameType | None) -> None:
    """End well: uvicorn raises the signal again when it has shut down, and an end that was asked for is no failure."""
    del number, frame
    raise SystemExit(0)
