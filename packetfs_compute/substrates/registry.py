"""The known substrates, as data: a name, and where its class is loaded from on first use."""

import functools
import pkgutil
from collections.abc import Callable
from typing import Final, cast

from packetfs_compute.errors import BadPolicy
from packetfs_compute.names import LOCAL
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.base import Substrate

__all__ = ["load_substrate", "substrate_names"]

_KNOWN: Final[dict[str, str]] = {
    LOCAL: "packetfs_compute.substrates.local:LocalSubstrate",
}


def substrate_names() -> tuple[str, ...]:
    """Return the name of every substrate that can be loaded."""
    return tuple(_KNOWN)


@functools.lru_cache(maxsize=64)
def load_substrate(name: str, settings: Settings) -> Substrate:
    """Return the substrate ``name`` for ``settings``, built on first use; raise :class:`BadPolicy` for an unknown name."""
    if name not in _KNOWN:
        raise BadPolicy(
            f"there is no substrate {name!r}", {"field": "substrate", "hint": f"known are {', '.join(_KNOWN)}"}
        )
    factory = cast("Callable[[Settings], Substrate]", pkgutil.resolve_name(_KNOWN[name]))
    return factory(settings)
