"""The compute server in a process of its own: whom it serves, what it bounds, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.endpoint import REFUSED, SigningClient
from support.fly import ROOT, SERVER, FlyServer
from support.misbehaving import Exchange, RawServer, honest
from support.nginx import Nginx
from support.processes import STALL_S, peak_memory_mib, wait_until
from support.reading import DATA
from support.system import PACKETFS, environment

from packetfs_compute import kernels
from packetfs_compute.places import to_json
from packetfs_compute.signature import HEADER

pytestmark = pytest.mark.integration

OPS = [{"op": "crc32c"}, {"op": "counteq", "imm": 0}]


def job(url: str, at: int = 0, timeout: int = 20_000, **more: Any) -> dict[str, Any]:
    return {"jobId": f"j{at}", "program": {"data_url": url, "ops": OPS, **more}, "timeout": timeout}


@pytest.fixture(scope="module")
def client(fly_server: FlyServer) -> Iterator[SigningClient]:
    made = SigningClient(fly_server)
    yield made
    made.http.clear()


@pytest.fixture(scope="module")
def source() -> Iterator[RawServer]:
    """A good server of ``DATA``; ``/slow`` answers when it is closed, or after twenty seconds."""
    with RawServer(honest(DATA)) as server:
        server.routes["/slow"] = lambda exchange: exchange.wait(20)
        yield server


def test_a_job(client: SigningClient, source: RawServer) -> None:
    answer = client.post(job(source.url(), 7))
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
        200, "application/json", "no-store",
    )  # fmt: skip
    found = answer.json()
    assert (found["jobId"], found["region"], found["cache"]) == ("j7", "iad", None)
    assert [entry["value"] for entry in found["results"]] == [kernels.crc32c(DATA), DATA.count(0)]


@pytest.mark.parametrize("kind", REFUSED)
def test_who_has_no_key_is_refused(client: SigningClient, source: RawServer, kind: str) -> None:
    body, heads = json.dumps(job(source.url())).encode(), len(source.heads)
    answer = client.raw(body, headers=REFUSED[kind](client, body))
    assert (answer.status, answer.json()["error"]["type"], answer.json()["jobId"]) == (401, "unauthorized", None)
    assert client.server.secret not in answer.data.decode()
    assert len(source.heads) == heads


def test_a_signature_is_good_once(client: SigningClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    fields = {HEADER: client.header(body)}
    assert [client.raw(body, headers=fields).status for _ in range(3)] == [200, 401, 401]


def test_two_signatures_are_none(client: SigningClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    with talk(client.server) as sock:
        sock.sendall(head(client, body, more=f"{HEADER}: {client.header(body)}\r\n") + body)
        assert status_of(sock) == 401


def test_its_health_needs_no_signature(client: SigningClient) -> None:
    answer = client.http.request("GET", client.server.url + "/health")
    assert (answer.status, answer.json()["status"], answer.json()["region"]) == (200, "healthy", "iad")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/computer", 404), ("GET", "/compute", 405), ("PUT", "/compute", 405),
     ("DELETE", "/health", 405), ("POST", "/compute/", 404), ("GET", "/../etc/passwd", 404),
     ("BREW", "/compute/batch", 405)],
)  # fmt: skip
def test_what_is_not_served(client: SigningClient, method: str, path: str, status: int) -> None:
    answer = client.http.request(method, client.server.url + path, redirect=False)
    assert answer.status == status
    assert answer.json()["success"] is False
    assert answer.json()["error"]["message"]
    assert ("Allow" in answer.headers) is (status == 405)


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
}


@pytest.mark.parametrize("path", ["/compute", "/compute/batch"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_json_is_a_bad_program(client: SigningClient, kind: str, path: str) -> None:
    answer = client.raw(HOSTILE[kind], path)
    assert (answer.status, answer.json()["error"]["type"]) == (400, "bad_program")


@pytest.mark.parametrize(
    ("url", "kind", "status"),
    [("file:///etc/passwd", "forbidden_source", 403), ("/etc/passwd", "forbidden_source", 403),
     ("s3://bucket/key", "forbidden_source", 403), ("S3://bucket/key", "forbidden_source", 403),
     ("http://169.254.169.254/", "forbidden_source", 403), ("http://[fdaa::3]/", "forbidden_source", 403),
     ("gopher://host/", "forbidden_source", 403), ("no url", "bad_program", 400)],
)  # fmt: skip
def test_what_no_program_from_elsewhere_may_read(client: SigningClient, url: str, kind: str, status: int) -> None:
    answer = client.post(job(url))
    assert (answer.status, answer.json()["error"]["type"]) == (status, kind)


def test_a_local_file_is_never_read_whatever_its_settings_say(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(DATA)
    with FlyServer(tmp_path, PACKETFS_FILE_ROOTS=str(tmp_path)) as server:
        for url in (str(tmp_path / "object"), (tmp_path / "object").as_uri()):
            assert SigningClient(server).post(job(url)).json()["error"]["type"] == "forbidden_source"


@pytest.mark.parametrize(
    ("path", "offset", "status", "kind"),
    [
        ("/missing", 0, 404, "source_not_found"),
        ("/object", 2000, 416, "range_not_satisfiable"),
        ("/down", 0, 502, "source_failed"),
    ],
)
def test_each_failure_has_its_status(
    client: SigningClient, source: RawServer, path: str, offset: int, status: int, kind: str
) -> None:
    source.routes["/missing"] = lambda x: x.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    source.routes["/down"] = lambda x: x.send(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")
    answer = client.post(job(source.url(path), offset=offset))
    assert (answer.status, answer.json()["error"]["type"], answer.json()["jobId"]) == (status, kind, "j0")
    late = client.post(job(source.url("/slow"), timeout=200))
    assert (late.status, late.json()["error"]["type"]) == (504, "timeout")


def talk(server: FlyServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def head(
    client: SigningClient, body: bytes, path: str = "/compute", length: int | None = None, more: str = ""
) -> bytes:
    framing = f"Content-Length: {len(body) if length is None else length}\r\n"
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{HEADER}: {client.header(body, path)}\r\n"
        f"{framing if length != -1 else ''}{more}\r\n"
    ).encode()


def answer_on(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def status_of(sock: socket.socket) -> int:
    return int(sock.recv(65536).split(b" ")[1])


@pytest.mark.parametrize(("path", "limit"), [("/compute", 1 << 16), ("/compute/batch", 1 << 20)])
def test_a_body_that_says_that_it_is_too_large_is_not_read(client: SigningClient, path: str, limit: int) -> None:
    with talk(client.server) as sock:
        sock.sendall(head(client, b"", path, limit + 1))
        found = answer_on(sock)  # to the connection's end, though not a byte of the body was sent
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b'"type":"too_large"' in found


def test_a_body_that_does_not_say_is_read_no_further_than_its_bound(client: SigningClient, source: RawServer) -> None:
    chunk, sent = b"1000\r\n" + b" " * 4096 + b"\r\n", 0
    with talk(client.server) as sock:
        sock.sendall(head(client, b"", length=-1, more="Transfer-Encoding: chunked\r\n"))
        with suppress(OSError):  # reset or broken pipe: the server has gone
            while sent < 64 << 20:
                sock.sendall(chunk)
                sent += 4096
    assert sent < 32 << 20  # the sockets' buffers take some
    assert client.post(job(source.url())).status == 200


def test_bodies_of_just_the_bound_are_read(client: SigningClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    assert client.raw(body + b" " * ((1 << 16) - len(body))).status == 200
    batch = json.dumps({"jobs": [job(source.url())]}).encode()
    assert client.raw(batch + b" " * ((1 << 20) - len(batch)), "/compute/batch").status == 200


def test_a_body_that_drips_is_given_up(client: SigningClient, source: RawServer) -> None:
    body = json.dumps(job(source.url())).encode()
    started = time.monotonic()
    with talk(client.server) as sock:
        sock.sendall(head(client, body) + body[:5])
        sock.settimeout(0.2)
        found = b""
        while b"}" not in found and time.monotonic() - started < 10 + STALL_S:
            try:
                found += sock.recv(65536)  # head and body may come apart
            except TimeoutError:
                sock.sendall(b" ")
    assert found.startswith(b"HTTP/1.1 504 ")
    assert b'"type":"timeout"' in found
    assert time.monotonic() - started > 9


def test_a_head_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    """With a bound of a fifth of a second for ten; how it is kept, tests/unit/test_http_server.py shows."""
    code = (
        "import sys, packetfs_compute.http_server as bounds\n"
        "bounds._HEAD_TIMEOUT_S = 0.2\n"
        f"sys.path.insert(0, {str(SERVER.parent)!r})\n"
        "import server\n"
        "sys.exit(server.main())\n"
    )
    with FlyServer(tmp_path, program=("-c", code)) as server, talk(server) as sock:
        sock.sendall(b"POST /compute HTTP/1.1\r\nHost: x")
        assert sock.recv(1) == b""
        assert server.stop(10) == 0


def test_a_batch_is_answered_in_order(client: SigningClient, source: RawServer) -> None:
    source.routes["/missing"] = lambda x: x.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    jobs: list[object] = [job(source.url(), at, offset=at * 10, length=10) for at in range(60)]
    jobs[3], jobs[5], jobs[7] = job(source.url("/missing"), 3), {"jobId": "j5"}, 7
    answer = client.post({"jobs": jobs}, "/compute/batch")
    results = answer.json()["results"]
    assert (answer.status, len(results)) == (200, 60)
    assert [found["error"]["type"] for found in results if not found["success"]] == [
        "source_not_found", "bad_program", "bad_program",
    ]  # fmt: skip
    for at, found in enumerate(results):
        assert found["jobId"] == (None if at == 7 else f"j{at}")
        if found["success"]:
            assert found["results"][0]["value"] == kernels.crc32c(DATA[at * 10 : at * 10 + 10])


def test_an_empty_batch(client: SigningClient) -> None:
    assert client.post({"jobs": []}, "/compute/batch").json() == {"results": []}


@pytest.mark.parametrize(
    ("batch", "field"),
    [({"jobs": [{}] * 65}, "request.jobs"), ({"jobs": {}}, "request.jobs"), ({}, "request.jobs"), ([], "request"),
     ({"jobs": [], "more": 1}, "request.more")],
)  # fmt: skip
def test_a_batch_that_is_none(client: SigningClient, batch: object, field: str) -> None:
    answer = client.post(batch, "/compute/batch")
    assert (answer.status, answer.json()["error"]["type"], answer.json()["error"]["field"]) == (
        400,
        "bad_program",
        field,
    )


@contextmanager
def holding(limit: int) -> Iterator[tuple[RawServer, list[int], threading.Event]]:
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


def test_past_its_bound_it_is_busy_at_once(fly_server: FlyServer, client: SigningClient) -> None:
    with holding(8) as (source, most, go), ThreadPoolExecutor(8) as threads:
        held = [threads.submit(client.post, job(source.url(), at)) for at in range(8)]
        wait_until(lambda: most[0] == 8, "eight attempts at the source")
        for at in range(20):
            busy = client.post(job(source.url(), 100 + at))
            assert (busy.status, busy.headers["Retry-After"]) == (429, "1")
            error = busy.json()["error"]
            assert (busy.json()["jobId"], error["type"], error["retry_after_s"]) == (f"j{100 + at}", "busy", 1)
        assert client.post({"jobs": [job(source.url())]}, "/compute/batch").status == 429
        assert fly_server.substrate().invoke(job(source.url()))["error"]["type"] == "busy"
        assert client.http.request("GET", fly_server.url + "/health").status == 200
        go.set()
        assert [answer.result().status for answer in held] == [200] * 8
        assert most[0] == 8
        assert client.post(job(source.url())).status == 200


def test_a_batch_takes_the_slots_that_are_free_and_no_more(client: SigningClient) -> None:
    with holding(8) as (source, most, go), ThreadPoolExecutor(4) as threads:
        single = [threads.submit(client.post, job(source.url(), at)) for at in range(3)]
        wait_until(lambda: most[0] == 3, "three attempts at the source")
        batch = threads.submit(client.post, {"jobs": [job(source.url(), at) for at in range(30)]}, "/compute/batch")
        wait_until(lambda: most[0] == 8, "eight attempts at the source")
        assert client.post(job(source.url())).status == 429
        go.set()
        assert [answer.result().status for answer in single] == [200] * 3
        assert all(found["success"] for found in batch.result().json()["results"])
        assert most[0] == 8


@pytest.mark.parametrize("path", ["/compute", "/compute/batch"])
def test_a_client_that_leaves_stops_its_attempts(client: SigningClient, source: RawServer, path: str) -> None:
    with holding(8) as (held, most, _), ExitStack() as clients:
        for at in range(8):
            document = job(held.url(), at) if path == "/compute" else {"jobs": [job(held.url(), at)] * 9}
            body = json.dumps(document).encode()
            sock = clients.enter_context(talk(client.server))
            sock.sendall(head(client, body, path) + body)
            if path == "/compute/batch":  # which has taken all slots
                break
            wait_until(lambda at=at: most[0] == at + 1, "the attempt at the source")  # type: ignore[misc]
        wait_until(lambda: most[0] == 8, "eight attempts at the source")
        assert client.post(job(source.url())).status == 429
        clients.close()
        # The source would let them go after twenty seconds.
        wait_until(lambda: client.post(job(source.url())).status == 200, "a free slot", 10)

        def all_are_free() -> bool:
            with ThreadPoolExecutor(8) as threads:
                return {answer.status for answer in threads.map(client.post, [job(source.url())] * 8)} == {200}

        wait_until(all_are_free, "eight free slots", 5)
        assert len(held.heads) == 8, "nor has the batch's ninth job begun"


def test_a_client_that_leaves_within_the_body(client: SigningClient, source: RawServer) -> None:
    for _ in range(20):
        with talk(client.server) as sock:
            sock.sendall(head(client, b"x" * 100) + b"x")
    assert client.post(job(source.url())).status == 200


def test_memory_is_flat(tmp_path: Path, nginx: Nginx) -> None:
    sparse = nginx.www / "fly-sparse.bin"
    with sparse.open("wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    with FlyServer(tmp_path, PACKETFS_CACHE_DIR=str(tmp_path / "cache"), PACKETFS_CACHE_BYTES=str(16 << 20)) as server:
        answer = SigningClient(server).post(job(nginx.url("fly-sparse.bin"), timeout=60_000)).json()
        assert (answer["bytesProcessed"], answer["results"][1]["value"]) == (1 << 30, 1 << 30)
        peak = peak_memory_mib(server.pid)
        print(f"peak resident memory of the server: {peak:.0f} MiB")
        assert peak < 150
        kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert 8 << 20 < kept <= 16 << 20


def test_what_was_read_once_is_a_hit(tmp_path: Path, nginx: Nginx) -> None:
    data = os.urandom(3_000_000)
    (nginx.www / "fly-cached.bin").write_bytes(data)
    url = nginx.url("fly-cached.bin")
    with FlyServer(tmp_path, PACKETFS_CACHE_DIR=str(tmp_path / "cache")) as server:
        client = SigningClient(server)
        answers = [client.post(job(url)).json() for _ in range(2)]
        answers.append(client.post(job(url, offset=1_000_000, length=7)).json())
        assert [answer["cache"] for answer in answers] == ["MISS", "HIT", "HIT"]
        assert answers[0]["results"] == answers[1]["results"]
        assert answers[2]["results"][0]["value"] == kernels.crc32c(data[1_000_000:1_000_007])
        assert server.substrate().invoke(job(url))["cache"] == "HIT"
        server.stop()
        server.start()
        assert client.post(job(url)).json()["cache"] == "HIT"
        (nginx.www / "fly-cached.bin").write_bytes(data[::-1])
        os.utime(nginx.www / "fly-cached.bin", (1, 1))
        changed = client.post(job(url)).json()
        assert (changed["cache"], changed["results"][0]["value"]) == ("MISS", kernels.crc32c(data[::-1]))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told_to(tmp_path: Path, how: signal.Signals) -> None:
    with FlyServer(tmp_path) as server:
        os.kill(server.pid, how)
        assert server.stop(10) == 0
        assert "Traceback" not in server.log.read_text()


def test_its_grace_can_be_set(tmp_path: Path) -> None:
    """An attempt that takes longer does not keep the server: it is cut off, and run again elsewhere."""
    slow = RawServer(lambda exchange: exchange.wait(60))
    with slow as source, FlyServer(tmp_path, PACKETFS_GRACE_S="1") as server, ThreadPoolExecutor(1) as pool:
        lost = pool.submit(SigningClient(server).post, job(source.url(), timeout=60_000))
        wait_until(lambda: source.heads, "the attempt runs")
        assert server.stop(15) == 0
        with suppress(urllib3.exceptions.HTTPError):
            assert lost.result(10).status >= 500


def test_what_runs_may_end_first(tmp_path: Path) -> None:
    with holding(1) as (source, most, go), FlyServer(tmp_path) as server, ThreadPoolExecutor(1) as threads:
        running = threads.submit(SigningClient(server).post, job(source.url()))
        wait_until(lambda: most[0] == 1, "the attempt at the source")
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: refuses(server), "the port to be closed")
        go.set()
        assert running.result().status == 200
        assert server.stop(10) == 0


def refuses(server: FlyServer) -> bool:
    try:
        talk(server).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: while it is being closed
        return True
    return False


def test_it_comes_back_after_a_crash(tmp_path: Path, source: RawServer) -> None:
    with FlyServer(tmp_path) as server:
        substrate, pid = server.substrate(), server.pid
        assert substrate.invoke(job(source.url()))["success"]
        server.kill()
        down = substrate.invoke(job(source.url()))["error"]
        assert (down["type"], down["retryable"]) == ("internal", True)
        server.start()
        assert server.pid != pid
        assert substrate.invoke(job(source.url()))["success"]
        assert substrate.health(5)["region"] == "iad"
        substrate.close()


def run_server(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PACKETFS_")}
    return subprocess.run(
        [sys.executable, *arguments], env={**clean, "PYTHONPATH": str(ROOT), "PACKETFS_CONFIG": os.devnull, **environ},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_without_a_key_it_does_not_start() -> None:
    done = run_server(str(SERVER), "--port", "0")
    assert done.returncode == 2
    assert "no signing key" in done.stderr
    assert "PACKETFS_ALLOW_UNSIGNED=1" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_a_key_that_is_none_it_does_not_start_and_does_not_show_it() -> None:
    done = run_server(str(SERVER), "--port", "0", PACKETFS_SIGNING_KEYS="hunter2")
    assert done.returncode == 2
    assert "PACKETFS_SIGNING_KEYS" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_where_the_port_is_taken_it_says_so(fly_server: FlyServer) -> None:
    done = run_server(str(SERVER), "--port", str(fly_server.port), PACKETFS_ALLOW_UNSIGNED="1")
    assert done.returncode not in (0, 2)
    assert "address already in use" in done.stderr


def test_it_may_be_told_to_serve_anyone(tmp_path: Path, source: RawServer) -> None:
    with FlyServer(tmp_path, PACKETFS_SIGNING_KEYS="", PACKETFS_ALLOW_UNSIGNED="1", PACKETFS_REGION="here") as server:
        answer = SigningClient(server).raw(json.dumps(job(source.url())).encode(), headers={})
        assert (answer.status, answer.json()["region"]) == (200, "here")


def test_with_a_key_it_serves_nobody_else_whatever_it_was_told(tmp_path: Path, source: RawServer) -> None:
    with FlyServer(tmp_path, PACKETFS_ALLOW_UNSIGNED="1") as server:
        assert SigningClient(server).raw(json.dumps(job(source.url())).encode(), headers={}).status == 401


def test_uvicorn_can_start_it_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PACKETFS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(SERVER.parent), "--port", str(port), "--factory", "server:app"],
        env={**clean, "PYTHONPATH": str(ROOT), "PACKETFS_ALLOW_UNSIGNED": "1", "PACKETFS_CONFIG": os.devnull},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with urllib3.PoolManager(retries=False, timeout=5) as http:

            def well() -> bool:
                try:
                    return bool(http.request("GET", f"http://127.0.0.1:{port}/health").status == 200)
                except urllib3.exceptions.HTTPError:
                    return False

            wait_until(well, "a healthy server")
    finally:
        process.terminate()
        process.wait(10)


def test_it_needs_neither_queue_nor_boto3() -> None:
    code = (
        "import sys; sys.path.insert(0, 'remote/fly'); import server; server.create_app\n"
        "print(sorted({'celery', 'kombu', 'redis', 'boto3', 'botocore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


class TestDoctor:
    """`packetfs doctor` beside a running server: the one place that is asked for its signature before any job is."""

    def told(self, tmp_path: Path, server: FlyServer, key: str) -> dict[str, Any]:
        environ = environment(
            tmp_path,
            PACKETFS_SUBSTRATES=to_json((server.spec("fly-a"),)),
            PACKETFS_KEYS=key,
            PACKETFS_CONFIG=os.devnull,
        )
        done = subprocess.run([*PACKETFS, "doctor", "--json"], env=environ, capture_output=True, text=True, timeout=60)
        return next(one for one in json.loads(done.stdout)["findings"] if one["check"] == "fly-a")

    def test_a_key_that_is_the_servers(self, tmp_path: Path, fly_server: FlyServer) -> None:
        found = self.told(tmp_path, fly_server, f"fly-a={fly_server.key_id}:{fly_server.secret}")
        assert (found["state"], found["message"].split(",")[0]) == ("ok", "healthy")

    @pytest.mark.parametrize("key", ["fly-a=k1:not-the-servers-secret", ""])
    def test_one_that_is_not(self, tmp_path: Path, fly_server: FlyServer, key: str) -> None:
        found = self.told(tmp_path, fly_server, key)
        assert found["state"] == "fail"
        assert "healthy, but" in found["message"]
        assert "PACKETFS_KEYS" in found["hint"]
