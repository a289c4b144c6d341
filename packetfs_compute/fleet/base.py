"""What a fleet is: the places, their shared health, and the leases that bound how many attempts run in each at once.

Every call is one round trip and takes the moment it is made (Unix seconds), so that tests can pass their own. A fleet
whose store does not answer raises :class:`~packetfs_compute.errors.BrokerUnavailable`: the callers decide what they can
do without it.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from packetfs_compute.routing import Capabilities, Health, Outcome, Snapshot

__all__ = ["LEASE_S", "Fleet", "Leased"]

LEASE_S: Final = 15.0
"""How long a lease lives that is not renewed: so long it takes to notice that a worker has died with its attempts."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A running attempt: whose job, and where."""

    substrate: str
    job_id: str


class Fleet(Protocol):
    """The shared state of all substrates. May be called from many threads."""

    @property
    def places(self) -> tuple[Capabilities, ...]:
        """What the substrates of this fleet declare."""

    def snapshot(self, now: float, publisher: str | None = None) -> Snapshot:
        """Return everything as it is now; ``publisher`` names a process that decides by it, and is counted as one."""

    def begin(self, leased: Leased, now: float) -> bool:
        """Take a slot of the substrate for the job; ``False`` when all that it declares are taken. Asking twice is fine.

        Raises :class:`~packetfs_compute.errors.Cancelled` for a job that nobody wants any more.
        """

    def beginning(self, leased: Leased, now: float) -> AbstractContextManager[Callable[[], bool]]:
        """Begin without waiting for the answer: calling what it gives says, or raises, what :meth:`begin` would have.

        For who begins his work meanwhile. Who never asks is not told.
        """

    def renew(self, leases: Iterable[Leased], now: float) -> frozenset[str]:
        """Keep running attempts' leases alive; return the ids of the jobs among them that nobody wants any more."""

    def record(self, leased: Leased, outcome: Outcome, now: float) -> tuple[Health, bool]:
        """Give the slot back and learn how the attempt ended.

        Return the health after it, and whether a retry that ``outcome`` wants is within the budget.
        """

    def probed(self, substrate: str, ok: bool, now: float, jitter: float = 1.0) -> Health:
        """Learn what an active probe found."""

    def consuming(self, consumer: str, slots: Mapping[str, int], now: float, ttl_s: float) -> None:
        """Say that ``consumer`` runs up to ``slots[substrate]`` attempts of each of these; it counts for ``ttl_s``.

        As long as any consumer is known, a substrate that none consumes has no slots in the snapshot.
        """

    def consumers(self, now: float) -> Mapping[str, frozenset[str]]:
        """Return who consumes which substrate's queue."""
