"""The system that a command submits to: the configured one, the one that ``packetfs up`` runs, or one of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.result import AsyncResult

from packetfs_compute.celery import app, broker_errors, celery_config
from packetfs_compute.desk import Desk
from packetfs_compute.embedded.lock import holder_pid
from packetfs_compute.embedded.server import check_redis
from packetfs_compute.embedded.system import System
from packetfs_compute.errors import PacketFSError
from packetfs_compute.names import task_of
from packetfs_compute.settings import Settings

__all__ = ["Session", "system_for", "temporary_system"]


class Session:
    """The Celery application of this process, connected to one system. A process has one session."""

    def __init__(self, settings: Settings) -> None:
        check_redis(settings)
        self._settings = settings
        app.conf.update(celery_config(settings))
        app.loader.import_default_modules()  # the tasks are named in the configuration; this package does not know them
        self._pending: list[AsyncResult[dict[str, Any]]] = []

    def submit(self, op: str, **arguments: Any) -> AsyncResult[dict[str, Any]]:
        """Publish the task of ``op`` (or ``"program"``) and return the handle of its result."""
        pending: AsyncResult[dict[str, Any]] = app.tasks[task_of(op)].apply_async(kwargs=arguments)
        self._pending.append(pending)
        return pending

    def cancel(self, pending: AsyncResult[dict[str, Any]]) -> None:
        """Cancel a job that nobody waits for any more, if there is still somebody to be told."""
        with closing(self.desk()) as desk, suppress(PacketFSError):
            desk.cancel(pending.id)

    def desk(self) -> Desk:
        """Return a desk of this system, which whoever asks for it closes."""
        return Desk(self._settings)

    def let_go(self) -> None:
        """Stop waiting for results while the store is there; else each handle tries to when it is garbage, and prints."""
        for pending in self._pending:
            with suppress(*broker_errors(app)):
                app.backend.remove_pending_result(pending)  # type: ignore[attr-defined]


@contextmanager
def system_for(settings: Settings, *, scans: bool = False) -> Iterator[Session]:
    """Yield a session with a system that lasts as long as the context does.

    That is the Redis in the settings, else the system that ``packetfs up`` runs in the data directory, else a system that
    is started now, with a worker for ``scans`` where they are wanted, and stopped at the end.
    """
    if settings.embedded and holder_pid(settings.data_dir) is None:
        with temporary_system(settings, scans=scans) as session:
            yield session
    else:
        session = Session(settings)
        try:
            yield session
        finally:
            session.let_go()


@contextmanager
def temporary_system(settings: Settings, *, scans: bool = False) -> Iterator[Session]:
    """Yield a session with a system of our own in a temporary directory, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="packetfs-") as folder:
        own = replace(settings, redis_url=None, broker_url=None, data_dir=Path(folder))
        with System(own, persistent=False, scans=scans), system_for(replace(own, redis_url=own.state_url)) as session:
            yield session
