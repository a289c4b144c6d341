"""What a substrate is: a place that takes a request of the wire and gives its answer."""

from collections.abc import Mapping
from typing import Any, Protocol

from packetfs_compute.routing import Capabilities

__all__ = ["Capabilities", "Substrate"]


class Substrate(Protocol):
    """A place that runs jobs. Built from its spec and the settings, without I/O; may be called from many threads."""

    @property
    def capabilities(self) -> Capabilities:
        """What the place declares about itself."""

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt: a request of ``remote/contract/`` in, its response out. Never raises for a failed attempt."""

    def health(self, timeout_s: float) -> dict[str, Any]:
        """Return the ``GET /health`` answer of the wire: status, version, protocol, region, ops, kernel, limits.

        Raises a :class:`~packetfs_compute.errors.JobError` when there is none within ``timeout_s``.
        """
