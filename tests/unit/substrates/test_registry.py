"""The known substrates: kinds as data, classes on first use, and the fleet that settings name."""

import subprocess
import sys
from pathlib import Path

import pytest

from packetfs_compute.errors import BadPolicy, ConfigurationError
from packetfs_compute.names import LOCAL
from packetfs_compute.places import Prices, SubstrateSpec, parse_substrates
from packetfs_compute.routing.prices import CLOUD_RUN, FLY, OUR_WORKER, VERCEL
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_fleet, load_substrate, substrate_names

FLEET = Settings(substrates=(SubstrateSpec("one", "stub"), SubstrateSpec("two", "stub", region="iad")))


class TestNames:
    def test_there_is_always_the_local_substrate(self) -> None:
        assert substrate_names(Settings()) == (LOCAL,)

    def test_it_comes_first_and_the_others_in_their_order(self) -> None:
        assert substrate_names(FLEET) == (LOCAL, "one", "two")

    def test_settings_that_name_it_say_what_differs_of_it(self) -> None:
        settings = Settings(
            substrates=(SubstrateSpec("one", "stub"), SubstrateSpec(LOCAL, LOCAL, region="iad", slots=3))
        )
        assert substrate_names(settings) == (LOCAL, "one")
        capabilities = load_substrate(LOCAL, settings).capabilities
        assert (capabilities.region, capabilities.slots, capabilities.trust) == ("iad", 3, "own")


class TestLoad:
    @pytest.mark.parametrize("name", substrate_names(FLEET))
    def test_every_substrate_can_be_built_and_knows_its_name(self, name: str) -> None:
        assert load_substrate(name, FLEET).capabilities.name == name

    def test_the_fleet_is_all_of_them(self) -> None:
        assert [one.capabilities.name for one in load_fleet(FLEET)] == [LOCAL, "one", "two"]
        assert load_fleet(FLEET)[2] is load_substrate("two", FLEET)
        assert [one.capabilities.name for one in load_fleet(Settings())] == [LOCAL]

    def test_equal_settings_share_one(self) -> None:
        assert load_substrate(LOCAL, Settings(region="a")) is load_substrate(LOCAL, Settings(region="a"))
        assert load_substrate(LOCAL, Settings(region="a")) is not load_substrate(LOCAL, Settings(region="b"))

    @pytest.mark.parametrize("kind", ["stub", LOCAL])
    def test_what_settings_say_is_over_what_its_kind_declares(self, kind: str) -> None:
        said = {
            "kind": kind, "region": "iad", "provider": "aws", "trust": "any", "slots": 7, "memory_mb": 321,
            "max_range_bytes": 1 << 20, "max_duration_s": 12, "overhead_s": 0.5, "bytes_per_s": 1e6,
            "prices": {"usd_per_s": 1e-6},
        }  # fmt: skip
        settings = Settings(substrates=parse_substrates({"mine": said}))
        capabilities = load_substrate("mine", settings).capabilities
        assert {name: getattr(capabilities, name) for name in said} == {**said, "prices": Prices(usd_per_s=1e-6)}
        plain = load_substrate("plain", Settings(substrates=(SubstrateSpec("plain", kind),))).capabilities
        assert plain.kind == kind
        assert plain.schemes == capabilities.schemes, "what is not said is the kind's own"
        assert plain.memory_mb != 321

    @pytest.mark.parametrize(
        ("kind", "provider", "prices"),
        [("cloudflare", "cloudflare", OUR_WORKER), ("cloudrun", "gcp", CLOUD_RUN), ("fly", "fly", FLY),
         ("vercel", "vercel", VERCEL)],
    )  # fmt: skip
    def test_each_kind_behind_http_declares_what_its_platform_is(
        self, kind: str, provider: str, prices: Prices
    ) -> None:
        settings = Settings(substrates=(SubstrateSpec("there", kind, url="https://there.example.com"),))
        found = load_substrate("there", settings).capabilities
        assert (found.name, found.kind, found.provider, found.prices, found.trust) == (
            "there", kind, provider, prices, "own",
        )  # fmt: skip
        assert found.schemes == {"http", "https"}
        with pytest.raises(ConfigurationError, match="url is missing"):
            load_substrate("there", Settings(substrates=(SubstrateSpec("there", kind),)))

    @pytest.mark.parametrize("name", ["", "nowhere", "Local", "packetfs.local"])
    def test_an_unknown_name_is_refused_and_the_known_ones_named(self, name: str) -> None:
        with pytest.raises(BadPolicy) as caught:
            load_substrate(name, FLEET)
        assert str(caught.value) == f"there is no substrate {name!r}"
        assert caught.value.hint == f"known are {LOCAL}, one, two"

    def test_an_unknown_kind_is_refused_and_the_known_ones_named(self) -> None:
        settings = Settings(substrates=(SubstrateSpec("one", "stub"), SubstrateSpec("moon", "rocket")))
        for load in (lambda: load_substrate("moon", settings), lambda: load_fleet(settings)):
            with pytest.raises(ConfigurationError) as caught:
                load()
            assert str(caught.value) == "substrates.moon is of the unknown kind 'rocket'"
            assert caught.value.details["field"] == "substrates.moon.kind"
            assert "set kind to one of browser, cloudflare, cloudrun, fly, lambda, local, stub, vercel, or" in (
                caught.value.hint or ""
            )
        assert load_substrate("one", settings).capabilities.name == "one", "the others are as good as before"


def test_knowing_the_names_loads_none_of_them() -> None:
    code = (
        "import sys; from packetfs_compute.settings import Settings;"
        "from packetfs_compute.places import SubstrateSpec;"
        "from packetfs_compute.substrates import substrate_names;"
        "substrate_names(Settings(substrates=(SubstrateSpec('one', 'stub'),)));"
        "kinds = {'packetfs_compute.substrates.' + name for name in ('local', 'stub', 'fly', 'cloudflare', 'aws_lambda')};"
        "assert not kinds & set(sys.modules), kinds & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
