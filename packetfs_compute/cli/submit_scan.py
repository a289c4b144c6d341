"""Submit a scan to the system at hand and follow it to its end: what ``packetfs scan`` does without ``--inline``."""

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any, Final

from packetfs_compute.broker.news import News
from packetfs_compute.cli.session import system_for
from packetfs_compute.cli.submit import check_consumers
from packetfs_compute.desk import Desk
from packetfs_compute.errors import Internal, PacketFSError, error_class
from packetfs_compute.names import SCANS_QUEUE
from packetfs_compute.settings import Settings

__all__ = ["submit_scan_and_wait"]

_PATIENCE_S: Final = 3.0
"""After this wait for it to begin, see whether anybody runs scans at all."""
_LOOK_EVERY_S: Final = 0.5
"""Should no news of it come."""

_Show = Callable[[Mapping[str, Any]], None]


def submit_scan_and_wait(
    settings: Settings, program: Mapping[str, Any], window: int | None, policy: Mapping[str, Any] | None, show: _Show
) -> Mapping[str, Any]:
    """Run a scan on the system at hand and return its result; raise what it ended with. Who interrupts it cancels it."""
    with system_for(settings, scans=True) as session, closing(session.desk()) as desk:
        job_id = str(uuid.uuid4())
        try:
            with desk.news(job_id) as news:
                desk.submit_scan(job_id, program, window, policy)
                return _result(desk, job_id, show, news)
        except KeyboardInterrupt:
            with suppress(PacketFSError):
                desk.cancel(job_id)
            raise


def _result(desk: Desk, job_id: str, show: _Show, news: News) -> Mapping[str, Any]:
    look_s: float | None = time.monotonic() + _PATIENCE_S
    while True:
        status = desk.status(job_id)
        if status is None:
            raise Internal("the scan is not known any more", {"job_id": job_id})
        if status["result"] is not None:
            return status["result"]
        error = status["error"]
        if error is not None:
            details = {name: value for name, value in error.items() if name not in ("type", "message")}
            raise error_class(error["type"])(error["message"], {"job_id": job_id, **details})
        if "progress" in status:
            show(status["progress"])
            look_s = None
        elif look_s is not None and time.monotonic() > look_s and status["status"] == "queued":
            check_consumers(SCANS_QUEUE)
            look_s = None
        news.wait(_LOOK_EVERY_S)
