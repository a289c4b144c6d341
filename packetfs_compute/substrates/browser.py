"""Browsers that lend a hand: the gateway is the endpoint, and its hub answers for what it gives out.

The hub (:mod:`packetfs_compute.volunteers`) lets nothing pass that its rules have not; so the place's trust is "verified",
and never "own": a policy that asks for places of ours keeps its jobs, and its URLs, out of strangers' browsers. The hub's
own checks ask for such places.
"""

from http import HTTPStatus

from packetfs_compute.errors import ConfigurationError, Internal, JobError
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Capabilities
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.endpoint import EndpointSubstrate
from packetfs_compute.substrates.transport import Reply

__all__ = ["BrowserSubstrate"]


class BrowserSubstrate(EndpointSubstrate):
    """The browsers of one gateway; ``url`` is the gateway's with the path ``/v1/browsers``, under which it answers."""

    def __init__(self, spec: SubstrateSpec, settings: Settings) -> None:
        if spec.trust == "own":
            field = f"substrates.{spec.name}.trust"
            hint = "leave it out: what browsers say is verified, not trusted"
            raise ConfigurationError(f"{field} is 'own', which browsers are not", {"field": field, "hint": hint})
        defaults = Capabilities(
            name="browser",
            trust="verified",
            memory_mb=64,
            max_range_bytes=64 << 20,  # what the hub takes
            max_duration_s=60.0,
            schemes=frozenset({"http", "https"}),
            kind="browser",
            provider="browser",
            slots=256,
            overhead_s=0.5,
            bytes_per_s=4e6,
        )
        super().__init__(spec, settings, defaults)

    def _unhealthy(self, reply: Reply) -> JobError:
        if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Internal("no browser is connected", {"hint": "open /browser/lend.html of the gateway in one"})
        return super()._unhealthy(reply)
