"""Cloudflare: the Worker of ``remote/cloudflare/``, close to the source wherever that is, with no charge for waiting."""

from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities
from packetfs_compute.routing.prices import OUR_WORKER
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
            max_range_bytes=8
            << 30,  # what five operations may take of the minute of CPU time that wrangler.jsonc gives it
            max_duration_s=300.0,
            schemes=frozenset({"http", "https"}),
            kind="cloudflare",
            provider="cloudflare",
            slots=100,
            overhead_s=0.03,
            bytes_per_s=1e8,
            prices=OUR_WORKER,
        )
        super().__init__(spec, settings, defaults)
