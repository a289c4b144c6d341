"""The local substrate: this process, its C kernels, its network."""

import os
from collections.abc import Mapping
from typing import Any

from packetfs_compute import __version__, kernels
from packetfs_compute.executor import execute
from packetfs_compute.names import LOCAL, MAX_RANGE_BYTES, MAX_TIMEOUT_MS, OPS, PROTOCOL
from packetfs_compute.routing import Capabilities
from packetfs_compute.settings import Settings

__all__ = ["LocalSubstrate"]


class LocalSubstrate:
    """Runs attempts in the calling thread; the kernels let go of the GIL, so threads share the machine's cores."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def capabilities(self) -> Capabilities:
        """What this machine offers."""
        return Capabilities(
            name=LOCAL,
            trust="own",
            memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            max_range_bytes=MAX_RANGE_BYTES,
            max_duration_s=MAX_TIMEOUT_MS / 1000,
            schemes=frozenset({"http", "https", "s3", "file"}),
        )

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt here."""
        return execute(request, self._settings)

    def health(self) -> dict[str, Any]:
        """Return the health answer; this process is well when it can say so."""
        return {
            "status": "healthy",
            "version": __version__,
            "protocol": PROTOCOL,
            "region": self._settings.region,
            "ops": list(OPS),
            "kernel": ", ".join(sorted(set(kernels.active().values()))),
            "limits": {"maxRangeBytes": MAX_RANGE_BYTES, "maxTimeoutMs": MAX_TIMEOUT_MS},
        }
