"""Fly: the compute server of ``remote/fly/`` on Fly Machines, or wherever its container runs."""

from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities
from packetfs_compute.routing.prices import FLY
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.endpoint import EndpointSubstrate

__all__ = ["FlySubstrate"]


class FlySubstrate(EndpointSubstrate):
    """One app; ``url`` is its address. Its machines are ours and run our image, so its results are believed."""

    def __init__(self, spec: SubstrateSpec, settings: Settings) -> None:
        defaults = Capabilities(
            name="fly",
            trust="own",
            memory_mb=256,
            max_range_bytes=MAX_RANGE_BYTES,
            max_duration_s=300.0,
            schemes=frozenset({"http", "https"}),
            kind="fly",
            provider="fly",
            slots=16,
            overhead_s=0.05,
            bytes_per_s=1e8,
            prices=FLY,
        )
        super().__init__(spec, settings, defaults)
