"""The places that run jobs, one small module each. A substrate invokes; deploying it is ``remote/`` and DEPLOYMENT.md."""

from packetfs_compute.routing import declared
from packetfs_compute.substrates.base import Capabilities, Substrate
from packetfs_compute.substrates.registry import load_fleet, load_substrate, substrate_names

__all__ = ["Capabilities", "Substrate", "declared", "load_fleet", "load_substrate", "substrate_names"]
