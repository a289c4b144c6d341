"""The core's `serve`, from a `Request` to a `Response`, without a server around it: forms, bounds, refusals."""

import json
import time
from typing import Any

import pytest
from support.edge import Edge, Refused, encoded
from support.misbehaving import RawServer, answer, honest, says

from packetfs_compute.conform.bench import OPS, values_of
from packetfs_compute.conform.misbehaviour import DATA
from packetfs_compute.signature import HEADER, sign
from packetfs_compute.wire import parse_health

pytestmark = pytest.mark.integration

SECRET = "s" * 32
PRIVATE = {"PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8"}
SIGNED = {**PRIVATE, "PACKETFS_SIGNING_KEYS": f"k1:{SECRET}"}


class Reply:
    def __init__(self, raw: Any) -> None:
        self.status: int = raw["status"]
        self.headers: dict[str, str] = raw["headers"]
        self.document = json.loads(raw["text"]) if raw["text"] else None

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.document["error"]["type"]


def send(
    edge: Edge, method: str, path: str, body: bytes | None = None, headers: list[tuple[str, str]] | None = None
) -> Reply:
    return Reply(edge.call("serve", method, path, headers or [], None if body is None else encoded(body)))


def post(edge: Edge, document: object, path: str = "/compute") -> Reply:
    return send(edge, "POST", path, json.dumps(document).encode())


def job(url: str, at: int = 0, **more: Any) -> dict[str, Any]:
    return {"jobId": f"j{at}", "program": {"data_url": url, "ops": OPS, **more}, "timeout": 5000}


@pytest.fixture(autouse=True)
def platform(edge: Edge) -> None:
    edge.platform()


def test_a_job(edge: Edge) -> None:
    with RawServer(honest(DATA)) as source:
        found = post(edge, job(source.url()))
    assert (found.status, found.headers["content-type"], found.headers["cache-control"]) == (
        200, "application/json", "no-store",
    )  # fmt: skip
    assert found.document["results"] == values_of(DATA, OPS)
    assert (found.document["jobId"], found.document["region"], found.document["memoryUsedMb"]) == ("j0", "here", None)


def test_health(edge: Edge) -> None:
    found = send(edge, "GET", "/health?x=1")
    assert parse_health(found.document)["kernel"] == "wasm-simd"
    assert (found.status, found.document["limits"]["maxRangeBytes"]) == (200, 1 << 45)
    edge.platform({**SIGNED, "PACKETFS_MAX_RANGE_BYTES": "1000"})
    assert send(edge, "GET", "/health").document["limits"]["maxRangeBytes"] == 1000


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [("GET", "/", 404, None), ("POST", "/computer", 404, None), ("GET", "/compute", 405, "POST"),
     ("PUT", "/compute", 405, "POST"), ("DELETE", "/health", 405, "GET, HEAD"), ("POST", "/compute/", 404, None),
     ("GET", "/../etc/passwd", 404, None), ("BREW", "/compute/batch", 405, "POST"), ("GET", "/__proto__", 404, None),
     ("GET", "/toString", 404, None)],
)  # fmt: skip
def test_what_is_not_served(edge: Edge, method: str, path: str, status: int, allow: str | None) -> None:
    found = send(edge, method, path)
    assert (found.status, found.document["success"], found.headers.get("allow")) == (status, False, allow)
    assert found.document["error"]["hint"]


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "a number": b"7",
    "null": b"null",
    "a list": b"[]",
    "nested without end": b"[" * 60_000,
    "objects without end": b'{"a":' * 10_000,
    "a number without end": b'{"timeout": ' + b"9" * 60_000 + b"}",
    "NaN": b'{"timeout": NaN}',
    "infinity": b'{"timeout": -Infinity}',
    "a huge float": b'{"timeout": 1e999}',
    "bad UTF-8": b'{"jobId": "\xff\xfe"}',
    "UTF-16": '{"program": {}}'.encode("utf-16"),
    "a BOM": b"\xef\xbb\xbf{}",
    "half a surrogate": b'{"program": {"data_url": "\\ud800", "op": "crc32c"}}',
    "NUL": b'{"program": {"data_url": "https://host/\\u0000", "op": "crc32c"}}',
    "two documents": b"{}{}",
    "an unknown field": b'{"program": {"data_url": "https://host/", "op": "crc32c", "lenght": 5}}',
    "a prototype": b'{"__proto__": {"program": 1}}',
}

