"""The key that `packetfs up` makes for the browsers of its own gateway."""

import pytest

from packetfs_compute.embedded.faces import with_browsers_key
from packetfs_compute.places import EndpointKey, SubstrateSpec
from packetfs_compute.settings import Settings

HERE = "http://127.0.0.1:8765/v1/browsers"


def settings(url: str = HERE, kind: str = "browser", **changes: object) -> Settings:
    return Settings(substrates=(SubstrateSpec("pages", kind, url=url),), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [HERE, "http://localhost:8765/v1/browsers", "http://[::1]:8765/v1/browsers"])
def test_both_ends_have_it_and_it_is_new_each_time(url: str) -> None:
    made = with_browsers_key(settings(url))
    (key,) = made.keys
    assert key.substrate == "pages"
    assert made.signing_keys == (f"{key.key_id}:{key.secret}",)
    assert len(key.secret) == 64
    assert with_browsers_key(settings(url)).keys != made.keys


@pytest.mark.parametrize(
    "given",
    [
        settings("http://127.0.0.1:8766/v1/browsers"),
        settings("https://127.0.0.1:8765/v1/browsers"),
        settings("https://gateway.example/v1/browsers"),
        settings(kind="fly"),
        settings(signing_keys=("k1:0123456789abcdef",)),
        settings(allow_unsigned=True),
        settings(keys=(EndpointKey("pages", "k1", "0123456789abcdef"),)),
        Settings(),
    ],
)
def test_what_is_not_this_gateways_or_has_a_key_is_left_alone(given: Settings) -> None:
    assert with_browsers_key(given) == given


def test_the_host_is_the_gateways_where_that_is_no_loopback() -> None:
    given = settings("http://10.0.0.7:8765/v1/browsers", gateway_host="10.0.0.7")
    assert len(with_browsers_key(given).keys) == 1
    assert with_browsers_key(settings(gateway_host="10.0.0.7")).keys == ()
