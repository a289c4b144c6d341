"""Routing tried on fleets that one could not rent: discrete events over the very functions that decide in earnest.

:mod:`~packetfs_compute.simulator.scenario` says what happens, :mod:`~packetfs_compute.simulator.world` what is true,
:mod:`~packetfs_compute.simulator.engine` lets the router act on what it knows of that, and
:mod:`~packetfs_compute.simulator.oracle` does the same jobs knowing the future. How far apart they end is the *regret*.
"""

from packetfs_compute.simulator.files import load_scenario, parse_scenario, shipped
from packetfs_compute.simulator.scenario import Scenario, scaled
from packetfs_compute.simulator.simulate import simulate
from packetfs_compute.simulator.tally import Report

__all__ = ["Report", "Scenario", "load_scenario", "parse_scenario", "scaled", "shipped", "simulate"]
