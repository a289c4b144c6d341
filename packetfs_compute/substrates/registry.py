"""The kinds of substrate, as data: a name, and where its class is loaded from on first use; the fleet that settings name.

Another distribution can bring a kind: an entry point of the group ``packetfs.substrates``, whose name is the kind and whose
object is called as our classes are, with the spec and the settings (CONTRIBUTING.md, "A substrate of your own"). It
cannot take the place of one of ours.
"""

import functools
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from packetfs_compute.errors import BadPolicy, ConfigurationError
from packetfs_compute.names import LOCAL, SUBSTRATES_GROUP
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.base import Substrate

__all__ = ["load_fleet", "load_substrate", "substrate_names"]

Factory = Callable[[SubstrateSpec, Settings], Substrate]

_KINDS: Final[dict[str, str]] = {
    LOCAL: "packetfs_compute.substrates.local:LocalSubstrate",
    "browser": "packetfs_compute.substrates.browser:BrowserSubstrate",
    "cloudflare": "packetfs_compute.substrates.cloudflare:CloudflareSubstrate",
    "cloudrun": "packetfs_compute.substrates.cloudrun:CloudRunSubstrate",
    "fly": "packetfs_compute.substrates.fly:FlySubstrate",
    "lambda": "packetfs_compute.substrates.aws_lambda:LambdaSubstrate",
    "stub": "packetfs_compute.substrates.stub:StubSubstrate",
    "vercel": "packetfs_compute.substrates.vercel:VercelSubstrate",
}
_HERE: Final = SubstrateSpec(LOCAL, LOCAL)


def substrate_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the fleet's substrates: ``local`` first, then those of the settings."""
    return (LOCAL, *(spec.name for spec in settings.substrates if spec.name != LOCAL))


@functools.lru_cache(maxsize=2048)
def load_substrate(name: str, settings: Settings) -> Substrate:
    """Return the substrate ``name`` of the settings' fleet, built on first use.

    Raises :class:`BadPolicy` for a name that the fleet has not got, :class:`ConfigurationError` for a kind that there is
    not or whose plug-in is broken, or for settings that its kind cannot use.
    """
    if name not in substrate_names(settings):
        known = ", ".join(substrate_names(settings))
        raise BadPolicy(f"there is no substrate {name!r}", {"field": "substrate", "hint": f"known are {known}"})
    spec = next((spec for spec in settings.substrates if spec.name == name), _HERE)
    return _factory(spec)(spec, settings)


def load_fleet(settings: Settings) -> tuple[Substrate, ...]:
    """Return every substrate of the settings' fleet; raises as :func:`load_substrate`."""
    return tuple(load_substrate(name, settings) for name in substrate_names(settings))


def _factory(spec: SubstrateSpec) -> Factory:
    """Return what builds substrates of the spec's kind: ours, or a plug-in's."""
    if spec.kind in _KINDS:
        return cast("Factory", pkgutil.resolve_name(_KINDS[spec.kind]))
    field = f"substrates.{spec.name}.kind"
    found = [*entry_points(group=SUBSTRATES_GROUP, name=spec.kind)]
    if not found:
        plugged = {point.name for point in entry_points(group=SUBSTRATES_GROUP)}
        hint = f"set kind to one of {', '.join(sorted(plugged | set(_KINDS)))}, or install what brings it"
        raise ConfigurationError(
            f"substrates.{spec.name} is of the unknown kind {spec.kind!r}", {"field": field, "hint": hint}
        )
    if len(found) > 1:
        hint = f"uninstall all but one of {', '.join(sorted(map(_distribution, found)))}"
        raise ConfigurationError(f"several plug-ins bring the kind {spec.kind!r}", {"field": field, "hint": hint})
    return _loaded(found[0], field)


def _loaded(point: EntryPoint, field: str) -> Factory:
    """Return a plug-in's factory; whatever its module does when it is imported, a typed error comes of it."""
    try:
        factory = point.load()
    except Exception as error:
        hint = f"mend or uninstall {_distribution(point)}"
        raise ConfigurationError(
            f"the plug-in {point.value} of the kind {point.name!r} cannot be loaded: {type(error).__name__}: {error}",
            {"field": field, "hint": hint},
        ) from error
    if not callable(factory):
        hint = "its entry point must name a class, or a function of spec and settings"
        raise ConfigurationError(f"the plug-in {point.value} is nothing to be called", {"field": field, "hint": hint})
    return cast("Factory", factory)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
