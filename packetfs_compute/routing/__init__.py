"""Pure decisions about where a job runs: functions of their arguments, with no clock, no socket and no state."""

from packetfs_compute.routing.capabilities import Capabilities, Trust, declared
from packetfs_compute.routing.policy import Goal, Policy, parse_policy, vetoes

__all__ = ["Capabilities", "Goal", "Policy", "Trust", "declared", "parse_policy", "vetoes"]
