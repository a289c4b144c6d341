"""``packetfs up`` with its faces: the gateway at one address for as long as it runs, and Flower behind a password."""

import base64
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from support.gateway import Client
from support.nginx import Nginx
from support.ports import free_port
from support.processes import alive, descendants, wait_until
from support.system import PACKETFS, RunningSystem, end_system, start_system

from packetfs_compute import kernels

pytestmark = pytest.mark.integration

DATA = b"a face" * 1000


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    running = start_system(tmp_path_factory.mktemp("up"), "--flower", "--flower-port", str(free_port()), gateway=True)
    yield running
    end_system(running)


@pytest.fixture
def client(up: RunningSystem) -> Client:
    return Client(str(up.ready["gateway_url"]))


def pid_of(up: RunningSystem, name: str) -> int:
    return int(up.ready["pids"][name])  # type: ignore[index]


def words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_the_gateway_runs_jobs(client: Client, nginx: Nginx) -> None:
    (nginx.www / "up.bin").write_bytes(DATA)
    where = client.post("/v1/jobs", {"program": {"data_url": nginx.url("up.bin"), "op": "crc32c"}}).headers["Location"]
    status = client.get(f"{where}?wait_s=30").json
    assert status["result"]["results"][0]["value"] == kernels.crc32c(DATA)


def test_who_asks_while_it_is_started_again_waits_and_is_served(up: RunningSystem, client: Client) -> None:
    pid = pid_of(up, "gateway")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "it is dead")
    assert client.get("/openapi.json").status == 200


class TestFlower:
    def ask(self, up: RunningSystem, path: str, credentials: str | None = None) -> int:
        headers = {}
        if credentials is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
        try:
            with urllib3.PoolManager(retries=False, timeout=10) as http:
                return http.request("GET", f"{up.ready['flower_url']}{path}", headers=headers).status
        except urllib3.exceptions.HTTPError:  # not up yet
            return 0

    def test_wants_the_password_that_is_told_once(self, up: RunningSystem) -> None:
        wait_until(lambda: self.ask(up, "api/workers") == 401, "Flower is up", 30)
        assert self.ask(up, "api/workers", "flower:another") == 401
        assert self.ask(up, "api/workers", str(up.ready["flower_basic_auth"])) == 200

    def test_listens_on_loopback_alone(self, up: RunningSystem) -> None:
        port = int(str(up.ready["flower_url"]).rstrip("/").rpartition(":")[2])
        wait_until(lambda: self.ask(up, "healthcheck") == 200, "Flower is up", 30)
        listening = [
            line.split()[1]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
        ]
        assert listening == [f"0100007F:{port:04X}"]

    def test_shows_its_password_in_no_process_list_and_no_log(self, up: RunningSystem) -> None:
        password = str(up.ready["flower_basic_auth"]).partition(":")[2].encode()
        everything = descendants(up.process.pid)
        assert any(b"flower" in words(pid) for pid in everything)
        assert not any(password in words(pid) for pid in everything)
        assert not any(password in log.read_bytes() for log in up.data_dir.glob("*.log"))

    def test_is_told_of_tasks_from_the_first_on(self, up: RunningSystem) -> None:
        workers = [words(pid) for pid in descendants(up.process.pid) if b"\0worker\0--queues\0" in words(pid)]
        assert workers
        assert all(b"\0--task-events" in argv for argv in workers)

    def test_is_what_the_dashboard_is_told_of(self, up: RunningSystem) -> None:
        (gateway,) = [pid for pid in descendants(up.process.pid) if b"\0gateway\0--fd\0" in words(pid)]
        told = Path(f"/proc/{gateway}/environ").read_bytes().split(b"\0")
        assert f"PACKETFS_FLOWER_URL={up.ready['flower_url']}".encode() in told

    def test_a_port_that_is_taken_is_told_before_anything_is_started(self, up: RunningSystem, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            told = up.packetfs("up", "--flower", "--flower-port", port, PACKETFS_DATA_DIR=str(tmp_path / "data"))
        assert (told.returncode, "--flower-port" in told.stderr) == (2, True)
        assert not (tmp_path / "data").exists()


class TestHandedDown:
    """``packetfs gateway --fd``, as others than ``packetfs up`` may use it."""

    def test_a_socket_that_a_network_reaches_needs_a_key_whatever_is_set(self, up: RunningSystem) -> None:
        with socket.create_server(("0.0.0.0", 0)) as wide:
            fd = wide.fileno()
            told = up.run(*PACKETFS, "gateway", "--fd", str(fd), pass_fds=(fd,), PACKETFS_GATEWAY_HOST="127.0.0.1")
        assert (told.returncode, "there is no API key" in told.stderr) == (2, True)

    def test_it_says_where_it_listens_so_nothing_else_does(self, up: RunningSystem) -> None:
        told = up.packetfs("gateway", "--fd", "3", "--port", "0")
        assert (told.returncode, "--fd" in told.stderr) == (2, True)


def test_what_takes_jobs_in_ends_before_what_runs_them(tmp_path: Path) -> None:
    system = start_system(tmp_path, gateway=True)
    faces = [pid_of(system, name) for name in ("gateway", "intake")]
    rest = [pid_of(system, name) for name in ("worker", "redis")]
    system.process.send_signal(signal.SIGINT)
    seen = []
    while system.process.poll() is None:
        seen.append(([alive(pid) for pid in faces], [alive(pid) for pid in rest]))
    assert ([False, False], [True, True]) in seen
    assert not [one for one in seen if any(one[0]) and not all(one[1])]
    end_system(system)
