"""Vercel: the edge function of ``remote/vercel/``."""

from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities
from packetfs_compute.routing.prices import VERCEL
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.endpoint import EndpointSubstrate

__all__ = ["VercelSubstrate"]


class VercelSubstrate(EndpointSubstrate):
    """One project; ``url`` is its deployment's address."""

    def __init__(self, spec: SubstrateSpec, settings: Settings) -> None:
        defaults = Capabilities(
            name="vercel",
            trust="own",
            memory_mb=128,
            max_range_bytes=1 << 30,
            max_duration_s=25.0,  # an edge function must have begun its response by then, and ours comes all at once
            schemes=frozenset({"http", "https"}),
            kind="vercel",
            provider="vercel",
            slots=50,
            overhead_s=0.05,
            bytes_per_s=1e8,
            prices=VERCEL,
        )
        super().__init__(spec, settings, defaults)
