"""The hatch: the desk's way for one scan, for a command that waits for it: without Celery, kombu or redis-py.

To load these takes longer than many a scan. What is kept in Redis is what the desk would have kept: the claim, then the
entry in the ledger and the message in one step, by the same scripts. Whatever the hatch cannot do it leaves to the desk,
which may be given the same submission again: it is published once.
"""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from packetfs_compute.broker.entry import enter_arguments
from packetfs_compute.broker.envelope import Envelope
from packetfs_compute.broker.outcome import JobStatus
from packetfs_compute.broker.script import script_text
from packetfs_compute.errors import JobError
from packetfs_compute.names import (
    JOB_STATE,
    JOBS_KNOWN,
    LEDGER_LEASES,
    LEDGER_OPEN,
    REPLY_FLAG,
    SCANS_QUEUE,
    SUBMITTED_AT,
    TASK_TIME_LIMIT_S,
)
from packetfs_compute.resp import Refused, RespConnection, address_of
from packetfs_compute.settings import Settings
from packetfs_compute.standing import Accepted, Submission, accepted, seen_of, standing, standing_again

__all__ = ["Hatch", "Shut", "open_hatch"]

_SILENCE_S: Final = 5.0
"""How long an answer is waited for."""


class Shut(Exception):
    """The hatch cannot do it, and the desk may: another broker, a URL that it does not understand, a server that is away."""


class Hatch:
    """Submits a scan and tells how it stands. Every method may raise :class:`Shut`; what was done may be done again."""

    def __init__(self, settings: Settings, asking: RespConnection, listening: RespConnection) -> None:
        self._ttl_s = settings.result_ttl_s
        self._asking, self._listening = asking, listening

    def submit(self, one: Submission) -> None:
        """Submit a scan. Raises the ``JobError`` that says what is wrong with it."""
        now = time.time()
        job = accepted(one, now)
        if isinstance(job, JobError):
            raise job
        keys, arguments = job.claim(self._ttl_s)
        with _shut():
            ((publish, *told),) = self._asking.ask(("EVAL", script_text("claim"), len(keys), *keys, *arguments))
        if publish:
            self._publish(job, now)
            return
        stands = standing_again(job, seen_of(*told))
        if isinstance(stands, JobError):
            raise stands

    def status(self, job_id: str) -> JobStatus | None:
        """Return how a job stands, as :meth:`packetfs_compute.desk.Desk.status` does."""
        with _shut():
            *_, told = self._asking.ask(
                ("MULTI",),
                ("GET", JOBS_KNOWN + job_id),
                ("GET", JOB_STATE + job_id),
                ("ZSCORE", LEDGER_OPEN, job_id),
                ("ZSCORE", LEDGER_LEASES, job_id),
                ("TIME",),
                ("EXEC",),
            )
        known, meta, due, lease, (seconds, micros) = told
        return standing(job_id, seen_of(known, meta, due, lease, int(seconds) + int(micros) / 1e6))

    def wait(self, seconds: float) -> None:
        """Return once something was stored of the job, and after ``seconds`` at the latest."""
        self._listening.hear(seconds)

    def _publish(self, job: Accepted, now: float) -> None:
        message = Envelope(
            task=job.task,
            queue=SCANS_QUEUE,
            job_id=job.job.id,
            arguments=job.arguments,
            headers={SUBMITTED_AT: now, REPLY_FLAG: True},
            time_limit_s=TASK_TIME_LIMIT_S,
            origin=f"gen{os.getpid()}@{socket.gethostname()}",
            reply_to=str(uuid.uuid4()),
            tag=str(uuid.uuid4()),
        )
        keys, arguments = enter_arguments(job.job.id, SCANS_QUEUE, message.text(), None)
        with _shut():
            self._asking.ask(("EVAL", script_text("enter"), len(keys), *keys, *arguments))


@contextmanager
def open_hatch(settings: Settings, job_id: str) -> Iterator[Hatch]:
    """Yield a hatch that will hear of the job ``job_id``; raise :class:`Shut` where there is none for these settings."""
    address = address_of(settings.state_url)
    if address is None or settings.broker_url not in (None, settings.state_url):
        raise Shut("another broker, or a URL that redis-py alone understands")
    connect_s = min(settings.connect_timeout_s, _SILENCE_S)
    asking, listening = (RespConnection(address, connect_s, _SILENCE_S) for _ in range(2))
    with closing(asking), closing(listening):
        with _shut():
            asking.open()
            listening.open()
            listening.ask(("SUBSCRIBE", JOB_STATE + job_id))
        yield Hatch(settings, asking, listening)


@contextmanager
def _shut() -> Iterator[None]:
    try:
        yield
    except (Refused, OSError) as error:
        raise Shut(str(error)) from error
