"""The Worker in workerd: what it computes, whom it serves, what it keeps and bounds, and how it ends."""

import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.endpoint import REFUSED
from support.misbehaving import RawServer, honest
from support.nginx import Nginx
from support.processes import peak_memory_mib, wait_until
from support.reading import DATA
from support.workerd import WorkerBuild, WorkerdClient, WorkerdServer

from packetfs_compute import kernels
from packetfs_compute.signature import HEADER

pytestmark = pytest.mark.integration

BLOCK = 1 << 20
OPS = [{"op": "crc32c"}, {"op": "counteq", "imm": 0}]


def job(url: str, timeout: int = 20_000, **more: Any) -> dict[str, Any]:
    """A job whose id nobody has had."""
    program = {"data_url": url, "ops": OPS, **more}
    return {"jobId": f"j-{secrets.token_hex(8)}", "program": program, "timeout": timeout}


@pytest.fixture(scope="module")
def client(workerd_server: WorkerdServer) -> Iterator[WorkerdClient]:
    made = WorkerdClient(workerd_server)
    yield made
    made.http.clear()


@pytest.fixture(scope="module")
def source() -> Iterator[RawServer]:
    with RawServer(honest(DATA)) as server:
        yield server


def test_a_job(client: WorkerdClient, source: RawServer) -> None:
    ops = [
        {"op": "crc32c"},
        {"op": "fnv64"},
        {"op": "counteq", "imm": 9},
        {"op": "xor", "imm": 3},
        {"op": "add", "imm": 200},
    ]
    document = job(source.url(), ops=ops, offset=7, length=900)
    answer = client.post(document)
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
        200, "application/json", "no-store",
    )  # fmt: skip
    found, part = answer.json(), DATA[7:907]
    assert (found["jobId"], found["region"], found["bytesProcessed"]) == (document["jobId"], "iad", 900)
    assert [entry["value"] for entry in found["results"]] == [
        kernels.crc32c(part), f"{kernels.fnv64(part):016x}", kernels.counteq(part, 9), kernels.xor(part, 3),
        kernels.add(part, 200),
    ]  # fmt: skip


def test_its_health_needs_no_signature(client: WorkerdClient) -> None:
    answer = client.http.request("GET", client.server.url + "/health")
    assert (answer.status, answer.json()["status"], answer.json()["region"]) == (200, "healthy", "iad")


def test_the_region_is_the_colo(worker_build: WorkerBuild, tmp_path: Path, source: RawServer) -> None:
    with WorkerdServer(tmp_path, worker_build, PACKETFS_REGION="") as server:
        client = WorkerdClient(server)
        regions = [client.post(job(source.url()), colo=colo).json()["region"] for colo in ("FRA", "IAD", None)]
        assert regions == ["fra", "iad", "local"]


def test_its_counts_are_by_region_and_signed(worker_build: WorkerBuild, tmp_path: Path, source: RawServer) -> None:
    source.routes["/missing"] = lambda x: x.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    with WorkerdServer(tmp_path, worker_build, PACKETFS_REGION="") as server:
        client = WorkerdClient(server)
        assert client.stats() == {}
        assert client.http.request("GET", server.url + "/stats").status == 401
        signed_otherwise = {HEADER: client.header(b"", "/health", method="GET")}
        assert client.http.request("GET", server.url + "/stats", headers=signed_otherwise).status == 401
        for _ in range(3):
            document = job(source.url(), length=100)
            for colo in ("FRA", "IAD"):  # the second finds the first one's answer
                assert client.post(document, colo=colo).json()["region"] == "fra"
        client.post(job(source.url("/missing")), colo="IAD")
        expected = {
            "fra": {"jobs": 3, "failures": 0, "bytes": 300, "cacheHits": 0, "repeats": 3},
            "iad": {"jobs": 0, "failures": 1, "bytes": 0, "cacheHits": 0, "repeats": 0},
        }
        wait_until(lambda: client.stats() == expected, f"{expected}, not {client.stats()}", 5)
        assert client.post({}, "/stats").status == 404


