"""The gateway before a real system: jobs that run, clients that leave, hostile input, and its own death."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.gateway import Client, GatewayProcess, gateway_process
from support.nginx import Nginx
from support.ports import free_port
from support.processes import wait_until
from support.system import PACKETFS, RunningSystem, environment

from packetfs_compute import kernels
from packetfs_compute.gateway import open_keys

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DATA = bytes(range(256)) * 4096
VALUE = kernels.crc32c(DATA)


@pytest.fixture(scope="module")
def program(nginx: Nginx) -> dict[str, Any]:
    (nginx.www / "gateway.bin").write_bytes(DATA)
    return {"data_url": nginx.url("gateway.bin"), "ops": [{"op": "crc32c"}]}


@pytest.fixture(scope="module")
def gateway(system: RunningSystem) -> Iterator[GatewayProcess]:
    environ = {
        **system.environ,
        "PACKETFS_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
        "PACKETFS_SIGNING_KEYS": "k1:0123456789abcdef",  # so that there are tickets for browsers
    }
    with gateway_process(environ, system.files) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Client:
    return gateway.client


def value(status: dict[str, Any]) -> int:
    assert status["status"] == "done", status
    return int(status["result"]["results"][0]["value"])


def attempts(client: Client) -> int:
    return sum(one["health"]["attempts"] for one in client.get("/v1/fleet").json["substrates"])


class TestJobs:
    def test_a_job_runs_and_its_end_is_waited_for(self, client: Client, program: dict[str, Any]) -> None:
        where = client.post("/v1/jobs", {"program": program}).headers["Location"]
        status = client.get(f"{where}?wait_s=30").json
        assert value(status) == VALUE
        assert status["result"]["attempts"][0]["substrate"] == "local"
        assert client.get(where).json == status

    def test_a_job_that_fails_says_how(self, client: Client, program: dict[str, Any]) -> None:
        where = client.post("/v1/jobs", {"program": {**program, "offset": 1 << 40}}).headers["Location"]
        status = client.get(f"{where}?wait_s=30").json
        assert (status["status"], status["error"]["type"]) == ("failed", "range_not_satisfiable")

    def test_its_events_end_with_its_result(self, client: Client, program: dict[str, Any]) -> None:
        where = client.post("/v1/jobs", {"program": program}).headers["Location"]
        feed = client.pool.request("GET", f"{client.url}{where}/events", preload_content=False)
        told = [json.loads(line[6:]) for line in feed if line.startswith(b"data: ")]
        assert value(told[-2]) == VALUE
        assert told[-1] == {"reason": "ended"}

    def test_fifty_at_once_are_one_job_and_one_run(self, client: Client, program: dict[str, Any]) -> None:
        before = attempts(client)
        with ThreadPoolExecutor(50) as crowd:
            answers = list(
                crowd.map(lambda _: client.post("/v1/jobs", {"program": program}, Idempotency_Key="fifty"), range(50))
            )
        assert sorted(answer.status for answer in answers) == [200] * 49 + [202]
        assert {answer.json["job_id"] for answer in answers} == {"fifty"}
        assert value(client.get("/v1/jobs/fifty?wait_s=30").json) == VALUE
        wait_until(lambda: attempts(client) > before, "the run is counted")
        assert attempts(client) == before + 1

    def test_health_is_well(self, client: Client) -> None:
        wait_until(lambda: client.get("/health").status == 200, "the worker is heard")
        assert client.get("/health").json["unwell"] == []

    def test_promtool_finds_no_fault_with_the_metrics(self, client: Client) -> None:
        if shutil.which("promtool") is None:
            if os.environ.get("CI"):
                pytest.fail("promtool is not installed: apt-get install prometheus")
            pytest.skip("promtool is not installed: apt-get install prometheus")
        text = client.get("/metrics").text
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
        assert done.stdout + done.stderr == ""


@pytest.fixture
def running_job(client: Client) -> Iterator[str]:
    """The path of a job that runs for as long as the test does: its source takes the connection, and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/object"
        path = client.post("/v1/jobs", {"program": {"data_url": url, "op": "crc32c"}}).headers["Location"]
        wait_until(lambda: client.get(path).json["status"] == "running", "it runs")
        yield path
        assert client.delete(path).json["status"] == "cancelled"


