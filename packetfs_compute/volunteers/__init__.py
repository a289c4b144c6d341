"""Browsers that lend a hand, seen from the server: whom to believe, and the hub that they are connected to.

``trust.py`` has the rules and the argument for them, all pure. ``base.py`` says what must be remembered of browsers,
``redis.py`` remembers it for all hubs, ``stub.py`` for one process. ``hub.py`` hands programs out, ``session.py`` is one
browser's connection, ``judge.py`` applies the rules; ``frames.py`` is what goes over the wire
(``remote/contract/browser.schema.json``), ``tickets.py`` how a page gets in. No web server is needed here; the real store
is imported by its module's name, as with the fleet's.
"""

from packetfs_compute.volunteers.base import Reputations
from packetfs_compute.volunteers.hub import Hub
from packetfs_compute.volunteers.judge import Stats
from packetfs_compute.volunteers.session import Close, Connection, Limits
from packetfs_compute.volunteers.stub import StubReputations
from packetfs_compute.volunteers.tickets import Tickets
from packetfs_compute.volunteers.trust import Reputation, network_of

__all__ = [
    "Close",
    "Connection",
    "Hub",
    "Limits",
    "Reputation",
    "Reputations",
    "Stats",
    "StubReputations",
    "Tickets",
    "network_of",
]
