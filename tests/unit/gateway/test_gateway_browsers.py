"""Who is given a ticket, and the files that browsers load; at a real Valkey, over HTTP."""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from support.gateway import Client, serving
from support.system import publishing_to

from packetfs_compute import __version__
from packetfs_compute.celery import app as celery_app
from packetfs_compute.desk import Desk
from packetfs_compute.gateway import open_keys
from packetfs_compute.gateway.app import create_app
from packetfs_compute.settings import Settings

pytestmark = pytest.mark.integration

KEYS = ("k1:0123456789abcdef",)
TICKETS = "/v1/browsers/tickets"
META = re.compile(r'<meta name="packetfs:([a-z-]+)" content="([^"]*)">')


@contextmanager
def gateway(settings: Settings, **changes: Any) -> Iterator[Client]:
    made = replace(settings, **{"signing_keys": KEYS, **changes})
    with publishing_to(made), serving(create_app(made, Desk(made), lambda: celery_app.backend)) as client:
        yield client


class TestTickets:
    def test_where_there_is_no_key_whoever_reaches_it_is_known_by_the_network(self, redis_settings: Settings) -> None:
        with gateway(redis_settings) as client:
            told = client.post(TICKETS)
            assert (told.status, told.json["account"], told.json["expires_in_s"]) == (201, "network:127.0.0.0-24", 60)
            assert told.json["ticket"] != client.post(TICKETS).json["ticket"]

    def test_a_key_needs_the_scope_and_gives_the_account(self, redis_settings: Settings) -> None:
        keys = open_keys(redis_settings)
        lender, key = keys.add(["browser"])
        reader, _ = keys.add(["read", "submit"])
        with gateway(redis_settings) as client:
            assert client.with_key(lender).post(TICKETS).json["account"] == f"key:{key.id}"
            assert client.with_key(reader).post(TICKETS).error == "forbidden"
            assert client.post(TICKETS).error == "unauthorized"

    def test_anyone_may_lend_where_the_settings_say_so(self, redis_settings: Settings) -> None:
        keys = open_keys(redis_settings)
        keys.add(["admin"])
        with gateway(redis_settings, browsers_open=True) as client:
            assert client.post(TICKETS).json["account"] == "network:127.0.0.0-24"
            assert client.with_key("pfs_" + 43 * "x").post(TICKETS).error == "unauthorized", "a wrong key is none"
            assert client.get("/v1/fleet").error == "unauthorized", "and nothing else is open"

    def test_asking_is_bounded(self, redis_settings: Settings) -> None:
        with gateway(redis_settings, browsers_open=True, gateway_requests_per_minute=3) as client:
            assert [client.post(TICKETS).status for _ in range(5)] == [201, 201, 201, 429, 429]

    def test_a_proxy_that_is_trusted_says_who_it_is(self, redis_settings: Settings) -> None:
        with gateway(redis_settings, gateway_proxies=(ip_network("127.0.0.0/8"),)) as client:
            told = client.post(TICKETS, None, X_Forwarded_For="203.0.113.77")
            assert told.json["account"] == "network:203.0.113.0-24"
            assert client.post(TICKETS, None, X_Forwarded_For="nonsense").json["account"] == "network:unknown"
        with gateway(redis_settings) as client:
            told = client.post(TICKETS, None, X_Forwarded_For="203.0.113.77")
            assert told.json["account"] == "network:127.0.0.0-24", "anyone could say so"

    def test_without_a_signing_key_there_is_no_work_for_browsers(self, redis_settings: Settings) -> None:
        with gateway(redis_settings, signing_keys=()) as client:
            told = client.post(TICKETS)
            assert (told.status, told.error) == (501, "not_implemented")
            assert "PACKETFS_SIGNING_KEYS" in told.json["hint"]
            assert client.post("/v1/browsers/compute", {}).json["error"]["type"] == "unauthorized"
            assert client.get("/v1/overview").json["browsers"] is None

    def test_unsigned_programs_are_taken_where_the_settings_say_so(self, redis_settings: Settings) -> None:
        request = {"program": {"data_url": "https://host.example/x", "op": "crc32c"}}
        with gateway(redis_settings, signing_keys=(), allow_unsigned=True) as client:
            told = client.post("/v1/browsers/compute", request)
            assert (told.status, told.json["error"]["type"]) == (429, "busy")

    def test_what_the_hub_counts_is_measured(self, redis_settings: Settings) -> None:
        with gateway(redis_settings) as client:
            text = client.get("/metrics").text
            assert "packetfs_browsers_connected 0.0" in text
            assert "packetfs_browsers_banned_total 0.0" in text


@pytest.fixture(scope="module")
def client(_shared_valkey: Settings) -> Iterator[Client]:
    with gateway(_shared_valkey) as client:
        yield client


class TestFiles:
    def test_the_manifest_has_the_hash_of_each(self, client: Client) -> None:
        manifest = client.get(f"/browser/{__version__}/manifest.json").json
        assert manifest["version"] == __version__
        assert {"packetfs.js", "packetfs.mjs", "worker.js", "kernels-simd.wasm"} <= set(manifest["files"])
        for name, about in manifest["files"].items():
            if name == "lend.html":
                continue  # which is told where it is
            answer = client.pool.request("GET", f"{client.url}/browser/{__version__}/{name}")
            digest = base64.b64encode(hashlib.sha384(answer.data).digest()).decode()
            assert (answer.headers["Content-Type"].partition(";")[0], f"sha384-{digest}") == (
                about["type"],
                about["integrity"],
            )
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            kept = {"If-None-Match": answer.headers["ETag"]}
            assert client("GET", f"/browser/{__version__}/{name}", headers=kept).status == 304

    @pytest.mark.parametrize(
        "path", ["", "none.js", "0.0.1/packetfs.js", f"{__version__}/none.js", f"{__version__}/../x", "%2e%2e/app.py",
                 f"{__version__}/", f"{__version__}//packetfs.js"],
    )  # fmt: skip
    def test_nothing_else_is_there(self, client: Client, path: str) -> None:
        assert client.get(f"/browser/{path}").status == 404

    def test_a_name_alone_leads_to_this_version(self, client: Client) -> None:
        led = client.get("/browser/packetfs.js")
        assert (led.status, led.headers["Location"]) == (307, f"/browser/{__version__}/packetfs.js")

    @pytest.mark.parametrize("anyone", [False, True])
    def test_the_page_is_told_where_tickets_are(self, redis_settings: Settings, anyone: bool) -> None:
        """Where it takes a key, which a page has none of, there is a field for a ticket instead."""
        opened = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

        def told(client: Client) -> dict[str, str]:
            return dict(META.findall(client.get(f"/browser/{__version__}/lend.html").text))

        with gateway(redis_settings, browsers_open=anyone, allow_private_sources=opened) as client:
            assert told(client) == {
                "gateway": "/", "tickets": TICKETS, "allow-private-sources": "10.0.0.0/8,fd00::/8"
            }  # fmt: skip
            open_keys(redis_settings).add(["admin"])
            assert told(client)["tickets"] == (TICKETS if anyone else "")
