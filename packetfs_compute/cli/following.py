"""Follow a scan that was submitted to its end, whoever tells how it stands."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from packetfs_compute.broker.outcome import JobStatus
from packetfs_compute.errors import Internal, error_class

__all__ = ["Show", "Teller", "follow"]

_PATIENCE_S: Final = 3.0
"""After this wait for it to begin, see whether anybody runs scans at all."""
_LOOK_EVERY_S: Final = 0.5
"""Should no news of it come."""

Show = Callable[[Mapping[str, Any]], None]


class Teller(Protocol):
    """Who tells how a job stands."""

    def status(self, job_id: str) -> JobStatus | None:
        """Return how a job stands, or ``None`` where nobody knows it."""


def follow(
    teller: Teller, wait: Callable[[float], object], job_id: str, show: Show, see_who_scans: Callable[[], object]
) -> Mapping[str, Any]:
    """Return the result of a scan; raise what it ended with, or what ``see_who_scans`` says of one that does not begin."""
    look_s: float | None = time.monotonic() + _PATIENCE_S
    while True:
        status = teller.status(job_id)
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
            see_who_scans()
            look_s = None
        wait(_LOOK_EVERY_S)
