"""What a coordinator has around it: the desk that runs its windows as jobs, and the store of what they came to."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from packetfs_compute.broker.outcome import JobStatus
from packetfs_compute.desk import Submission
from packetfs_compute.errors import JobError
from packetfs_compute.scanning.tally import Part, Tally

__all__ = ["WindowDesk", "WindowStore"]


class WindowDesk(Protocol):
    """What of :class:`packetfs_compute.desk.Desk` runs windows. Every call may raise :class:`BrokerUnavailable`."""

    def submit_many(self, submissions: Sequence[Submission]) -> Sequence[JobStatus | JobError]:
        """Submit jobs; tell of each how it stands, or why it was refused."""

    def statuses(self, job_ids: Sequence[str]) -> Sequence[JobStatus | None]:
        """Tell how jobs stand, in order."""

    def cancel(self, job_id: str) -> JobStatus | None:
        """Cancel a job."""

    def forget(self, job_ids: Sequence[str]) -> None:
        """Keep nothing more of jobs that have ended."""

    def places(self, job_ids: Sequence[str]) -> Sequence[str | None]:
        """Tell on which substrate's queue each open job is or was."""


class WindowStore(Protocol):
    """What of :class:`packetfs_compute.scanning.state.ScanState` is needed here."""

    def keep(self, parts: Mapping[int, Part]) -> None:
        """Keep what windows came to."""

    def part(self, number: int) -> Part | None:
        """Return what is kept of a window."""

    def keep_tally(self, tally: Tally) -> None:
        """Keep what went wrong."""