NO_JSON = {
    "nothing",
    "no JSON",
    "nested without end",
    "NaN",
    "infinity",
    "bad UTF-8",
    "UTF-16",
    "a BOM",
    "two documents",
}


@pytest.mark.parametrize("path", ["/compute", "/compute/batch"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_json_is_a_bad_program(edge: Edge, kind: str, path: str) -> None:
    found = send(edge, "POST", path, HOSTILE[kind])
    assert found.error == (400, "bad_program")
    if kind in NO_JSON:
        assert (found.document["error"]["field"], "no JSON" in found.document["error"]["message"]) == ("request", True)


def test_no_body_at_all(edge: Edge) -> None:
    assert send(edge, "POST", "/compute").error == (400, "bad_program")


@pytest.mark.parametrize(("path", "limit"), [("/compute", 1 << 16), ("/compute/batch", 1 << 20)])
def test_the_bodys_bound(edge: Edge, path: str, limit: int) -> None:
    text = b"{}" if path == "/compute" else b'{"jobs": []}'
    assert send(edge, "POST", path, text.ljust(limit)).status == (400 if path == "/compute" else 200)
    assert send(edge, "POST", path, text.ljust(limit + 1)).error == (413, "too_large")
    assert send(edge, "POST", path, b"{}", [("Content-Length", str(limit + 1))]).error == (413, "too_large")


def test_a_batch_is_answered_in_order(edge: Edge) -> None:
    with RawServer(honest(DATA)) as source:
        source.routes["/missing"] = says(answer("404 Not Found", "Content-Length: 0"))
        jobs: list[object] = [job(source.url(), at, offset=at * 10, length=10) for at in range(60)]
        jobs[3], jobs[5], jobs[7] = job(source.url("/missing"), 3), {"jobId": "j5"}, 7
        found = post(edge, {"jobs": jobs}, "/compute/batch")
    results = found.document["results"]
    assert (found.status, len(results)) == (200, 60)
    for at, result in enumerate(results):
        assert result["jobId"] == (None if at == 7 else f"j{at}")
        if at in (3, 5, 7):
            assert result["error"]["type"] == ("source_not_found" if at == 3 else "bad_program")
        else:
            assert result["results"] == values_of(DATA[at * 10 : at * 10 + 10], OPS)


@pytest.mark.parametrize(
    ("batch", "field"),
    [({"jobs": [{}] * 65}, "request.jobs"), ({"jobs": {}}, "request.jobs"), ({}, "request.jobs"), ([], "request"),
     ({"jobs": [], "more": 1}, "request.more")],
)  # fmt: skip
def test_a_batch_that_is_none(edge: Edge, batch: object, field: str) -> None:
    found = post(edge, batch, "/compute/batch")
    assert (found.error, found.document["error"]["field"]) == ((400, "bad_program"), field)


def signed(body: bytes, path: str = "/compute", **changed: Any) -> list[tuple[str, str]]:
    given = {"method": "POST", "path": path, "body": body, "key_id": "k1", "secret": SECRET, "now": time.time(),
             "nonce": "nonce-0123456789", **changed}  # fmt: skip
    return [(HEADER, sign(**given))]


@pytest.mark.parametrize(("all_", "wanted", "lost", "taken"), [(4, 3, 0, [3, 1]), (4, 4, 2, [4, 2]), (1, 1, 1, [1, 1])])
def test_a_slot_that_nobody_gives_back_is_free_when_its_time_is_over(
    edge: Edge, all_: int, wanted: int, lost: int, taken: list[int]
) -> None:
    """A platform may end a request in the middle: then no `finally` runs."""
    assert edge.call("slots", all_, wanted, lost) == taken


def test_no_slot_is_busy(edge: Edge) -> None:
    with pytest.raises(Refused) as caught:
        edge.call("slots", 2, 2, 0)
    assert (caught.value.type, caught.value.details["retry_after_s"]) == ("busy", 1)


def test_signatures(edge: Edge) -> None:
    edge.platform(SIGNED)
    body = json.dumps({"jobId": "j1"}).encode()
    assert send(edge, "POST", "/compute", body).error == (401, "unauthorized")
    assert send(edge, "POST", "/compute", body, signed(body, secret="x" * 32)).error == (401, "unauthorized")
    assert send(edge, "POST", "/compute", body, signed(body, "/compute/batch")).error == (401, "unauthorized")
    assert send(edge, "POST", "/compute", body, signed(body) * 2).error == (401, "unauthorized")
    accepted = send(edge, "POST", "/compute", body, signed(body))
    assert (accepted.error, accepted.document["jobId"]) == ((400, "bad_program"), "j1")
    assert send(edge, "POST", "/compute", body, signed(body)).error == (401, "unauthorized")
    assert send(edge, "GET", "/health").status == 200


def test_with_a_key_it_serves_nobody_else_whatever_it_was_told(edge: Edge) -> None:
    edge.platform({**SIGNED, "PACKETFS_ALLOW_UNSIGNED": "1"})
    assert send(edge, "POST", "/compute", b"{}").error == (401, "unauthorized")


@pytest.mark.parametrize(
    ("variables", "field"),
    [({}, "PACKETFS_SIGNING_KEYS"), ({"PACKETFS_SIGNING_KEYS": "hunter2"}, "PACKETFS_SIGNING_KEYS"),
     ({"PACKETFS_ALLOW_UNSIGNED": "1", "PACKETFS_STALL_TIMEOUT_S": "never"}, "PACKETFS_STALL_TIMEOUT_S"),
     ({"PACKETFS_ALLOW_UNSIGNED": "perhaps"}, "PACKETFS_ALLOW_UNSIGNED")],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/compute", "/compute/batch", "/health"])
def test_wrongly_set_up_it_serves_nothing(edge: Edge, variables: dict[str, str], field: str, path: str) -> None:
    edge.platform(variables)
    found = send(edge, "GET" if path == "/health" else "POST", path, None if path == "/health" else b"{}")
    error = found.document["error"]
    assert (found.error, error["field"], error["retryable"]) == ((500, "internal"), field, False)
    assert field in error["message"]
    assert error["hint"]
    assert "hunter2" not in json.dumps(found.document)


@pytest.mark.parametrize(
    ("url", "kind", "status"),
    [("file:///etc/passwd", "forbidden_source", 403), ("/etc/passwd", "forbidden_source", 403),
     ("s3://bucket/key", "forbidden_source", 403), ("S3://bucket/key", "forbidden_source", 403),
     ("http://169.254.169.254/", "forbidden_source", 403), ("http://[fdaa::3]/", "forbidden_source", 403),
     ("gopher://host/", "forbidden_source", 403), ("no url", "bad_program", 400)],
)  # fmt: skip
def test_what_no_program_may_read(edge: Edge, url: str, kind: str, status: int) -> None:
    assert post(edge, job(url)).error == (status, kind)


@pytest.mark.parametrize(
    ("path", "offset", "error"),
    [("/missing", 0, (404, "source_not_found")), ("/object", 2000, (416, "range_not_satisfiable")),
     ("/down", 0, (502, "source_failed"))],
)  # fmt: skip
def test_each_failure_has_its_status_and_its_details(
    edge: Edge, path: str, offset: int, error: tuple[int, str]
) -> None:
    with RawServer(honest(DATA)) as source:
        source.routes["/missing"] = says(answer("404 Not Found", "Content-Length: 0"))
        source.routes["/down"] = says(answer("503 Down", "Retry-After: 7", "Content-Length: 0"))
        found = post(edge, job(source.url(path), offset=offset))
    assert (found.error, found.document["jobId"]) == (error, "j0")
    details = found.document["error"]
    assert details.get("object_size") == (1000 if path == "/object" else None)
    assert details.get("retry_after_s") == (7 if path == "/down" else None)
    assert "retry-after" not in found.headers
