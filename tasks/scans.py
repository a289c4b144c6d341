"""Scans as Celery tasks: ``scan.delay(url, ops=[…])`` runs them over a whole object, wherever its windows run best."""

import functools
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from celery.exceptions import Ignore
from kombu.exceptions import KombuError
from redis import RedisError

from packetfs_compute.broker.outcome import PROGRESS
from packetfs_compute.broker.results import ResultBackend
from packetfs_compute.cache.redis import open_cache
from packetfs_compute.celery import SUBMITTED_AT, app, current_settings, router_of
from packetfs_compute.desk import Desk
from packetfs_compute.errors import Cancelled, JobError
from packetfs_compute.fleet import LEASE_S, Leased
from packetfs_compute.journal import ScanBoard, open_board
from packetfs_compute.names import SCAN_TASK, SCANS
from packetfs_compute.scanning.here import scan_here
from packetfs_compute.scanning.request import accept_scan
from packetfs_compute.scanning.scanner import Scanner
from packetfs_compute.scanning.state import connect
from packetfs_compute.scanning.tally import Progress, ScanResult
from packetfs_compute.worker import current_dispatcher, scan_ended
from tasks.base import JobTask, is_finished

__all__ = ["scan"]

_Json = dict[str, Any]


@app.task(bind=True, base=JobTask, name=SCAN_TASK)
def scan(
    self: JobTask,
    data_url: str,
    ops: list[_Json],
    window: int | None = None,
    policy: _Json | None = None,
    etag: str | None = None,
    offset: int = 0,
    length: int | None = None,
    cache: bool = True,
) -> ScanResult:
    """Run operations over a whole object, or a range of any length: split into windows, combined exactly.

    ``window`` is bytes, chosen where it is left out. ``policy`` is the whole scan's: its cost, its deadline. While it runs,
    the task's state is ``PROGRESS``, and its info says how far it is.
    """
    raw = {"data_url": data_url, "offset": offset, "length": length, "etag": etag, "ops": ops}
    return _run(self, raw, window, policy if cache else {**(policy or {}), "cache": False})


def _run(task: JobTask, raw: Mapping[str, Any], window: object, policy: object) -> ScanResult:
    request = task.request
    if (request.delivery_info or {}).get("redelivered") and is_finished(task):
        raise Ignore
    asked = accept_scan(str(request.id), raw, policy, window, getattr(request, SUBMITTED_AT, None))
    if request.called_directly or request.is_eager:
        return scan_here(asked, current_settings())

    since, board = time.time(), _board(os.getpid())

    def tell(progress: Progress) -> None:
        with suppress(RedisError, OSError, KombuError):  # news of a second, not worth the scan
            task.update_state(state=PROGRESS, meta=cast("_Json", progress))
        board.tell(asked.id, asked.program, asked.submitted_at or since, cast("_Json", progress))

    _lease(task)
    result: ScanResult | None = None
    error: JobError | None = None
    try:
        with current_dispatcher().hold(Leased(SCANS, asked.id)):
            result = _scanner(os.getpid()).run(asked, tell)
            return result
    except Cancelled as cancelled:
        error = cancelled
        task.backend.mark_as_revoked(asked.id, error.message, request)  # it is already, but a chord has not counted it
        raise Ignore from error
    except JobError as failed:
        error = failed
        raise
    finally:
        board.end(asked.id)
        if result is not None or error is not None:  # else somebody else goes on with it
            total_s = time.time() - (asked.submitted_at or since)
            scan_ended(asked.id, asked.program, result if error is None else None, error, total_s)


def _lease(task: JobTask) -> None:
    """Say at once that the scan runs; from here on its lease is kept alive."""
    backend = task.backend
    if isinstance(backend, ResultBackend):
        with suppress(RedisError, OSError):
            backend.ledger.lease(str(task.request.id), LEASE_S)


@functools.lru_cache(maxsize=1)
def _board(pid: int) -> ScanBoard:
    del pid  # as below
    return open_board(current_settings())


@functools.lru_cache(maxsize=1)
def _scanner(pid: int) -> Scanner:
    del pid  # a fork has no threads and must not share connections
    settings = current_settings()
    desk = Desk(settings)
    return Scanner(settings, desk, router_of(settings), connect(settings), news=desk.news, cache=open_cache(settings))
