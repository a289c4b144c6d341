"""Cloudflare: the Worker of ``remote/cloudflare/``, close to the source wherever that is, with no charge for waiting."""

from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities
from packetfs_compute.routing.prices import WORKERS
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.endpoint import EndpointSubstrate

__all__ = ["CloudflareSubstrate"]


class CloudflareSubstrate(EndpointSubstrate):
    """One Worker; ``url`` is its route or its workers.dev address."""

    def __init__(self, spec: SubstrateSpec, settings: Settings) -> None:
        defaults = Capabilities(
            name="cloudflare",
            trust="own",
            memory_mb=128,
            max_range_bytes=16 << 30,  # what five operations take of the five minutes of CPU time that it may use
            max_duration_s=300.0,
            schemes=frozenset({"http", "https"}),
            kind="cloudflare",
            provider="cloudflare",
            slots=100,
            overhead_s=0.03,
            bytes_per_s=1e8,
            prices=WORKERS,
        )
        super().__init__(spec, settings, defaults)
