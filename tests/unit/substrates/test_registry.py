"""The known substrates: names as data, classes on first use."""

import subprocess
import sys
from pathlib import Path

import pytest

from packetfs_compute.errors import BadPolicy
from packetfs_compute.names import LOCAL
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_substrate, substrate_names


def test_the_local_substrate_comes_first() -> None:
    assert substrate_names()[0] == LOCAL


@pytest.mark.parametrize("name", substrate_names())
def test_every_known_substrate_can_be_built_and_knows_its_name(name: str) -> None:
    assert load_substrate(name, Settings()).capabilities.name == name


def test_equal_settings_share_one() -> None:
    assert load_substrate(LOCAL, Settings(region="a")) is load_substrate(LOCAL, Settings(region="a"))
    assert load_substrate(LOCAL, Settings(region="a")) is not load_substrate(LOCAL, Settings(region="b"))


@pytest.mark.parametrize("name", ["", "nowhere", "Local", "packetfs.local"])
def test_an_unknown_name_is_refused_and_the_known_ones_named(name: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        load_substrate(name, Settings())
    assert str(caught.value) == f"there is no substrate {name!r}"
    assert caught.value.hint == f"known are {', '.join(substrate_names())}"


def test_knowing_the_names_loads_none_of_them() -> None:
    code = (
        "import sys; from packetfs_compute.substrates import substrate_names; substrate_names();"
        "assert 'packetfs_compute.substrates.local' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
