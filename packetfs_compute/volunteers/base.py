"""What the hub needs to remember of browsers, and of the sources that they cannot read.

Calls may block (the real one asks Redis) and are made from many threads. Each takes the moment it is made, in Unix
seconds. One whose store does not answer raises :class:`~packetfs_compute.errors.BrokerUnavailable`.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from packetfs_compute.volunteers.trust import Event, Reputation

__all__ = ["CLOSED_S", "DOUBTED_S", "KEPT_S", "MAX_KEPT", "Reputations"]

MAX_KEPT: Final = 256
"""Most results of one account that are kept for a second look; the oldest go first."""
KEPT_S: Final = 86_400
"""How long they are kept after the newest: as long as results are."""
DOUBTED_S: Final = 60
"""How long a source is not sent to browsers that one network could not read, and a trusted place could."""
CLOSED_S: Final = 86_400
"""How long after a second network could not, within this time."""


class Reputations(Protocol):
    """The shared memory of all hubs."""

    def get(self, account: str) -> Reputation:
        """Return what is known of an account."""

    def record(self, account: str, event: Event, byte_count: int, now: float) -> Reputation:
        """Learn how an answer fared (:func:`packetfs_compute.volunteers.trust.recorded`); return what is known then."""

    def keep(self, account: str, result: Mapping[str, Any]) -> None:
        """Keep a result that no place of trust has confirmed, as JSON, in case the account is caught later."""

    def take(self, account: str) -> list[dict[str, Any]]:
        """Return what was kept of an account, the oldest first, and forget it."""

    def closed(self, origin: str, now: float) -> bool:
        """Return whether browsers cannot read this source, as far as is known."""

    def doubt(self, origin: str, network: str, now: float) -> None:
        """Learn that a browser in ``network`` could not read what a place of trust could.

        The first network's word counts for a minute, since it may be a liar's; with a second one's, for a day.
        """

    def spend(self, token: str, until: float, now: float) -> bool:
        """Return whether ``token``, which is worthless after ``until``, is spent for the first time."""