class TestStreams:
    def test_a_client_that_leaves_frees_its_place(self, client: Client, running_job: str) -> None:
        """There are 64 for one caller. Two rounds of them fit only if those who left are noticed."""
        for _ in range(2):
            held = [self._watch(client, running_job) for _ in range(64)]
            assert {answer.status for _, answer in held} == {200}
            _, one_more = extra = self._watch(client, running_job)
            assert one_more.status == 429
            for connection, answer in [*held, extra]:
                answer.close()
                connection.close()
            wait_until(lambda: self._is_free(client, running_job), "the places are free")

    def test_so_does_one_that_waits(self, client: Client, running_job: str) -> None:
        held = []
        for _ in range(64):
            connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
            connection.request("GET", f"{running_job}?wait_s=30")
            held.append(connection)
        for _ in range(64):  # some of these may come before some of those: together they take every place
            connection, answer = self._watch(client, running_job)
            held.append(connection)
            if answer.status == 429:
                break
        else:
            pytest.fail("there is no end of places")
        for connection in held:
            connection.close()
        wait_until(lambda: self._is_free(client, running_job), "the places are free")

    def _watch(self, client: Client, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        connection.request("GET", f"{path}/events")
        return connection, connection.getresponse()

    def _is_free(self, client: Client, path: str) -> bool:
        connection, answer = self._watch(client, path)
        answer.close()
        connection.close()
        return answer.status == 200


class TestDeath:
    def test_killed_in_mid_flight_it_loses_no_job(self, system: RunningSystem, program: dict[str, Any]) -> None:
        environ = {
            **system.environ,
            "PACKETFS_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
            "PACKETFS_SIGNING_KEYS": "k1:0123456789abcdef",  # so that there are tickets for browsers
        }
        accepted: list[str] = []

        def submit(client: Client, at: int) -> None:
            try:
                answer = client.post("/v1/jobs", {"program": program, "job_id": f"killed-{at}"})
            except urllib3.exceptions.HTTPError:  # it is dead
                return
            if answer.status in (200, 202):
                accepted.append(f"killed-{at}")

        with gateway_process(environ, system.files) as dying, ThreadPoolExecutor(8) as crowd:
            for at in range(300):
                crowd.submit(submit, dying.client, at)
            wait_until(lambda: len(accepted) >= 40, "some are accepted")
            dying.process.kill()
            dying.process.wait(20)
        assert 40 <= len(accepted) < 300
        with gateway_process(environ, system.files) as next_one:
            for job_id in accepted:
                assert value(next_one.client.get(f"/v1/jobs/{job_id}?wait_s=30").json) == VALUE
            for at in range(300):  # the clients ask again: what they were not told of, and what they were
                assert next_one.client.post("/v1/jobs", {"program": program, "job_id": f"killed-{at}"}).status in (
                    200,
                    202,
                )
            for at in range(300):
                assert value(next_one.client.get(f"/v1/jobs/killed-{at}?wait_s=30").json) == VALUE

    def test_told_to_end_it_ends_streams_and_itself(self, system: RunningSystem, running_job: str) -> None:
        with gateway_process(system.environ, system.files) as ending:
            feed = ending.client.pool.request("GET", f"{ending.client.url}{running_job}/events", preload_content=False)
            assert b"running" in feed.readline() + feed.readline() + feed.readline()
            ending.process.send_signal(signal.SIGTERM)
            assert feed.read().endswith(b'event: end\ndata: {"reason":"shutdown"}\n\n')
            assert ending.process.wait(15) == 0


class TestShell:
    def test_on_a_network_it_does_not_start_without_a_key(self, system: RunningSystem) -> None:
        done = system.packetfs("gateway", "--host", "0.0.0.0", "--port", "0")
        assert done.returncode == 2
        assert "there is no API key" in done.stderr
        assert "packetfs keys add" in done.stderr

    def test_a_port_that_is_taken_is_told(self, system: RunningSystem, client: Client) -> None:
        done = system.packetfs("gateway", "--port", str(client.port))
        assert (done.returncode, "cannot be listened on" in done.stderr) == (2, True)

    def test_without_a_redis_it_says_what_to_do(self, tmp_path: Path) -> None:
        url = f"redis://127.0.0.1:{free_port()}"
        environ = environment(tmp_path, PACKETFS_REDIS_URL=url, PACKETFS_CONNECT_TIMEOUT_S="1")
        done = subprocess.run(
            [*PACKETFS, "gateway"], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, "hint:" in done.stderr, "Traceback" in done.stderr) == (1, True, False)

    @pytest.mark.parametrize("module", ["fastapi", "limits"])
    def test_without_its_extra_it_says_what_to_install_and_the_rest_works(self, tmp_path: Path, module: str) -> None:
        code = f"import sys; sys.modules[{module!r}] = None; from packetfs_compute.cli import main; main()"
        for arguments, exit_code in ((["gateway"], 2), (["keys", "--help"], 0), (["--help"], 0)):
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == exit_code, done.stderr
            assert ("hint: pip install 'packetfs-unified-compute[gateway]'" in done.stderr) == (exit_code == 2)

    def test_keys_are_made_listed_used_and_revoked(self, system: RunningSystem, program: dict[str, Any]) -> None:
        made = system.packetfs("keys", "add", "--scope", "submit", "--name", "ci")
        secret = made.stdout.strip()
        try:
            assert secret.startswith("pfs_")
            (known,) = json.loads(system.packetfs("keys", "list", "--json").stdout)["keys"]
            assert (known["name"], known["scopes"]) == ("ci", ["submit"])
            assert secret not in system.packetfs("keys", "list").stdout
            with gateway_process(system.environ, system.files, "--host", "0.0.0.0") as served:
                there = Client(served.client.url.replace("0.0.0.0", "127.0.0.1"), secret)
                assert there.post("/v1/jobs", {"program": program}).status == 202
                assert there.get("/v1/fleet").status == 403
                assert there.with_key(None).get("/v1/fleet").status == 401
                assert system.packetfs("keys", "revoke", known["id"]).returncode == 0
                assert there.post("/v1/jobs", {"program": program}).status == 401
        finally:
            for one in json.loads(system.packetfs("keys", "list", "--json").stdout)["keys"]:
                system.packetfs("keys", "revoke", one["id"])

    @pytest.mark.parametrize(
        "arguments",
        [("add",), ("add", "--scope", "root"), ("add", "--scope", "read", "--name", "x" * 65), ("revoke", "nobody")],
    )
    def test_what_is_typed_wrong_is_told(self, system: RunningSystem, arguments: tuple[str, ...]) -> None:
        done = system.packetfs("keys", *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)


_JOB = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_GARBAGE = (
    b"[" * 60_000,
    b"9" * 60_000,
    b"\xff" * 60_000,
    b'{"program":NaN}',
    b'{"a":' * 12_000,
    b"null",
    b"1e999999999",
    b'"\\ud800"',
)
HOSTILE: list[bytes] = [
    b"\x00" * 1000,
    b"\x16\x03\x01\x02\x00\x01",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\r\n\r\n",
    b"G" * 70_000,
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
    b"GET /" + b"%2e%2e/" * 500 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/jobs/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/jobs/" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/fleet HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /v1/browsers HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\n\r\n",
    _JOB + b"Content-Length: -1\r\n\r\n",
    _JOB + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _JOB + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    _JOB + b"Idempotency-Key: \xe9\r\nContent-Length: 2\r\n\r\n{}",
    *[
        _JOB.replace(b"jobs", path) + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        for path in (b"jobs", b"explain", b"keys")
        for body in _GARBAGE
    ],
]


def provoke(client: Client, message: bytes) -> str:
    """Send it, return the first line that comes back, if one does soon, and leave."""
    told = b""
    with client.connection() as plain, contextlib.suppress(ConnectionError, TimeoutError):
        plain.sendall(message)
        plain.settimeout(0.25)
        while b"\r\n" not in told and (more := plain.recv(1 << 16)):
            told += more
    return told.partition(b"\r\n")[0].decode("latin-1")


def resident_kib(pid: int) -> int:
    match = re.search(r"VmRSS:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1])


def test_a_thousand_hostile_requests_find_no_fault_and_leave_nothing_behind(gateway: GatewayProcess) -> None:
    pid, client = gateway.process.pid, gateway.client
    with ThreadPoolExecutor(4) as crowd:
        list(crowd.map(lambda message: provoke(client, message), HOSTILE * 4))
        before_kib = resident_kib(pid)
        told = list(crowd.map(lambda message: provoke(client, message), (HOSTILE * 40)[:1000]))
    assert {line.split()[1][0] for line in told if line} == {"2", "4"}
    assert len([line for line in told if line]) > 800
    grown_kib = resident_kib(pid) - before_kib
    assert grown_kib < 2 << 10
    assert client.get("/health").status == 200


def test_schemathesis_finds_nothing(client: Client, system: RunningSystem) -> None:
    """As an admin, who may do everything; all but streams, which wait."""
    keys = open_keys(system.settings)
    secret, _ = keys.add(["admin"])
    try:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("schemathesis")), "run", f"{client.url}/openapi.json", "--max-examples=12",
             "--seed=1", "-H", f"Authorization: Bearer {secret}", "--exclude-path-regex=events",
             "--phases=examples,coverage,fuzzing", "--request-timeout=40", "--no-color",
             "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"],
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    finally:
        for key in keys.all():
            keys.revoke(key.id)
    assert done.returncode == 0, done.stdout[-5000:]
