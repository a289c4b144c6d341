"""Several local workers of one system: processes that share a queue, each watched for itself."""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_ports_from
from support.processes import alive, descendants, wait_until
from support.system import CELERY, RunningSystem, end_system, publishing_to, start_system

from packetfs_compute import kernels
from tasks import crc32c

pytestmark = pytest.mark.integration

DATA = b"shared" * 1000
WORKERS = {"worker": "local", "worker.2": "local.2", "worker.3": "local.3"}


@pytest.fixture(scope="module")
def metrics_port() -> int:
    """The first of them: the first worker's, then that of scans, then the other two."""
    return free_ports_from(4)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[RunningSystem]:
    more = {"PACKETFS_LOCAL_WORKERS": "3", "PACKETFS_METRICS_PORT": str(metrics_port)}
    system = start_system(tmp_path_factory.mktemp("several"), scans=True, **more)
    (system.files / "shared.bin").write_bytes(DATA)
    with publishing_to(system.settings):
        yield system
    end_system(system)


def slots(up: RunningSystem) -> int | None:
    done = up.packetfs("fleet", "--json")
    found: int | None = json.loads(done.stdout.splitlines()[0])["substrates"][0]["health"]["slots"]
    return found


def pids(up: RunningSystem) -> dict[str, int]:
    """The workers that run now, by the name of their node."""
    found = {}
    for pid in descendants(up.process.pid):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"--hostname" in argv:
            found[argv[argv.index(b"--hostname") + 1].decode().partition("@")[0]] = pid
    return found


def counted(up: RunningSystem) -> list[int]:
    """How many checksums each local worker has computed."""
    done = up.run(*CELERY, "inspect", "stats", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return [one["total"].get("packetfs.crc32c", 0) for node, one in told.items() if node.startswith("local")]


def test_each_says_how_much_it_can_do(up: RunningSystem) -> None:
    assert {name: pid for name, pid in up.ready["pids"].items() if name in WORKERS} == {  # type: ignore[attr-defined]
        name: pids(up)[node] for name, node in WORKERS.items()
    }
    wait_until(lambda: slots(up) == 6, "three workers of two threads are heard", 30)


def test_they_share_the_jobs(up: RunningSystem) -> None:
    pending = [crc32c.delay(str(up.files / "shared.bin"), offset=at) for at in range(120)]
    assert [one.get(timeout=30)["value"] for one in pending] == [kernels.crc32c(DATA[at:]) for at in range(120)]
    did = counted(up)
    assert (len(did), sum(did)) == (3, 120)
    assert sorted(did)[1] > 0, "at least two had some"


def test_each_has_metrics_of_its_own(up: RunningSystem, metrics_port: int) -> None:
    for port in range(metrics_port, metrics_port + 4):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"packetfs_" in answer.read()


def test_one_that_is_killed_is_started_again_alone(up: RunningSystem) -> None:
    before = pids(up)
    os.kill(before["local.2"], signal.SIGKILL)
    wait_until(lambda: not alive(before["local.2"]), "it is dead")
    assert crc32c.delay(str(up.files / "shared.bin")).get(timeout=30)["value"] == kernels.crc32c(DATA)
    wait_until(lambda: "local.2" in pids(up), "it is started again", 30)
    after = pids(up)
    assert after.pop("local.2") != before.pop("local.2")
    assert after == before
