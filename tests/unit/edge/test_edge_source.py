"""The core's reading of sources, over node's `fetch`: the right bytes or a typed error, and always an end in time."""

import time
from typing import Any

import pytest
from support.edge import Edge
from support.misbehaving import Exchange, RawServer, answer, honest, says
from support.nginx import Nginx
from support.processes import STALL_S

from packetfs_compute import kernels
from packetfs_compute.conform.bench import OPS, values_of
from packetfs_compute.conform.misbehaviour import CASES, DATA, Case
from packetfs_compute.errors import AttemptTimeout, SourceFailed

pytestmark = pytest.mark.integration

OPENED = {"PACKETFS_ALLOW_UNSIGNED": "1", "PACKETFS_ALLOW_PRIVATE_SOURCES": "127.0.0.0/8,::1/128"}

STRICTER = {"folded field", "interim answers", "lines ended by a lone LF"}
"""What our own reader takes and node's refuses: there a failure of the source will do."""
UNSEEN = {
    "endless fields", "endless interim answers", "endless line", "endless trailer", "endless chunk extension",
    "not HTTP and no line",
}  # fmt: skip
"""Floods that node's parser does not bound, so that only the deadline ends them."""


def run(edge: Edge, url: str, timeout: int = 20_000, **program: Any) -> dict[str, Any]:
    request = {"program": {"data_url": url, "ops": OPS, **program}, "timeout": timeout}
    found: dict[str, Any] = edge.call("execute", request)
    return found


def attempt(edge: Edge, case: Case) -> dict[str, Any]:
    variables = {
        **OPENED,
        "PACKETFS_STALL_TIMEOUT_S": str(case.stall_s),
        "PACKETFS_MAX_SKIP_BYTES": str(case.max_skip),
    }
    edge.platform(variables, now=60_000)
    wanted = {"offset": case.offset, "length": case.length, "etag": case.etag}
    with RawServer(case.script) as server:
        return run(edge, server.url(), int(1000 * min(case.budget_s, 1.0 if case.name in UNSEEN else 9)), **wanted)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_right_value_or_a_typed_error(edge: Edge, case: Case) -> None:
    started = time.monotonic()
    found = attempt(edge, case)
    assert time.monotonic() - started < case.budget_s + STALL_S
    wants_bytes = isinstance(case.want, bytes)
    right = DATA[case.offset :] if case.length is None else DATA[case.offset : case.offset + case.length]
    if isinstance(case.want, bytes):
        right = case.want
    if found["success"]:
        assert wants_bytes or case.repairable
        assert found["results"] == values_of(right, OPS)
        assert found["bytesProcessed"] == len(right)
        return
    error = found["error"]
    if wants_bytes:
        assert case.name in STRICTER, error
        assert error["type"] == SourceFailed.type
        return
    if case.name == "drip of status line":  # HHHH: node need not wait to know that this is no HTTP
        assert error["type"] in (SourceFailed.type, AttemptTimeout.type)
        return
    assert not isinstance(case.want, bytes)
    late = {AttemptTimeout.type} if case.name in UNSEEN else set()
    assert error["type"] in {case.want.type, *late}, error
    if case.retryable is not None and error["type"] == case.want.type:
        assert error["retryable"] is case.retryable, error
    for key, value in (case.details or {}).items():
        assert error[key] == value


def test_the_deadline_is_told_from_the_longest_silence(edge: Edge) -> None:
    with RawServer(lambda exchange: exchange.wait(10)) as server:
        edge.platform({**OPENED, "PACKETFS_STALL_TIMEOUT_S": "0.2"})
        stalled = run(edge, server.url(), 5000)["error"]
        edge.platform(OPENED)
        late = run(edge, server.url(), 200)["error"]
    assert (stalled["type"], stalled["retryable"], "stalled" in stalled["message"]) == ("source_failed", True, True)
    assert (late["type"], "deadline of 0.2 s" in late["message"]) == ("timeout", True)


def test_a_drip_is_no_silence(edge: Edge) -> None:
    """Each byte begins the wait anew; only the deadline bounds them all."""

    def drip(x: Exchange) -> None:
        x.send(answer("206 Partial Content", "Content-Range: bytes 0-7/8", "Content-Length: 8"))
        for byte in b"12345678":
            x.wait(0.2)
            x.send(bytes([byte]))

    edge.platform({**OPENED, "PACKETFS_STALL_TIMEOUT_S": "0.5"})
    with RawServer(drip) as server:
        found = run(edge, server.url(), offset=0, length=8)
    assert found["results"] == values_of(b"12345678", OPS)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/there", "there", "?there", "http://127.0.0.1:{}/there#fragment", "//127.0.0.1:{}/"]
)
def test_redirects_are_followed_with_the_range(edge: Edge, status: int, location: str) -> None:
    edge.platform(OPENED)
    with RawServer(honest(DATA)) as server:
        target = location.format(server.port)
        server.routes["/object"] = says(answer(f"{status} See", f"Location: {target}", "Content-Length: 2", body=b"no"))
        found = run(edge, server.url(), offset=10, length=20)
        assert found["results"] == values_of(DATA[10:30], OPS)
        last = next(head for head in reversed(server.heads) if b"/object " not in head)
        assert b"range: bytes=10-29" in last.lower()
        assert b"accept-encoding: identity" in last.lower()
        assert b"#" not in last


