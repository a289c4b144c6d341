"""Cloud Run: the container of ``remote/fly/`` as the service of ``remote/cloudrun/``, beside buckets of Google's."""

from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities
from packetfs_compute.routing.prices import CLOUD_RUN
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.endpoint import EndpointSubstrate

__all__ = ["CloudRunSubstrate"]


class CloudRunSubstrate(EndpointSubstrate):
    """One service; ``url`` is its address, ``region`` the one that it was deployed to."""

    def __init__(self, spec: SubstrateSpec, settings: Settings) -> None:
        defaults = Capabilities(
            name="cloudrun",
            trust="own",
            memory_mb=512,
            max_range_bytes=MAX_RANGE_BYTES,
            max_duration_s=3600.0,
            schemes=frozenset({"http", "https"}),
            kind="cloudrun",
            provider="gcp",
            slots=80,
            overhead_s=0.05,
            bytes_per_s=2e8,
            prices=CLOUD_RUN,
        )
        super().__init__(spec, settings, defaults)
