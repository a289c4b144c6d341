"""The Vercel function on npm's `edge-runtime`: it computes, is signed, is bounded, streams, and can be killed."""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.edge import PATH, REMOTE, need_node
from support.endpoint import REFUSED, SigningClient
from support.misbehaving import Exchange, RawServer, answer, honest, says
from support.nginx import Nginx
from support.processes import STALL_S, peak_memory_mib, wait_until
from support.vercel import BUILD, VercelServer

from packetfs_compute import __version__, kernels
from packetfs_compute.conform import Bench, HttpTarget, Key, conform, serving
from packetfs_compute.conform.misbehaviour import DATA
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.signature import HEADER
from packetfs_compute.substrates.fly import FlySubstrate

pytestmark = pytest.mark.integration

OPS = [{"op": "crc32c"}, {"op": "counteq", "imm": 0}]


def job(url: str, at: int = 0, timeout: int = 20_000, **more: Any) -> dict[str, Any]:
    return {"jobId": f"j{at}", "program": {"data_url": url, "ops": OPS, **more}, "timeout": timeout}


@pytest.fixture(scope="module")
def client(vercel_server: VercelServer) -> Iterator[SigningClient]:
    made = SigningClient(vercel_server)
    yield made
    made.http.clear()


@pytest.fixture(scope="module")
def source() -> Iterator[RawServer]:
    with RawServer(honest(DATA)) as server:
        server.routes["/slow"] = lambda exchange: exchange.wait(20)
        server.routes["/missing"] = says(answer("404 Not Found", "Content-Length: 0"))
        yield server


def test_a_job(client: SigningClient, source: RawServer) -> None:
    found = client.post(job(source.url(), 7))
    assert (found.status, found.headers["Content-Type"], found.headers["Cache-Control"]) == (
        200, "application/json", "no-store",
    )  # fmt: skip
    document = found.json()
    assert (document["jobId"], document["region"], document["cache"], document["memoryUsedMb"]) == (
        "j7", "iad1", None, None,
    )  # fmt: skip
    assert [entry["value"] for entry in document["results"]] == [kernels.crc32c(DATA), DATA.count(0)]


def test_its_health_needs_no_signature(client: SigningClient) -> None:
    found = client.http.request("GET", client.server.url + "/health").json()
    assert (found["status"], found["version"], found["kernel"]) == ("healthy", __version__, "wasm-simd")


def test_a_substrate_reaches_it(vercel_server: VercelServer, source: RawServer) -> None:
    substrate = FlySubstrate(SubstrateSpec("vercel", "fly", url=vercel_server.url), vercel_server.settings())
    try:
        assert substrate.health(5)["region"] == "iad1"
        assert substrate.invoke(job(source.url()))["success"]
        assert substrate.invoke(job(source.url("/missing")))["error"]["type"] == "source_not_found"
    finally:
        substrate.close()


def test_it_keeps_the_contract(vercel_server: VercelServer) -> None:
    target = HttpTarget(vercel_server.url, Key(vercel_server.key_id, vercel_server.secret))
    try:
        with serving() as origin:
            report = conform(Bench(target, origin, origin.url(""), tampered=1000, large_bytes=64 << 20))
    finally:
        target.close()
    assert [(one.check, one.case, one.problem) for one in report.failed] == []
    assert report.left_out == {}


@pytest.mark.parametrize("kind", REFUSED)
def test_who_has_no_key_is_refused(client: SigningClient, source: RawServer, kind: str) -> None:
    body, heads = json.dumps(job(source.url())).encode(), len(source.heads)
    found = client.raw(body, headers=REFUSED[kind](client, body))
    assert (found.status, found.json()["error"]["type"], found.json()["jobId"]) == (401, "unauthorized", None)
    assert client.server.secret not in found.data.decode()
    assert len(source.heads) == heads


