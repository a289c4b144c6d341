"""What a substrate declares about itself: facts that hold whatever its health."""

from dataclasses import dataclass, fields, replace

from packetfs_compute.places import Prices, SubstrateSpec, Trust

__all__ = ["Capabilities", "Trust", "declared"]

_NO_PRICES = Prices()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Declared facts of one substrate. Sizes are bytes unless the name says otherwise."""

    name: str
    trust: Trust
    memory_mb: int
    max_range_bytes: int
    max_duration_s: float
    schemes: frozenset[str]
    """URL schemes that it reads itself; ``s3`` is presigned at dispatch for the ones that lack it."""
    kind: str = "local"
    """The family that it is one of: its module in :mod:`packetfs_compute.substrates`."""
    provider: str = "own"
    """Whose network it stands in: sources of the same provider (and region) charge it no egress."""
    region: str | None = None
    slots: int | None = None
    """Attempts at once, over all consumers; ``None`` is as many as its consumers run."""
    overhead_s: float = 0.01
    """First guess of what an attempt takes beside its bytes, until it is learnt."""
    bytes_per_s: float = 5e8
    """First guess of how fast it reads and computes."""
    prices: Prices = _NO_PRICES


def declared(defaults: Capabilities, spec: SubstrateSpec) -> Capabilities:
    """Return what a kind declares of itself, under the name of ``spec`` and with what settings say differently."""
    names = {field.name for field in fields(Capabilities)} & {field.name for field in fields(SubstrateSpec)}
    said = {name: getattr(spec, name) for name in names if getattr(spec, name) is not None}
    return replace(defaults, **said)
