"""A scan as it was asked for: a program over any range, how wide its windows are to be, and a policy for all of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packetfs_compute.job import accept_job
from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.program import Program
from packetfs_compute.routing import Policy
from packetfs_compute.validation import integer

__all__ = ["Scan", "accept_scan", "checked_window"]


@dataclass(frozen=True, slots=True)
class Scan:
    """``window`` is bytes, ``None`` to have it chosen; ``submitted_at`` is Unix seconds, where that is known."""

    id: str
    program: Program
    policy: Policy
    window: int | None = None
    submitted_at: float | None = None

    @property
    def chained(self) -> bool:
        """Whether its bytes must be seen in order."""
        return any(op.name == "fnv64" for op in self.program.ops)

    def to_wire(self) -> dict[str, Any]:
        """Return what tells it from another scan under the same id."""
        return {**self.program.to_wire(), "window": self.window}


def checked_window(raw: object) -> int | None:
    """Return a window's bytes; raise :class:`~packetfs_compute.errors.BadProgram` for what is none."""
    return None if raw is None else integer(raw, "window", 1, MAX_RANGE_BYTES)


def accept_scan(
    scan_id: str, program: Mapping[str, Any], policy: object, window: object, submitted_at: object = None
) -> Scan:
    """Return the scan of untrusted JSON; raise the ``JobError`` that names what is wrong with it."""
    job = accept_job(scan_id, program, policy, submitted_at, scan=True)
    return Scan(scan_id, job.program, job.policy, checked_window(window), job.submitted_at)
