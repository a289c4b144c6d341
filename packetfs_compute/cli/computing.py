"""Computing over whole objects from many threads: each asks for a result and waits, and all can be stopped at once."""

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from packetfs_compute.cli.submit import check_consumers
from packetfs_compute.desk import Desk, JobStatus
from packetfs_compute.errors import AttemptTimeout, Cancelled, error_class
from packetfs_compute.names import SCANS_QUEUE, queue_of
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import substrate_names
from packetfs_compute.verifying.verify import Facts

__all__ = ["Computing"]

_JOB_BYTES: Final = 64 << 20
"""Up to here one job does it: to split so little takes longer than to read it."""
_POLL_S: Final = (0.02, 0.5)
_MARGIN_S: Final = 5.0
"""How much longer than its own deadline an answer is waited for."""
_PATIENCE_S: Final = 3.0
"""After this wait, see whether there is any worker."""


class Computing:
    """Submits a job, or for a large object a scan, at ``desk`` for each call, and waits for its end.

    Any number of threads may call it.
    """

    def __init__(self, desk: Desk, settings: Settings, policy: Mapping[str, Any] | None) -> None:
        self._desk = desk
        self._settings = settings
        self._policy = None if policy is None else dict(policy)
        self._stopped = threading.Event()
        self._manned: set[str] = set()
        """Queues that somebody is known to consume."""

    def __call__(self, source: str, ops: list[dict[str, Any]], facts: Facts) -> Mapping[str, Any]:
        """Return the result of ``ops`` over all of the object at ``source``.

        Raises the ``JobError`` that it ended with; :class:`Cancelled` when all are stopped; :class:`AttemptTimeout` when no
        answer comes in time; :class:`~packetfs_compute.errors.BrokerUnavailable` when nobody is there to give one.
        """
        job_id = f"verify-{uuid.uuid4()}"
        program = {"data_url": source, "ops": ops, "etag": facts.etag}
        # Bytes in order cannot be split, and how many there are may not be known.
        scan = not source.startswith(("/", "file:")) and (facts.size is None or facts.size > _JOB_BYTES)
        submit = self._desk.submit_scan if scan else self._desk.submit
        status: JobStatus | None = submit(job_id, program, policy=self._policy)
        started, (wait_s, longest_s) = time.monotonic(), _POLL_S
        while status is not None and status["status"] in ("queued", "running"):
            if self._stopped.wait(wait_s):
                self._desk.cancel(job_id)
                raise Cancelled("it was interrupted", {"job_id": job_id})
            wait_s = min(1.5 * wait_s, longest_s)
            self._check(status, time.monotonic() - started, scan=scan)
            status = self._desk.status(job_id)
        return _result(status, job_id)

    def stop(self) -> None:
        """Cancel what runs; calls end with :class:`Cancelled`."""
        self._stopped.set()

    def _check(self, status: JobStatus, waited_s: float, *, scan: bool) -> None:
        """See that there is somebody to wait for, and that the time for it is not over."""
        queues = [SCANS_QUEUE] if scan else [queue_of(name) for name in substrate_names(self._settings)]
        if status["status"] == "running":
            self._manned.add(queues[0])
        if waited_s > _PATIENCE_S and queues[0] not in self._manned:
            check_consumers(*queues)
            self._manned.add(queues[0])
        deadline_s = (self._policy or {}).get("deadline_s") or (None if scan else self._settings.timeout_s)
        if deadline_s is not None and waited_s > float(deadline_s) + _MARGIN_S:
            self._desk.cancel(status["job_id"])
            raise AttemptTimeout(f"no answer within {float(deadline_s) + _MARGIN_S:g} s", {"job_id": status["job_id"]})


def _result(status: JobStatus | None, job_id: str) -> Mapping[str, Any]:
    """Return the result of what has ended, or raise what it ended with."""
    if status is not None and status["result"] is not None:
        return status["result"]
    error = None if status is None else status["error"]
    if error is None:
        raise AttemptTimeout("its result is gone", {"job_id": job_id})
    raise error_class(error["type"])(error["message"], {"job_id": job_id})
