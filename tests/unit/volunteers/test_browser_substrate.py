import pytest

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing.policy import Policy, unwanted
from packetfs_compute.settings import Settings
from packetfs_compute.substrates.browser import BrowserSubstrate


def test_it_is_a_verified_place_that_costs_nothing() -> None:
    place = BrowserSubstrate(SubstrateSpec("browser", "browser", url="http://127.0.0.1:8000"), Settings()).capabilities
    assert (place.kind, place.trust, place.schemes) == ("browser", "verified", {"http", "https"})
    assert unwanted(Policy(trust="verified"), place) is None
    assert unwanted(Policy(trust="own"), place) is not None


def test_settings_may_trust_it_less() -> None:
    spec = SubstrateSpec("pages", "browser", url="http://127.0.0.1:8000/x", trust="any", slots=7)
    place = BrowserSubstrate(spec, Settings()).capabilities
    assert (place.name, place.trust, place.slots) == ("pages", "any", 7)
    assert unwanted(Policy(trust="verified"), place) is not None


def test_it_needs_the_gateways_address() -> None:
    with pytest.raises(ConfigurationError, match="url"):
        BrowserSubstrate(SubstrateSpec("browser", "browser"), Settings())


def test_it_is_never_ones_own() -> None:
    with pytest.raises(ConfigurationError, match="which browsers are not"):
        BrowserSubstrate(SubstrateSpec("browser", "browser", url="http://127.0.0.1:8000", trust="own"), Settings())
