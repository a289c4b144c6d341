"""The kinds of substrate, as data: a name, and where its class is loaded from on first use; the fleet that settings name."""

import functools
import pkgutil
from collections.abc import Callable
from typing import Final, cast

from packetfs_compute.errors import BadPolicy, ConfigurationError
from packetfs_compute.names import LOCAL
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.base import Substrate

__all__ = ["load_fleet", "load_substrate", "substrate_names"]

_KINDS: Final[dict[str, str]] = {
    LOCAL: "packetfs_compute.substrates.local:LocalSubstrate",
    "fly": "packetfs_compute.substrates.fly:FlySubstrate",
    "stub": "packetfs_compute.substrates.stub:StubSubstrate",
}
_HERE: Final = SubstrateSpec(LOCAL, LOCAL)


def substrate_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the fleet's substrates: ``local`` first, then those of the settings."""
    return (LOCAL, *(spec.name for spec in settings.substrates if spec.name != LOCAL))


@functools.lru_cache(maxsize=2048)
def load_substrate(name: str, settings: Settings) -> Substrate:
    """Return the substrate ``name`` of the settings' fleet, built on first use.

    Raises :class:`BadPolicy` for a name that the fleet has not got, :class:`ConfigurationError` for a kind that there is
    not, or for settings that its kind cannot use.
    """
    if name not in substrate_names(settings):
        known = ", ".join(substrate_names(settings))
        raise BadPolicy(f"there is no substrate {name!r}", {"field": "substrate", "hint": f"known are {known}"})
    spec = next((spec for spec in settings.substrates if spec.name == name), _HERE)
    if spec.kind not in _KINDS:
        hint = f"set kind to one of {', '.join(_KINDS)}"
        raise ConfigurationError(
            f"substrates.{name} is of the unknown kind {spec.kind!r}",
            {"field": f"substrates.{name}.kind", "hint": hint},
        )
    factory = cast("Callable[[SubstrateSpec, Settings], Substrate]", pkgutil.resolve_name(_KINDS[spec.kind]))
    return factory(spec, settings)


def load_fleet(settings: Settings) -> tuple[Substrate, ...]:
    """Return every substrate of the settings' fleet; raises as :func:`load_substrate`."""
    return tuple(load_substrate(name, settings) for name in substrate_names(settings))
