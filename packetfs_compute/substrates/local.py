"""The local substrate: this process, its C kernels, its network."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from packetfs_compute.executor import execute, health
from packetfs_compute.names import LOCAL, MAX_RANGE_BYTES, MAX_TIMEOUT_MS
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities, declared
from packetfs_compute.settings import Settings

__all__ = ["LocalSubstrate"]


class LocalSubstrate:
    """Runs attempts in the calling thread; the kernels let go of the GIL, so threads share the machine's cores."""

    def __init__(self, spec: SubstrateSpec, settings: Settings) -> None:
        self._settings = settings if spec.region is None else replace(settings, region=spec.region)
        defaults = Capabilities(
            name=LOCAL,
            trust="own",
            memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            max_range_bytes=MAX_RANGE_BYTES,
            max_duration_s=MAX_TIMEOUT_MS / 1000,
            schemes=frozenset({"http", "https", "s3", "file"}),
            region=settings.region,
            overhead_s=0.002,
        )
        self.capabilities = declared(defaults, spec)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one attempt here."""
        return execute(request, self._settings)

    def health(self, timeout_s: float) -> dict[str, Any]:  # noqa: ARG002
        """Return the health answer; this process is well when it can say so."""
        return health(self._settings)
