"""Who may come in: keys, scopes, rates, names; at a real Valkey."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from packetfs_compute.errors import BrokerUnavailable, ConfigurationError
from packetfs_compute.gateway.exposure import check_exposure, is_loopback
from packetfs_compute.gateway.gate import Asked, Gate, Limiter
from packetfs_compute.gateway.keys import KeyStore, open_keys
from packetfs_compute.gateway.problems import Refusal
from packetfs_compute.settings import Settings

pytestmark = pytest.mark.integration

LOCALHOST = Asked(None, "127.0.0.1:8765", "127.0.0.1")


@pytest.fixture
def keys(redis_settings: Settings) -> KeyStore:
    return open_keys(redis_settings)


def gate(settings: Settings, **more: Any) -> Gate:
    settings = replace(settings, **more)
    return Gate(settings, open_keys(settings), Limiter(settings))


def bearer(secret: str, host: str = "gateway.example.com") -> Asked:
    return Asked(f"Bearer {secret}", host, "192.0.2.1")


def refused(gate: Gate, asked: Asked, *scopes: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        gate.admit(asked, *scopes)
    return caught.value


class TestKeys:
    def test_a_key_is_found_by_itself_and_kept_as_its_hash(self, keys: KeyStore, redis_client: Any) -> None:
        secret, key = keys.add(["read", "submit"], "ci")
        assert secret.startswith("pfs_")
        assert len(secret) == 47
        assert (key.name, key.scopes) == ("ci", ("submit", "read"))
        assert keys.find(secret) == (key, True)
        kept = redis_client.hgetall("packetfs:gateway:keys")
        assert list(kept) == [hashlib.sha256(secret.encode()).hexdigest().encode()]
        assert secret not in json.dumps([value.decode() for value in kept.values()])

    @pytest.mark.parametrize("other", [None, "", "pfs_", "pfs_" + "x" * 43, "pfs_" + "é" * 43, "x" * 100_000])
    def test_what_is_none_finds_none(self, keys: KeyStore, other: str | None) -> None:
        assert keys.find(other) == (None, False)
        keys.add(["read"])
        assert keys.find(other) == (None, True)

    def test_one_that_is_revoked_is_no_more(self, keys: KeyStore) -> None:
        secret, key = keys.add(["read"])
        other, second = keys.add(["submit"])
        assert {one.id for one in keys.all()} == {key.id, second.id}
        assert keys.revoke("nobody") is None
        assert keys.revoke(key.id) == key
        assert keys.revoke(key.id) is None
        assert keys.find(secret) == (None, True)
        assert keys.find(other)[0] is not None

    def test_without_a_redis_the_error_is_ours(self, tmp_path: Any) -> None:
        with pytest.raises(BrokerUnavailable):
            open_keys(Settings(data_dir=tmp_path)).find(None)
        with pytest.raises(BrokerUnavailable):
            Limiter(Settings(data_dir=tmp_path)).count("x")


class TestOpen:
    @pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:80", "127.1.2.3"])
    def test_on_loopback_without_keys_it_is_open_to_this_machine(self, redis_settings: Settings, host: str) -> None:
        caller = gate(redis_settings).admit(Asked(None, host, "127.0.0.1"), "submit")
        assert caller.scopes == {"submit", "read", "browser"}

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "localhost.", "[::2]", "10.0.0.1"]
    )
    def test_but_not_under_a_strange_name(self, redis_settings: Settings, host: str) -> None:
        error = refused(gate(redis_settings), Asked(None, host, "127.0.0.1"), "submit")
        assert (error.error, error.details["field"]) == ("forbidden", "Host")

    def test_what_manages_keys_is_never_open(self, redis_settings: Settings) -> None:
        assert refused(gate(redis_settings), LOCALHOST, "admin").error == "forbidden"

    def test_the_first_key_closes_it_and_the_name_no_longer_matters(
        self, redis_settings: Settings, keys: KeyStore
    ) -> None:
        door = gate(redis_settings)
        door.admit(LOCALHOST, "submit")
        secret, _ = keys.add(["submit"])
        assert refused(door, LOCALHOST, "submit").error == "unauthorized"
        door.admit(bearer(secret), "submit")

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "gateway.example.com"])
    def test_anywhere_else_it_is_closed_even_when_the_last_key_goes(self, redis_settings: Settings, host: str) -> None:
        assert refused(gate(redis_settings, gateway_host=host), LOCALHOST, "submit").error == "unauthorized"


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "any_of", "let_in"),
        [
            ("read", ("read",), True), ("read", ("submit",), False), ("submit", ("read", "submit"), True),
            ("browser", ("read", "submit"), False), ("admin", ("submit",), True), ("read", ("admin",), False),
        ],
    )  # fmt: skip
    def test_a_route_needs_one_of_its_scopes(
        self, redis_settings: Settings, keys: KeyStore, scope: Any, any_of: Any, let_in: bool
    ) -> None:
        secret, _ = keys.add([scope])
        if let_in:
            assert scope in gate(redis_settings).admit(bearer(secret), *any_of).scopes
        else:
            assert refused(gate(redis_settings), bearer(secret), *any_of).error == "forbidden"

    @pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer x", "Basic cGZzOg==", "pfs_" + "x" * 43])
    def test_without_a_key_of_ours_nobody_comes_in(
        self, redis_settings: Settings, keys: KeyStore, authorization: Any
    ) -> None:
        keys.add(["submit"])
        error = refused(gate(redis_settings), Asked(authorization, "127.0.0.1", "127.0.0.1"), "submit")
        assert error.error == "unauthorized"
        assert error.headers["WWW-Authenticate"].startswith("Bearer")


class TestRates:
    def test_each_key_has_its_own(self, redis_settings: Settings, keys: KeyStore) -> None:
        door = gate(redis_settings, gateway_requests_per_minute=3)
        one, other = (keys.add(["read"])[0] for _ in range(2))
        for _ in range(3):
            door.admit(bearer(one), "read")
        error = refused(door, bearer(one), "read")
        assert error.error == "busy"
        assert 1 <= int(error.headers["Retry-After"]) <= 61
        door.admit(bearer(other), "read")

    def test_so_has_each_address_and_each_network_of_ipv6(self, redis_settings: Settings) -> None:
        door = gate(redis_settings, gateway_requests_per_minute=1)
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"):
            door.admit(Asked(None, "localhost", address), "read")
        for address in ("192.0.2.1", "2001:db8:0:1:ffff::9"):
            assert refused(door, Asked(None, "localhost", address), "read").error == "busy"

    def test_guessing_keys_is_counted_too(self, redis_settings: Settings, keys: KeyStore) -> None:
        keys.add(["read"])
        door = gate(redis_settings, gateway_requests_per_minute=2)
        errors = [refused(door, bearer(f"pfs_{at:043d}"), "read").error for at in range(3)]
        assert errors == ["unauthorized", "unauthorized", "busy"]

    def test_all_gateways_of_a_system_count_together(self, redis_settings: Settings) -> None:
        gate(redis_settings, gateway_requests_per_minute=1).admit(LOCALHOST, "read")
        assert refused(gate(redis_settings, gateway_requests_per_minute=1), LOCALHOST, "read").error == "busy"


class TestExposure:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gateway.example.com"])
    def test_a_network_is_not_served_without_a_key(self, redis_settings: Settings, keys: KeyStore, host: str) -> None:
        settings = replace(redis_settings, gateway_host=host)
        with pytest.raises(ConfigurationError) as caught:
            check_exposure(settings, keys)
        assert "packetfs keys add" in (caught.value.hint or "")
        keys.add(["read"])
        check_exposure(settings, keys)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
    def test_loopback_is(self, redis_settings: Settings, keys: KeyStore, host: str) -> None:
        assert is_loopback(host)
        check_exposure(replace(redis_settings, gateway_host=host), keys)
