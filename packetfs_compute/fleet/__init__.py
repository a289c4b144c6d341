"""The fleet's health, shared by all who decide and all who run: ``base.py`` is the contract, ``redis.py`` the real one.

``redis.py`` keeps it where all processes see it, by scripts that do the arithmetic of :mod:`packetfs_compute.routing`;
``stub.py`` keeps it in this process, by the very functions. The real one is imported by its module's name, so that what
runs attempts without a queue needs no Redis client.
"""

from packetfs_compute.fleet.base import LEASE_S, Fleet, Leased
from packetfs_compute.fleet.chooser import FleetChooser
from packetfs_compute.fleet.stub import StubFleet

__all__ = ["LEASE_S", "Fleet", "FleetChooser", "Leased", "StubFleet"]