@pytest.mark.parametrize("kind", REFUSED)
def test_who_has_no_key_is_refused(client: WorkerdClient, source: RawServer, kind: str) -> None:
    body, heads = json.dumps(job(source.url())).encode(), len(source.heads)
    answer = client.raw(body, headers=REFUSED[kind](client, body))
    assert (answer.status, answer.json()["error"]["type"], answer.json()["jobId"]) == (401, "unauthorized", None)
    assert client.server.secret not in answer.data.decode()
    assert len(source.heads) == heads


def test_a_signature_is_good_once_even_after_a_restart(
    worker_build: WorkerBuild, tmp_path: Path, source: RawServer
) -> None:
    body = json.dumps(job(source.url())).encode()
    with WorkerdServer(tmp_path, worker_build) as server:
        client = WorkerdClient(server)
        fields = {HEADER: client.header(body)}
        assert [client.raw(body, headers=fields).status for _ in range(3)] == [200, 401, 401]
        server.kill()
        server.start()
        assert client.raw(body, headers=fields).json()["error"]["type"] == "unauthorized"
        assert client.raw(body).status == 200
        assert server.stop() == 0
        server.start()
        assert client.raw(body, headers=fields).status == 401


def test_two_keys_live_at_once(worker_build: WorkerBuild, tmp_path: Path, source: RawServer) -> None:
    keys = "old:0123456789abcdef,new:fedcba9876543210"
    body = json.dumps(job(source.url())).encode()
    with WorkerdServer(tmp_path, worker_build, PACKETFS_SIGNING_KEYS=keys) as server:
        client = WorkerdClient(server)
        for key_id, secret in (each.split(":") for each in keys.split(",")):
            fields = {HEADER: client.header(body, key_id=key_id, secret=secret)}
            assert client.raw(body, headers=fields).status == 200
        assert client.raw(body).status == 401


def test_without_a_key_it_serves_nobody(worker_build: WorkerBuild, tmp_path: Path, source: RawServer) -> None:
    heads = len(source.heads)
    with WorkerdServer(tmp_path, worker_build, PACKETFS_SIGNING_KEYS="") as server:
        client = WorkerdClient(server)
        for answer in (
            client.post(job(source.url())),
            client.post({"jobs": []}, "/compute/batch"),
            client.http.request("GET", server.url + "/stats"),
        ):
            assert answer.status == 500
            assert answer.json()["error"]["field"] == "PACKETFS_SIGNING_KEYS"
    assert len(source.heads) == heads


def test_more_signed_requests_than_can_be_remembered_are_busy(
    worker_build: WorkerBuild, tmp_path: Path, source: RawServer
) -> None:
    with WorkerdServer(tmp_path, worker_build, PACKETFS_MAX_NONCES="1") as server:
        client, statuses = WorkerdClient(server), []
        for _ in range(17):  # one more than there are shards
            answer = client.post(job(source.url()))
            statuses.append(answer.status)
        assert set(statuses) == {200, 429}
        busy = next(answer for answer in iter(lambda: client.post(job(source.url())), None) if answer.status == 429)
        assert (busy.headers["Retry-After"], busy.json()["error"]["type"]) == ("1", "busy")


