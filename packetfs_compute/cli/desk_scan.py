"""Submit a scan by the desk, which Celery and redis-py come with: what the hatch leaves to it."""

from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from packetfs_compute.cli.following import Show, follow
from packetfs_compute.cli.session import system_for
from packetfs_compute.cli.submit import check_consumers
from packetfs_compute.errors import JobError, PacketFSError
from packetfs_compute.names import SCANS_QUEUE
from packetfs_compute.settings import Settings
from packetfs_compute.standing import Submission

__all__ = ["cancel_by_desk", "scan_by_desk", "see_who_scans"]


def scan_by_desk(settings: Settings, one: Submission, show: Show) -> Mapping[str, Any]:
    """Run a scan on the system at hand, or on one of its own; return its result, or raise what it ended with."""
    with system_for(settings, scans=True) as session, closing(session.desk()) as desk:
        try:
            with desk.news(one.job_id) as news:
                (told,) = desk.submit_many([one])
                if isinstance(told, JobError):
                    raise told
                return follow(desk, news.wait, one.job_id, show, lambda: check_consumers(SCANS_QUEUE))
        except KeyboardInterrupt:
            with suppress(PacketFSError):
                desk.cancel(one.job_id)
            raise


def cancel_by_desk(settings: Settings, job_id: str) -> None:
    """Cancel a scan, if there is still somebody to be told."""
    with suppress(PacketFSError), system_for(settings) as session, closing(session.desk()) as desk:
        desk.cancel(job_id)


def see_who_scans(settings: Settings) -> None:
    """Raise :class:`~packetfs_compute.errors.BrokerUnavailable` where nobody does."""
    with system_for(settings):
        check_consumers(SCANS_QUEUE)
