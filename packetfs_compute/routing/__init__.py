"""Pure decisions about where a job runs: functions of their arguments, with no clock, no socket and no state."""

from packetfs_compute.routing.capabilities import Capabilities, Trust, declared
from packetfs_compute.routing.decide import Candidate, Decision, Wanted, decide
from packetfs_compute.routing.egress import Locality, locality
from packetfs_compute.routing.health import Health, Outcome
from packetfs_compute.routing.policy import Goal, Policy, parse_policy
from packetfs_compute.routing.prices import attempt_usd
from packetfs_compute.routing.snapshot import Member, Snapshot, Survey, survey, unmeasured

__all__ = [
    "Candidate",
    "Capabilities",
    "Decision",
    "Goal",
    "Health",
    "Locality",
    "Member",
    "Outcome",
    "Policy",
    "Snapshot",
    "Survey",
    "Trust",
    "Wanted",
    "attempt_usd",
    "decide",
    "declared",
    "locality",
    "parse_policy",
    "survey",
    "unmeasured",
]