def talk(server: WorkerdServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def head(client: WorkerdClient, path: str, framing: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{HEADER}: {client.header(b'', path)}\r\n{framing}\r\n\r\n".encode()


@pytest.mark.parametrize(("path", "limit"), [("/compute", 1 << 16), ("/compute/batch", 1 << 20)])
def test_a_body_that_says_that_it_is_too_large_is_not_read(client: WorkerdClient, path: str, limit: int) -> None:
    with talk(client.server) as sock:
        sock.sendall(head(client, path, f"Content-Length: {limit + 1}"))
        found = sock.recv(65536)
    assert found.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_say_is_read_no_further_than_its_bound(client: WorkerdClient, source: RawServer) -> None:
    chunk, before = b"1000\r\n" + b" " * 4096 + b"\r\n", peak_memory_mib(client.server.pid)
    with talk(client.server) as sock:
        sock.sendall(head(client, "/compute", "Transfer-Encoding: chunked"))
        with suppress(OSError):  # reset or broken pipe: the server has gone
            for _ in range(4096):
                sock.sendall(chunk)
        with suppress(OSError):
            found = sock.recv(65536)
            assert found.startswith(b"HTTP/1.1 413 ")
    assert peak_memory_mib(client.server.pid) - before < 32
    assert client.post(job(source.url())).status == 200


def test_bodies_of_just_the_bound_are_read(client: WorkerdClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    assert client.raw(body + b" " * ((1 << 16) - len(body))).status == 200
    batch = json.dumps({"jobs": [job(source.url())]}).encode()
    assert client.raw(batch + b" " * ((1 << 20) - len(batch)), "/compute/batch").status == 200


def test_a_batch_is_answered_in_order(client: WorkerdClient, source: RawServer) -> None:
    jobs: list[object] = [job(source.url(), offset=at * 10, length=10) for at in range(60)]
    jobs[5], jobs[7] = {"jobId": "j5"}, 7
    answer = client.post({"jobs": jobs}, "/compute/batch")
    results = answer.json()["results"]
    assert (answer.status, len(results)) == (200, 60)
    for at, found in enumerate(results):
        if at in (5, 7):
            assert found["error"]["type"] == "bad_program"
        else:
            assert found["results"][0]["value"] == kernels.crc32c(DATA[at * 10 : at * 10 + 10])


def test_what_was_read_once_is_a_hit(client: WorkerdClient, nginx: Nginx) -> None:
    data = os.urandom(3 * BLOCK + 100_000)
    (nginx.www / "worker-cached.bin").write_bytes(data)
    url = nginx.url("worker-cached.bin")
    client.server.cache.clear()  # other tests share it, and may have filled it
    entries, answers = client.server.cache.entries, []
    ranges = [(0, BLOCK), (0, None), (0, None), (BLOCK - 5, 10), (3 * BLOCK + 1, 7)]
    for kept, (offset, length) in zip((1, 4, 4, 4, 4), ranges, strict=True):
        answers.append(client.post(job(url, offset=offset, length=length)).json())
        wait_until(lambda kept=kept: len(entries) == kept, f"{kept} blocks in the cache")  # type: ignore[misc]
    assert [answer["cache"] for answer in answers] == ["MISS", "PARTIAL", "HIT", "HIT", "HIT"]
    for (offset, length), answer in zip(ranges, answers, strict=True):
        part = data[offset : None if length is None else offset + length]
        assert answer["results"][0]["value"] == kernels.crc32c(part)
    (nginx.www / "worker-cached.bin").write_bytes(data[::-1])
    os.utime(nginx.www / "worker-cached.bin", (1, 1))
    changed = client.post(job(url)).json()
    assert (changed["cache"], changed["results"][0]["value"]) == ("MISS", kernels.crc32c(data[::-1]))
    wait_until(lambda: len(entries) == 8, "the blocks of both versions in the cache")


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda entry: re.sub(rb"(?i)content-length: \d+", b"Content-Length: 5", entry)[
        : entry.index(b"\r\n\r\n") + 9
    ],
    "too long": lambda entry: re.sub(rb"(?i)content-length: \d+", b"Content-Length: 9000000", entry) + bytes(9_000_000),
    "an error": lambda entry: entry.replace(b"200 OK", b"404 Not Found", 1),
    "no response at all": lambda entry: b"garbage",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_block_of_the_cache_is_a_miss(client: WorkerdClient, nginx: Nginx, kind: str) -> None:
    name = f"worker-{secrets.token_hex(4)}.bin"
    data = os.urandom(100_000)
    (nginx.www / name).write_bytes(data)
    entries = client.server.cache.entries
    before = set(entries)
    assert client.post(job(nginx.url(name))).json()["cache"] == "MISS"
    wait_until(lambda: set(entries) - before, "a block in the cache")
    (key,) = set(entries) - before
    assert client.post(job(nginx.url(name))).json()["cache"] == "HIT"
    entries[key] = DAMAGED[kind](entries[key])
    answer = client.post(job(nginx.url(name))).json()
    assert (answer["success"], answer["cache"], answer["results"][0]["value"]) == (True, "MISS", kernels.crc32c(data))


def test_memory_is_flat(worker_build: WorkerBuild, tmp_path: Path, nginx: Nginx) -> None:
    """An isolate has 128 MB. workerd itself takes about as much, which is not the Worker's: the growth is."""
    sparse = nginx.www / "worker-sparse.bin"
    with sparse.open("wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    with WorkerdServer(tmp_path, worker_build) as server:
        client = WorkerdClient(server)
        assert client.post(job(nginx.url("worker-sparse.bin"), length=1 << 20)).status == 200
        before = peak_memory_mib(server.pid)
        for _ in range(2):
            answer = client.post(job(nginx.url("worker-sparse.bin"), timeout=60_000)).json()
            assert (answer["bytesProcessed"], answer["results"][1]["value"]) == (1 << 30, 1 << 30)
        growth = peak_memory_mib(server.pid) - before
        print(f"1 GiB, twice: workerd grew by {growth:.0f} MiB from {before:.0f} MiB")
        assert growth < 100
        # 150 MiB lie in the fixture's cache, and are read from there.
        for expected in ("PARTIAL", "HIT", "HIT", "HIT"):
            answer = client.post(job(nginx.url("worker-sparse.bin"), offset=850 << 20, length=150 << 20)).json()
            assert answer["cache"] in (expected, "HIT"), answer
        assert answer["cache"] == "HIT"
        growth = peak_memory_mib(server.pid) - before
        print(f"150 MiB of blocks, four times: workerd grew by {growth:.0f} MiB in all")
        assert growth < 100


def test_results_outlast_a_crash(worker_build: WorkerBuild, tmp_path: Path) -> None:
    with RawServer(honest(DATA)) as source, WorkerdServer(tmp_path, worker_build) as server:
        client, document = WorkerdClient(server), job(source.url())
        first = client.post(document).json()
        wait_until(lambda: client.stats().get("iad", {}).get("jobs") == 1, "the result to be stored")
        server.kill()
        server.start()
        assert client.post(document).json() == first
        assert len(source.heads) == 1
        assert client.stats()["iad"]["jobs"] == 1


def test_it_ends_when_it_is_asked_to(worker_build: WorkerBuild, tmp_path: Path, source: RawServer) -> None:
    with WorkerdServer(tmp_path, worker_build) as server:
        assert WorkerdClient(server).post(job(source.url())).status == 200
        assert server.stop() == 0


def test_workerd_itself_lets_nothing_private_be_read(
    worker_build: WorkerBuild, tmp_path: Path, source: RawServer
) -> None:
    """Where a public name leads inside, the guard's text cannot see it: the platform refuses the connection."""
    heads = len(source.heads)
    with WorkerdServer(tmp_path, worker_build, network=["public"]) as server:
        answer = WorkerdClient(server).post(job(source.url())).json()
        assert answer["error"]["type"] in ("forbidden_source", "source_failed")
    assert len(source.heads) == heads


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/o", "http://169.254.169.254/", "http://10.0.0.1/", "file:///etc/passwd"]
)
def test_nor_does_the_guard_where_nothing_is_opened(worker_build: WorkerBuild, tmp_path: Path, url: str) -> None:
    with WorkerdServer(tmp_path, worker_build, PACKETFS_ALLOW_PRIVATE_SOURCES="") as server:
        assert WorkerdClient(server).post(job(url)).json()["error"]["type"] == "forbidden_source"