def test_a_signature_is_good_once(client: SigningClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    fields = {HEADER: client.header(body)}
    assert [client.raw(body, headers=fields).status for _ in range(3)] == [200, 401, 401]


def test_a_batch_is_answered_in_order(client: SigningClient, source: RawServer) -> None:
    jobs: list[object] = [job(source.url(), at, offset=at * 10, length=10) for at in range(60)]
    jobs[3], jobs[5], jobs[7] = job(source.url("/missing"), 3), {"jobId": "j5"}, 7
    results = client.post({"jobs": jobs}, "/compute/batch").json()["results"]
    assert [found["jobId"] for found in results] == [None if at == 7 else f"j{at}" for at in range(60)]
    for at, found in enumerate(results):
        if found["success"]:
            assert found["results"][0]["value"] == kernels.crc32c(DATA[at * 10 : at * 10 + 10])
    assert [at for at, found in enumerate(results) if not found["success"]] == [3, 5, 7]


def head(client: SigningClient, body: bytes, length: int | None = None) -> bytes:
    framing = f"Content-Length: {len(body)}" if length is None else f"Content-Length: {length}"
    framing = "Transfer-Encoding: chunked" if length == -1 else framing
    return (
        f"POST /compute HTTP/1.1\r\nHost: x\r\n{HEADER}: {client.header(body)}\r\n{framing}\r\nConnection: close\r\n\r\n"
    ).encode()


def talk(server: VercelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def test_a_body_that_says_that_it_is_too_large_is_not_read(client: SigningClient) -> None:
    with talk(client.server) as sock:
        sock.sendall(head(client, b"", (1 << 16) + 1))
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_say_is_refused_at_its_bound(client: SigningClient, source: RawServer) -> None:
    found = b""
    with talk(client.server) as sock:
        sock.sendall(head(client, b"", -1))
        with suppress(OSError):
            for _ in range(32):
                sock.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        found = sock.recv(65536)
    assert found.startswith(b"HTTP/1.1 413 ")
    assert client.post(job(source.url())).status == 200


def test_a_body_that_drips_is_given_up(client: SigningClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    started = time.monotonic()
    with talk(client.server) as sock:
        sock.sendall(head(client, body) + body[:5])
        sock.settimeout(0.5)
        found = b""
        while not found and time.monotonic() - started < 10 + STALL_S:
            try:
                found = sock.recv(65536)
            except TimeoutError:
                sock.sendall(b" ")
    assert found.startswith(b"HTTP/1.1 504 ")
    assert time.monotonic() - started > 9


@contextmanager
def holding() -> Iterator[tuple[RawServer, list[int], threading.Event]]:
    """A source that holds its readers until the event is set, and the most of them that there were at once."""
    go, lock, now, most = threading.Event(), threading.Lock(), [0], [0]
    good = honest(DATA)

    def script(exchange: Exchange) -> bool:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        go.wait(20)
        with lock:
            now[0] -= 1
        return bool(good(exchange))

    with RawServer(script) as server:
        try:
            yield server, most, go
        finally:
            go.set()


def test_past_its_bound_it_is_busy_at_once(client: SigningClient) -> None:
    with holding() as (source, most, go), ThreadPoolExecutor(8) as threads:
        held = [threads.submit(client.post, job(source.url(), at)) for at in range(8)]
        wait_until(lambda: most[0] == 8, "eight attempts at the source")
        for at in range(20):
            busy = client.post(job(source.url(), 100 + at))
            assert (busy.status, busy.headers["Retry-After"]) == (429, "1")
            error = busy.json()["error"]
            assert (busy.json()["jobId"], error["type"], error["retry_after_s"]) == (f"j{100 + at}", "busy", 1)
        assert client.post({"jobs": [job(source.url())]}, "/compute/batch").status == 429
        assert client.post({"jobs": []}, "/compute/batch").json() == {"results": []}
        assert client.http.request("GET", client.server.url + "/health").status == 200
        go.set()
        assert [found.result().status for found in held] == [200] * 8
        assert most[0] == 8
        assert client.post(job(source.url())).status == 200


def test_a_batch_takes_the_slots_that_are_free_and_no_more(client: SigningClient) -> None:
    with holding() as (source, most, go), ThreadPoolExecutor(4) as threads:
        single = [threads.submit(client.post, job(source.url(), at)) for at in range(3)]
        wait_until(lambda: most[0] == 3, "three attempts at the source")
        batch = threads.submit(client.post, {"jobs": [job(source.url(), at) for at in range(30)]}, "/compute/batch")
        wait_until(lambda: most[0] == 8, "eight attempts at the source")
        assert client.post(job(source.url())).status == 429
        go.set()
        assert [found.result().status for found in single] == [200] * 3
        assert all(found["success"] for found in batch.result().json()["results"])
        assert most[0] == 8


def test_a_client_that_leaves_takes_no_slot_with_it(client: SigningClient) -> None:
    with holding() as (source, most, go):
        for at in range(8):
            body = json.dumps(job(source.url(), at)).encode()
            with talk(client.server) as sock:
                sock.sendall(head(client, body) + body)
                wait_until(lambda at=at: most[0] == at + 1, "the attempt at the source")  # type: ignore[misc]
        assert client.post(job(source.url())).status == 429
        go.set()
        wait_until(lambda: client.post(job(source.url())).status == 200, "a free slot")


def test_memory_is_flat(tmp_path: Path, nginx: Nginx) -> None:
    """The runtime's heap grows to its own size first; after that a gigabyte adds next to nothing."""
    for name, size in (("vercel-warm.bin", 256 << 20), ("vercel-sparse.bin", 1 << 30)):
        with (nginx.www / name).open("wb") as file:
            os.truncate(file.fileno(), size)
    with VercelServer(tmp_path) as server:
        client = SigningClient(server)
        for _ in range(3):
            assert client.post(job(nginx.url("vercel-warm.bin"))).status == 200
        before = peak_memory_mib(server.pid)
        began = time.monotonic()
        document = client.post(job(nginx.url("vercel-sparse.bin"), timeout=100_000)).json()
        took_s = time.monotonic() - began
        after = peak_memory_mib(server.pid)
        assert (document["bytesProcessed"], document["results"][1]["value"]) == (1 << 30, 1 << 30)
        print(f"peak resident memory: {before:.0f} MiB before, {after:.0f} MiB after 1 GiB; {1024 / took_s:.0f} MiB/s")
        assert after - before < 64


def test_killed_in_the_middle_of_a_job_it_comes_back(tmp_path: Path, source: RawServer) -> None:
    with VercelServer(tmp_path) as server, ThreadPoolExecutor(1) as threads:
        client, substrate = (
            SigningClient(server),
            FlySubstrate(SubstrateSpec("vercel", "fly", url=server.url), server.settings()),
        )
        heads = len(source.heads)
        running = threads.submit(substrate.invoke, job(source.url("/slow")))
        wait_until(lambda: len(source.heads) > heads, "the attempt at the source")
        server.kill()
        error = running.result()["error"]
        assert (error["type"], error["retryable"]) == ("internal", True)
        server.start()
        assert client.post(job(source.url())).status == 200
        assert substrate.invoke(job(source.url()))["success"]
        substrate.close()


def test_without_a_key_it_serves_nothing(tmp_path: Path) -> None:
    with VercelServer(tmp_path, PACKETFS_SIGNING_KEYS="") as server:
        found = SigningClient(server).raw(b"{}", headers={})
        assert (found.status, found.json()["error"]["field"]) == (500, "PACKETFS_SIGNING_KEYS")


@pytest.mark.parametrize(
    ("header", "region"),
    [("cdg1::iad1::8lwcx-1700000000000-0123456789ab", "iad1"), ("fra1::8lwcx-1700000000000-0123456789ab", "fra1"),
     ("dev1::dev1::x", "dev1"), ("8lwcx", "vercel"), ("", "vercel"), ("<script>::a b::x", "vercel")],
)  # fmt: skip
def test_the_region_is_the_last_that_the_request_passed(
    regional: VercelServer, header: str, region: str, source: RawServer
) -> None:
    fields = {"x-vercel-id": header} if header else {}
    found = urllib3.request("GET", f"{regional.url}/health", headers=fields, retries=False, timeout=10)
    assert found.json()["region"] == region


@pytest.fixture(scope="module")
def regional(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VercelServer]:
    with VercelServer(tmp_path_factory.mktemp("regional"), VERCEL_REGION="") as server:
        yield server


def test_what_is_deployed(tmp_path: Path) -> None:
    """The Build Output: an edge function that imports its module from beside it, and has no secret in it."""
    output = tmp_path / "output"
    done = subprocess.run(
        [need_node(), str(BUILD), "--output", str(output)], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PATH": PATH, "PACKETFS_SIGNING_KEYS": "k1:never-in-a-deployed-file"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = output / "functions" / "index.func"
    assert json.loads((output / "config.json").read_text()) == {
        "version": 3, "routes": [{"src": "/.*", "dest": "/index"}],
    }  # fmt: skip
    config = json.loads((folder / ".vc-config.json").read_text())
    assert (config["runtime"], config["entrypoint"]) == ("edge", "index.js")
    assert {path.name for path in folder.iterdir()} == {"index.js", "kernels-simd.wasm", ".vc-config.json"}
    script = (folder / "index.js").read_text()
    assert 'from "./kernels-simd.wasm"' in script
    assert "never-in-a-deployed-file" not in script
    assert "new WebAssembly.Module" not in script
    read = set(re.findall('"(PACKETFS_[A-Z_]+)"', (REMOTE / "edge" / "src" / "settings.ts").read_text()))
    assert set(config["envVarsInUse"]) == read | {"VERCEL_REGION"}
