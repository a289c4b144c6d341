"""The application over HTTP, at a real Valkey and with the real desk; nobody runs the jobs."""

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.gateway import PROGRAM, Client, serving
from support.system import publishing_to

from packetfs_compute.celery import app as celery_app
from packetfs_compute.desk import Desk
from packetfs_compute.gateway import bodies, open_keys
from packetfs_compute.gateway.app import create_app
from packetfs_compute.settings import Settings

pytestmark = pytest.mark.integration

ORIGIN = "https://app.example.com"


def exchange(plain: socket.socket) -> None:
    """Ask for something and read it to its end, on a connection that is kept."""
    plain.sendall(b"GET /docs.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
    told = b""
    while not told.endswith(b"}\n"):
        told += plain.recv(1 << 16)
    assert told.startswith(b"HTTP/1.1 200")


@pytest.fixture(scope="module")
def served(_shared_valkey: Settings) -> Iterator[Client]:
    settings = replace(_shared_valkey, gateway_origins=(ORIGIN,))
    celery_app.loader.import_default_modules()
    with publishing_to(settings), serving(create_app(settings, Desk(settings), lambda: celery_app.backend)) as client:
        yield client


@pytest.fixture
def client(redis_settings: Settings, served: Client) -> Client:
    """Of one gateway for all these tests, whose Redis is empty."""
    return served


class TestJobs:
    def test_a_job_is_accepted_and_told_where_it_is(self, client: Client) -> None:
        answer = client.post("/v1/jobs", {"program": PROGRAM, "policy": {"goal": "cheapest"}, "priority": 9})
        assert answer.status == 202
        status = answer.json
        assert answer.headers["Location"] == f"/v1/jobs/{status['job_id']}"
        assert (status["status"], status["program"], status["policy"]) == (
            "queued",
            {**PROGRAM, "offset": 0},
            {"goal": "cheapest"},
        )
        assert client.get(answer.headers["Location"]).json == status

    @pytest.mark.parametrize("header", ["j1", '"j1"'])
    def test_the_same_again_is_the_same_job(self, client: Client, header: str) -> None:
        assert client.post("/v1/jobs", {"program": PROGRAM}, Idempotency_Key=header).status == 202
        for body in ({"program": PROGRAM, "job_id": "j1"}, {"program": {**PROGRAM, "offset": 0}, "job_id": "j1"}):
            again = client.post("/v1/jobs", body)
            assert (again.status, again.json["job_id"]) == (200, "j1")
        assert client.post("/v1/jobs", {"program": PROGRAM, "job_id": "j1"}, Idempotency_Key=header).status == 200

    def test_the_same_id_for_another_is_a_conflict(self, client: Client) -> None:
        client.post("/v1/jobs", {"program": PROGRAM, "job_id": "j1"})
        for other in ({"program": {**PROGRAM, "offset": 1}}, {"program": PROGRAM, "policy": {"goal": "fastest"}}):
            answer = client.post("/v1/jobs", {**other, "job_id": "j1"})
            assert (answer.status, answer.error, answer.json["job_id"]) == (409, "conflict", "j1")

    def test_two_ids_that_differ_are_a_mistake(self, client: Client) -> None:
        answer = client.post("/v1/jobs", {"program": PROGRAM, "job_id": "j1"}, Idempotency_Key="j2")
        assert (answer.status, answer.json["field"]) == (400, "Idempotency-Key")

    def test_cancelling_ends_it_and_what_has_ended_stays(self, client: Client) -> None:
        client.post("/v1/jobs", {"program": PROGRAM, "job_id": "j1"})
        for _ in range(2):
            answer = client.delete("/v1/jobs/j1")
            assert (answer.status, answer.json["status"]) == (200, "cancelled")

    @pytest.mark.parametrize(
        "path", ["/v1/jobs/none", "/v1/jobs/none?wait_s=5", "/v1/jobs/none/events", "/v1/jobs/a%2Fb", "/v1/jobs/%00"]
    )
    def test_a_job_that_nobody_knows_is_not_found(self, client: Client, path: str) -> None:
        assert client.get(path).error == "not_found"
        assert client.delete("/v1/jobs/none").error == "not_found"

    def test_waiting_ends_when_the_job_does_or_patience(self, client: Client) -> None:
        client.post("/v1/jobs", {"program": PROGRAM, "job_id": "j1"})
        assert client.get("/v1/jobs/j1?wait_s=0.2").json["status"] == "queued"
        client.delete("/v1/jobs/j1")
        assert client.get("/v1/jobs/j1?wait_s=30").json["status"] == "cancelled"

    @pytest.mark.parametrize("wait_s", ["-1", "31", "nan", "inf", "x", "", "9" * 5000])
    def test_a_wait_that_is_none_is_told(self, client: Client, wait_s: str) -> None:
        answer = client.get(f"/v1/jobs/j1?wait_s={wait_s}")
        assert (answer.status, answer.error, answer.json["field"]) == (400, "bad_request", "query.wait_s")

    def test_events_are_the_status_and_its_changes(self, client: Client) -> None:
        client.post("/v1/jobs", {"program": PROGRAM, "job_id": "j1"})
        feed = client.pool.request("GET", f"{client.url}/v1/jobs/j1/events", preload_content=False)
        assert feed.headers["Content-Type"].startswith("text/event-stream")
        events = (json.loads(line[6:]) for line in feed if line.startswith(b"data: "))
        assert next(events)["status"] == "queued"
        client.delete("/v1/jobs/j1")
        assert next(events)["status"] == "cancelled"
        assert list(events) == [{"reason": "ended"}]


class TestInput:
    @pytest.mark.parametrize(
        ("raw", "field"),
        [
            (b"", "body"),
            (b"{", "body"),
            (b'{"program": NaN}', "body"),
            (b'{"program": Infinity}', "body"),
            (b"\xff\xfe{}", "body"),
            (b"[" * 60_000, "body"),
            (b'{"a":' * 10_000, "body"),
            (b'{"program": ' + b"9" * 5000 + b"}", "body"),
            (b"\xed\xa0\x80", "body"),
            (b"[]", "request"),
            (b"null", "request"),
            (b'"x"', "request"),
            (b'{"x": 1}', "request.x"),
            (b"{}", "program"),
            (b'{"program": 1e400}', "program"),
            (b'{"program": ' + b"9" * 4000 + b"}", "program"),
            (b'{"program": {"\\ud800": 1}}', None),
            (b'{"program": {"data_url": "\\ud800", "op": "crc32c"}, "priority": 10}', "request.priority"),
            (b'{"priority": true}', "request.priority"),
            (b'{"priority": 1e999}', "request.priority"),
            (b'{"job_id": "a/b"}', "request.job_id"),
            (b'{"job_id": 7}', "request.job_id"),
            (b'{"job_id": ""}', "request.job_id"),
            (b'{"job_id": "' + b"x" * 129 + b'"}', "request.job_id"),
            (json.dumps({"program": PROGRAM, "policy": {"goal": "best"}}).encode(), "policy.goal"),
            (json.dumps({"program": {**PROGRAM, "length": -1}}).encode(), "program.length"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_what_is_no_job_is_told_by_field(self, client: Client, raw: bytes, field: str | None) -> None:
        answer = client("POST", "/v1/jobs", raw=raw)
        assert answer.status == 400
        assert answer.error in ("bad_request", "bad_program", "bad_policy")
        assert field is None or answer.json["field"] == field
        assert len(answer.text) < 1000

    @pytest.mark.parametrize(
        "media",
        [
            None,
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "application/jsonx",
        ],
    )
    def test_what_is_not_declared_as_json_is_not_read(self, client: Client, media: str | None) -> None:
        headers = {"Content-Type": media or ""}
        answer = client("POST", "/v1/jobs", raw=json.dumps({"program": PROGRAM}).encode(), headers=headers)
        assert (answer.status, answer.error) == (415, "unsupported_media_type")

    def test_a_charset_that_is_utf8_is(self, client: Client) -> None:
        headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
        assert client("POST", "/v1/jobs", {"program": PROGRAM}, headers).status == 202

    @pytest.mark.parametrize("chunked", [True, False])
    def test_a_body_past_the_bound_is_cut_off(self, client: Client, chunked: bool) -> None:
        fits = json.dumps({"program": PROGRAM}).encode().ljust(bodies.MAX_BODY)
        assert client("POST", "/v1/jobs", raw=fits).status == 202
        with client.connection() as plain:
            length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {bodies.MAX_BODY + 1}"
            plain.sendall(
                f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode()
            )
            if chunked:
                plain.sendall(b"%x\r\n" % bodies.MAX_BODY + b" " * bodies.MAX_BODY + b"\r\n1\r\n ")
            answer = b"".join(iter(lambda: plain.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer.lower()

    def test_a_body_that_does_not_come_is_given_up(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.1)
        with client.connection() as plain:
            plain.sendall(
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            answer = b"".join(iter(lambda: plain.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 408")

    def test_a_head_that_does_not_come_is_given_up(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("packetfs_compute.http_server._HEAD_TIMEOUT_S", 0.2)
        for before, begun in ((False, b""), (False, b"GET /docs HTTP/1.1\r\nHost: l"), (True, b"GET /")):
            with client.connection() as plain:
                if before:
                    exchange(plain)
                plain.sendall(begun)
                assert b"".join(iter(lambda: plain.recv(1 << 16), b"")) == b""

    def test_a_connection_that_is_kept_serves_on(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("packetfs_compute.http_server._HEAD_TIMEOUT_S", 0.2)
        with client.connection() as plain:
            for _ in range(2):
                exchange(plain)
                time.sleep(0.3)

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/nope", 404), ("PUT", "/v1/jobs", 405), ("POST", "/health", 405), ("GET", "/v1/jobs/", 404)],
    )
    def test_what_is_not_served_is_a_problem(self, client: Client, method: str, path: str, status: int) -> None:
        answer = client(method, path)
        assert (answer.status, answer.error in ("not_found", "method_not_allowed")) == (status, True)
        assert ("Allow" in answer.headers) == (status == 405)


class TestBrowsers:
    def test_every_answer_carries_what_keeps_pages_apart(self, client: Client) -> None:
        for answer in (
            client.get("/docs"),
            client.get("/nope"),
            client.get("/health"),
            client("POST", "/v1/jobs"),
            client.get("/metrics"),
        ):
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "server" not in answer.headers

    def test_a_listed_origin_may_call_and_read(self, client: Client) -> None:
        ask = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        preflight = client("OPTIONS", "/v1/jobs", headers=ask)
        assert preflight.status == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Content-Type" in preflight.headers["Access-Control-Allow-Headers"]
        answer = client.post("/v1/jobs", {"program": PROGRAM}, Origin=ORIGIN)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (202, ORIGIN)
        assert "Location" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Vary"] == "Origin"

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://app.example.com", ORIGIN + ".evil.example", ORIGIN.upper()]
    )
    def test_no_other_may(self, client: Client, origin: str) -> None:
        preflight = client("OPTIONS", "/v1/jobs", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert "Access-Control-Allow-Origin" not in preflight.headers
        for media in ("text/plain", "application/json"):
            raw = json.dumps({"program": PROGRAM, "job_id": "j1"}).encode()
            answer = client("POST", "/v1/jobs", raw=raw, headers={"Origin": origin, "Content-Type": media})
            assert (answer.status, answer.json["field"]) == (403, "Origin")
        assert client.get("/v1/jobs/j1").status == 404
        assert "Access-Control-Allow-Origin" not in client.get("/health", Origin=origin).headers

    def test_pages_of_its_own_may(self, client: Client) -> None:
        assert client.post("/v1/jobs", {"program": PROGRAM}, Origin=client.url).status == 202

    def test_a_name_that_was_made_to_lead_here_is_not_answered(self, client: Client) -> None:
        for path in ("/v1/fleet", "/metrics", "/v1/jobs/j1"):
            assert client.get(path, Host="evil.example").json["field"] == "Host"
        own = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert client("POST", "/v1/jobs", {"program": PROGRAM}, own).json["field"] == "Host"


class TestKeys:
    def test_each_route_asks_for_its_scope(self, client: Client, redis_settings: Settings) -> None:
        keys = open_keys(redis_settings)
        by_scope = {scope: client.with_key(keys.add([scope])[0]) for scope in ("submit", "read", "admin", "browser")}
        job = {"program": PROGRAM, "job_id": "j1"}
        asked: dict[str, tuple[str, str, Any]] = {
            "submit": ("POST", "/v1/jobs", job),
            "job": ("GET", "/v1/jobs/j1", None),
            "cancel": ("DELETE", "/v1/jobs/j1", None),
            "events": ("GET", "/v1/jobs/j1/events", None),
            "explain": ("POST", "/v1/explain", {"program": PROGRAM}),
            "fleet": ("GET", "/v1/fleet", None),
            "metrics": ("GET", "/metrics", None),
            "keys": ("GET", "/v1/keys", None),
        }
        let_in = {
            scope: {name for name, (method, path, body) in asked.items() if one(method, path, body).status < 300}
            for scope, one in by_scope.items()
        }
        assert let_in == {
            "submit": {"submit", "job", "cancel", "events", "explain"},
            "read": {"job", "events", "explain", "fleet", "metrics"},
            "admin": set(asked),
            "browser": set(),
        }
        assert {client(*one).status for one in asked.values()} == {401}
        assert client.get("/health").status == 503  # nobody consumes; and it needs no key
        assert client.get("/docs").status == client.get("/openapi.json").status == 200

    def test_an_admin_makes_lists_and_revokes_them(self, client: Client, redis_settings: Settings) -> None:
        admin = client.with_key(open_keys(redis_settings).add(["admin"])[0])
        made = admin.post("/v1/keys", {"scopes": ["read"], "name": "ci"})
        assert made.status == 201
        reader = client.with_key(made.json["key"])
        assert reader.get("/v1/fleet").status == 200
        listed = admin.get("/v1/keys")
        assert made.json["key"] not in listed.text
        assert [one["name"] for one in listed.json["keys"]] == ["", "ci"]
        assert admin.delete(f"/v1/keys/{made.json['id']}").status == 200
        assert reader.get("/v1/fleet").status == 401
        assert admin.delete(f"/v1/keys/{made.json['id']}").status == 404

    @pytest.mark.parametrize(
        "body",
        [
            {},
            [],
            {"scopes": []},
            {"scopes": ["root"]},
            {"scopes": [[]]},
            {"scopes": ["read"], "name": "\n"},
            {"scopes": ["read"], "name": 7},
        ],
    )
    def test_a_key_that_is_none_is_not_made(self, client: Client, redis_settings: Settings, body: Any) -> None:
        admin = client.with_key(open_keys(redis_settings).add(["admin"])[0])
        assert admin.post("/v1/keys", body).status == 400
        assert len(admin.get("/v1/keys").json["keys"]) == 1


def test_explain_and_fleet_say_what_the_shell_says(client: Client) -> None:
    told = client.post("/v1/explain", {"program": {**PROGRAM, "length": 1000}, "policy": {"substrates": ["mars"]}})
    assert (told.status, told.json["substrate"], told.json["byte_count"], told.json["measured"]) == (
        200,
        None,
        1000,
        True,
    )
    assert "not among policy.substrates" in told.json["candidates"][0]["veto"]
    assert client.post("/v1/explain", {"program": {}}).json["field"] == "program.data_url"
    assert [one["name"] for one in client.get("/v1/fleet").json["substrates"]] == ["local"]


class TestScans:
    def test_a_scan_is_accepted_and_found_among_the_jobs(self, client: Client) -> None:
        answer = client.post(
            "/v1/scans", {"program": PROGRAM, "window": 256, "policy": {"max_cost_usd": 1}, "job_id": "s"}
        )
        assert (answer.status, answer.headers["Location"]) == (202, "/v1/jobs/s")
        assert answer.json["program"] == {**PROGRAM, "offset": 0, "window": 256}
        assert client.get("/v1/jobs/s").json == answer.json
        assert (
            client.post(
                "/v1/scans", {"program": PROGRAM, "window": 256, "policy": {"max_cost_usd": 1}, "job_id": "s"}
            ).status
            == 200
        )
        assert client.delete("/v1/jobs/s").json["status"] == "cancelled"

    def test_another_under_its_id_is_a_conflict(self, client: Client) -> None:
        client.post("/v1/scans", {"program": PROGRAM, "job_id": "s"})
        for path, more in (("scans", {"window": 256}), ("jobs", {})):
            answer = client.post(f"/v1/{path}", {"program": PROGRAM, "job_id": "s", **more})
            assert (answer.status, answer.error) == (409, "conflict")

    @pytest.mark.parametrize("window", [0, -1, 1.5, "8MiB", 1 << 46, True, []])
    def test_a_window_that_is_none_is_named(self, client: Client, window: Any) -> None:
        answer = client.post("/v1/scans", {"program": PROGRAM, "window": window})
        assert (answer.status, answer.json["field"]) == (400, "window")

    def test_a_job_has_no_window(self, client: Client) -> None:
        assert client.post("/v1/jobs", {"program": PROGRAM, "window": 256}).json["field"] == "request.window"


def counted(text: str, labels: str) -> float:
    match = re.search(rf"^packetfs_gateway_requests_total{{{labels}}} (.+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_metrics_count_requests_by_route_and_tell_the_shared_state(client: Client) -> None:
    missing, strange = (
        'method="GET",route="/v1/jobs/{job_id}",status="404"',
        'method="other",route="other",status="404"',
    )
    before = client.get("/metrics").text
    client.get("/v1/jobs/none")
    client("BREW", "/teapot/7")
    after = client.get("/metrics").text
    for labels in (missing, strange):
        assert counted(after, re.escape(labels)) == counted(before, re.escape(labels)) + 1
    assert "teapot" not in after
    assert "packetfs_open_jobs 0.0" in after


def test_without_redis_it_says_so_and_names_no_host(tmp_path: Any) -> None:
    settings = Settings(data_dir=tmp_path, connect_timeout_s=0.5)
    with serving(create_app(settings, Desk(settings), lambda: celery_app.backend)) as client:
        for answer in (
            client.get("/v1/jobs/j1"),
            client.post("/v1/jobs", {"program": PROGRAM}),
            client.get("/metrics"),
        ):
            assert (answer.status, answer.error) == (503, "unavailable")
            assert answer.headers["Retry-After"]
            assert str(tmp_path) not in answer.text
        health = client.get("/health")
        assert (health.status, health.json["unwell"][0]["what"]) == (503, "redis")
