"""The system that a command submits to: the configured one, the one that ``packetfs up`` runs, or one of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.result import AsyncResult

from packetfs_compute.celery import app, celery_config
from packetfs_compute.embedded import System, check_redis, holder_pid
from packetfs_compute.names import task_of
from packetfs_compute.settings import Settings

__all__ = ["submit", "system_for", "temporary_system"]


@contextmanager
def system_for(settings: Settings) -> Iterator[None]:
    """Connect the Celery application to a system for as long as the context lasts.

    That is the Redis in the settings, else the system that ``packetfs up`` runs in the data directory, else a system that
    is started now and stopped at the end.
    """
    if settings.embedded and holder_pid(settings.data_dir) is None:
        with temporary_system(settings):
            yield
    else:
        _connect(settings)
        yield


@contextmanager
def temporary_system(settings: Settings) -> Iterator[None]:
    """Run a system of our own in a temporary directory, which is gone afterwards, and submit to it."""
    with tempfile.TemporaryDirectory(prefix="packetfs-") as folder:
        own = replace(settings, redis_url=None, broker_url=None, data_dir=Path(folder))
        with System(own, persistent=False):
            _connect(own)
            yield


def _connect(settings: Settings) -> None:
    """Give the application of this process its settings, once, after seeing that somebody is there."""
    check_redis(settings)
    app.conf.update(celery_config(settings))


def submit(op: str, **arguments: Any) -> AsyncResult[dict[str, Any]]:
    """Publish the task of ``op`` (or ``"program"``) to the system at hand and return the handle of its result."""
    app.loader.import_default_modules()  # the tasks are named in the configuration; this package does not know them
    pending: AsyncResult[dict[str, Any]] = app.tasks[task_of(op)].apply_async(kwargs=arguments)
    return pending