@pytest.mark.parametrize(
    "location",
    ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "//192.168.0.1/", "http://[::ffff:127.0.0.1]/",
     "http://0x7f000001/", "http://metadata.google.internal./", "http://93.184.216.34:22/", "file:///etc/passwd",
     "ftp://example.com/", "//0x7f.1/", "http://127.1/"],
)  # fmt: skip
def test_no_redirect_leads_to_a_closed_place(edge: Edge, location: str) -> None:
    edge.platform(OPENED)
    with RawServer(says(answer("302 Found", f"Location: {location}", "Content-Length: 0"))) as server:
        assert run(edge, server.url())["error"]["type"] == "forbidden_source"


@pytest.mark.parametrize(
    "location", ["http:\\\\127.0.0.1\\", "/a\\b", "http://a b/", "/\t/127.0.0.1/", "\x01", "http://[::1"]
)
def test_what_parsers_read_differently_is_no_redirect(edge: Edge, location: str) -> None:
    edge.platform(OPENED)
    with RawServer(says(answer("302 Found", f"Location: {location}", "Content-Length: 0"))) as server:
        assert run(edge, server.url())["error"]["type"] == "source_failed"


@pytest.mark.parametrize("path", ["/a/../object", "/./object", "/a/%2e%2E/object", "/..", "/a/.%2e", "/%2e/?x"])
def test_a_path_that_fetch_would_change_is_left_to_another_place(edge: Edge, path: str) -> None:
    """Python asks for it as it stands: another path may be another object."""
    edge.platform(OPENED)
    with RawServer(honest(DATA)) as server:
        error = run(edge, server.url(path))["error"]
        assert (error["type"], error["retryable"], server.heads) == ("internal", False, [])
        assert run(edge, server.url("/a..b/...?/../x"))["success"]


def test_a_url_that_only_our_text_rules_take(edge: Edge) -> None:
    edge.platform(OPENED)
    assert run(edge, "http://xn--a.com/")["error"]["type"] in ("bad_program", "source_failed")


def test_a_closed_port_is_a_source_that_failed(edge: Edge) -> None:
    edge.platform(OPENED)
    with RawServer(honest(DATA)) as server:
        url = server.url()
    error = run(edge, url)["error"]
    assert (error["type"], error["retryable"]) == ("source_failed", True)


def test_a_server_that_closes_what_it_keeps_costs_no_job(edge: Edge) -> None:
    """An answer that says that its connection stays, and a FIN: the next request may be on its way already."""
    edge.platform(OPENED)
    good = honest(DATA)

    def closing(x: Exchange) -> None:
        good(x)

    with RawServer(closing) as server:
        program = {"data_url": server.url(), "ops": OPS, "offset": 1, "length": 1}
        for _ in range(50):
            found = edge.call("together", [{"program": program}] * 4)
            assert [answered["success"] for answered in found] == [True] * 4


def test_a_large_range_through_one_buffer(edge: Edge, nginx: Nginx) -> None:
    data = bytes(range(256)) * 40_000
    (nginx.www / "edge-large.bin").write_bytes(data)
    edge.platform(OPENED)
    found = run(edge, nginx.url("edge-large.bin"), offset=3)
    assert (found["bytesProcessed"], found["objectSize"], found["cache"]) == (len(data) - 3, len(data), None)
    assert found["results"] == values_of(data[3:], OPS)
    whole = run(edge, nginx.url("whole/edge-large.bin"), offset=3, length=1 << 20)
    assert whole["results"][1]["value"] == kernels.crc32c(data[3 : 3 + (1 << 20)])


def test_a_coding_that_was_not_asked_for(edge: Edge, nginx: Nginx) -> None:
    (nginx.www / "edge-text.txt").write_bytes(b"text " * 1000)
    edge.platform(OPENED)
    assert run(edge, nginx.url("gzip/edge-text.txt"))["results"] == values_of(b"text " * 1000, OPS)


@pytest.mark.parametrize("limit", [1000, 999, 500])
@pytest.mark.parametrize("program", [{}, {"length": 1000}, {"offset": 1, "length": None}])
def test_a_range_that_is_longer_than_is_taken(edge: Edge, limit: int, program: dict[str, Any]) -> None:
    edge.platform({**OPENED, "PACKETFS_MAX_RANGE_BYTES": str(limit)})
    with RawServer(honest(DATA)) as server:
        found = run(edge, server.url(), **program)
    size = 1000 - program.get("offset", 0)
    if size <= limit:
        assert found["bytesProcessed"] == size
    else:
        assert (found["error"]["type"], found["error"]["retryable"]) == ("too_large", False)


def test_a_range_without_a_size_is_stopped_at_the_limit(edge: Edge) -> None:
    def endless(x: Exchange) -> None:
        x.send(answer("200 OK", "Transfer-Encoding: chunked"))
        while not x.server.closing.is_set():
            x.send(b"1000\r\n" + bytes(4096) + b"\r\n")

    edge.platform({**OPENED, "PACKETFS_MAX_RANGE_BYTES": "100000"})
    with RawServer(endless) as server:
        assert run(edge, server.url())["error"]["type"] == "too_large"


@pytest.mark.parametrize("coordinator", ["direct", "broken", "late"])
def test_a_coordinator_fails_no_job(edge: Edge, coordinator: str) -> None:
    edge.platform(OPENED, coordinator=coordinator)
    with RawServer(honest(DATA)) as server:
        request = {"jobId": "j1", "program": {"data_url": server.url(), "ops": OPS}, "timeout": 5000}
        found = edge.call("execute", request)
        assert found["results"] == values_of(DATA, OPS)
        assert len(server.heads) == 1
