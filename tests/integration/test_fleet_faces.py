"""The fleet as its users see it: `packetfs fleet`, `explain`, `doctor`, real Prometheus, and what is started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.nginx import Nginx
from support.ports import free_port, free_ports_from
from support.processes import alive, descendants, wait_until
from support.system import CELERY, PACKETFS, RunningSystem, end_system, publishing_to, start_system

from packetfs_compute.celery import app
from packetfs_compute.errors import NoSubstrate
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.names import queue_of
from packetfs_compute.substrates import load_fleet
from tasks import counteq, crc32c, program, scan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CONFIG = """
allow_private_sources = ["127.0.0.0/8"]

[substrates.local]
slots = 4

[substrates.dear]
kind = "stub"
slots = 4
prices = { usd_per_request = 0.5 }
script = { latency_s = 0.001 }

[substrates.failing]
kind = "stub"
slots = 4
script = { error_rate = 1.0, error = "internal" }

[substrates.narrow]
kind = "stub"
slots = 2
prices = { usd_per_request = 0.5 }
script = { latency_s = 0.15 }

[[egress]]
host = "127.0.0.1"
usd_per_gb = 0.09
provider = "here"
"""
PLACES = CONFIG.count("[substrates.")


@pytest.fixture(scope="module")
def metrics_port() -> int:
    """The first of them: every place's worker has its own, and then that of scans."""
    return free_ports_from(PLACES + 1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[RunningSystem]:
    folder = tmp_path_factory.mktemp("faces")
    config = folder / "packetfs.toml"
    config.write_text(CONFIG)
    more = {"PACKETFS_CONFIG": str(config), "PACKETFS_METRICS_PORT": str(metrics_port)}
    system = start_system(folder, gateway=True, scans=True, **more)
    with publishing_to(system.settings):
        yield system
    end_system(system)


@pytest.fixture(scope="module")
def url(nginx: Nginx) -> str:
    (nginx.www / "faces.bin").write_bytes(bytes(1 << 20))
    return nginx.url("faces.bin")


def shown(system: RunningSystem, *arguments: str, code: int = 0) -> Any:
    done = system.packetfs(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[0])


def test_the_fleet_is_the_one_of_the_file(fleet: RunningSystem, url: str) -> None:
    assert set(fleet.ready["pids"]) == {
        "redis",
        "worker",
        "worker-dear",
        "worker-failing",
        "worker-narrow",
        "upkeep",
        "intake",
        "worker-scans",
        "gateway",
    }  # type: ignore[call-overload]
    before = {one["name"]: one["health"]["attempts"] for one in shown(fleet, "fleet")["substrates"]}
    assert list(before) == ["local", "dear", "failing", "narrow"]
    for _ in range(3):
        assert crc32c.delay(url, length=1000, policy={"substrates": ["dear"]}).get(timeout=20)["substrate"] == "dear"
    wait_until(lambda: shown(fleet, "fleet")["substrates"][0]["health"]["slots"] == 2, "the workers are heard")
    after = {one["name"]: one for one in shown(fleet, "fleet")["substrates"]}
    assert after["dear"]["health"]["attempts"] == before["dear"] + 3
    assert after["dear"]["health"]["cost_usd"] >= 1.5
    assert after["dear"]["declared_slots"] == 4
    table = fleet.packetfs("fleet").stdout
    assert all(word in table for word in ("local", "dear", "failing", "closed", "breaker", "spent"))


def test_a_result_tells_its_cost_with_the_egress_in_it(fleet: RunningSystem, url: str) -> None:
    result = crc32c.delay(url, length=1_000_000, policy={"substrates": ["dear"]}).get(timeout=20)
    assert result["cost_usd"] == pytest.approx(0.5 + 0.09 / 1000)
    assert crc32c.delay(url, length=1_000_000).get(timeout=20)["cost_usd"] == pytest.approx(0.09 / 1000)


def test_a_cap_is_kept_before_anything_is_run(fleet: RunningSystem, url: str) -> None:
    attempts = shown(fleet, "fleet")["substrates"][1]["health"]["attempts"]
    with pytest.raises(NoSubstrate) as caught:
        crc32c.delay(url, policy={"substrates": ["dear"], "max_cost_usd": 0.4}).get(timeout=20)
    assert "would cost $0.5, policy.max_cost_usd leaves $0.4" in caught.value.details["vetoes"]["dear"]
    assert caught.value.attempts == []
    with pytest.raises(NoSubstrate) as caught:  # of a range whose length is not given, the size is asked first
        crc32c.delay(url, policy={"max_cost_usd": 0.00005}).get(timeout=20)
    assert "policy.max_cost_usd" in caught.value.details["vetoes"]["local"]
    assert crc32c.delay(url, policy={"max_cost_usd": 0.0002}).get(timeout=20)["substrate"] == "local"
    assert shown(fleet, "fleet")["substrates"][1]["health"]["attempts"] == attempts


def test_a_place_that_fails_every_job_is_in_the_attempts_and_then_shut_out(fleet: RunningSystem, url: str) -> None:
    policy = {"substrates": ["failing", "dear"], "goal": "cheapest"}
    first = counteq.delay(url, 0, length=1000, policy=policy).get(timeout=20)
    assert [(one["substrate"], one["ok"]) for one in first["attempts"]] == [("failing", False), ("dear", True)]
    assert first["attempts"][0]["error"]["type"] == "internal"
    assert first["value"] == 1000
    for _ in range(5):
        counteq.delay(url, 0, length=1000, policy=policy).get(timeout=20)
    row = shown(fleet, "fleet")["substrates"][2]
    assert row["breaker"] in ("open", "half_open")
    assert row["health"]["opened"] >= 1


def test_no_more_run_at_once_than_the_place_has_slots_however_many_consume(fleet: RunningSystem, url: str) -> None:
    """`packetfs up` has a worker with two threads for it; here is another one with eight."""
    more = subprocess.Popen(
        [*CELERY, "worker", "-Q", queue_of("narrow"), "-P", "threads", "-c", "8", "-n", "more@%h", "--without-mingle"],
        env=fleet.environ | {"PACKETFS_METRICS_PORT": "0"}, cwd=fleet.files,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    places = [one.capabilities for one in load_fleet(fleet.settings)]
    shared = open_fleet(fleet.settings, places)

    def narrow() -> Any:
        return shared.snapshot(time.time()).members[3].health

    try:
        wait_until(lambda: narrow().slots == 10, "both are heard")
        policy = {"substrates": ["narrow"], "deadline_s": 60}
        pending = [crc32c.delay(url, length=100, policy=policy) for _ in range(24)]
        seen = set()
        while not all(one.ready() for one in pending):
            seen.add(narrow().in_flight)
            time.sleep(0.01)
        assert max(seen) == 2
        assert {one.get(timeout=10)["substrate"] for one in pending} == {"narrow"}
    finally:
        more.terminate()
        more.wait(30)


class TestExplain:
    def test_it_says_what_the_router_does(self, fleet: RunningSystem, url: str) -> None:
        for exclude, place in ((["local", "failing", "narrow"], "dear"), (["failing"], "local")):
            told = shown(
                fleet, "explain", "crc32c", url, "--length", "1MiB", "--policy", f"exclude={','.join(exclude)}"
            )
            assert told["substrate"] == place
            assert told["measured"] is True
            rows = {row["substrate"]: row for row in told["candidates"]}
            assert set(rows) == {"local", "dear", "failing", "narrow"}
            assert rows["dear"]["usd"] == pytest.approx(0.5 + 0.09 * (1 << 20) / 1e9)
            assert crc32c.delay(url, length=1 << 20, policy={"exclude": exclude}).get(timeout=20)["substrate"] == place

    def test_the_table_names_the_winner_and_each_veto(self, fleet: RunningSystem, url: str) -> None:
        done = fleet.packetfs("explain", "crc32c", url, "--policy", "substrates=local")
        assert done.returncode == 0, done.stderr
        assert "runs here" in done.stdout
        assert done.stdout.count("not among policy.substrates (local)") == 3
        assert "decided in" in done.stderr

    def test_a_policy_that_leaves_no_place_is_an_error_after_the_table(self, fleet: RunningSystem, url: str) -> None:
        done = fleet.packetfs("explain", "crc32c", url, "--policy", "trust=own", "--policy", "substrates=mars")
        assert done.returncode == 1
        assert "not among policy.substrates (mars)" in done.stdout
        assert "no_substrate: policy leaves no place to run" in done.stderr
        assert "Traceback" not in done.stderr

    def test_what_is_typed_wrong_is_told_as_for_a_run(self, fleet: RunningSystem, url: str) -> None:
        done = fleet.packetfs("explain", "counteq:300", url)
        assert done.returncode == 2
        assert "0 to 255" in done.stderr

    def test_without_a_redis_it_goes_by_what_is_declared(self, tmp_path: Path, url: str) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PACKETFS_")}
        environ |= {"PACKETFS_DATA_DIR": str(tmp_path / "none"), "PACKETFS_CONFIG": os.devnull}
        done = subprocess.run(
            [*PACKETFS, "explain", "crc32c", "s3://bucket/key", "--length", "1GiB"],
            env=environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "what substrates declare" in done.stdout
        assert "$0.0966" in done.stdout


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="it takes Linux and two cores")
def test_the_threads_of_a_place_share_a_core_and_those_of_scans_do_not(fleet: RunningSystem, url: str) -> None:
    def cores(name: str) -> set[frozenset[int]]:
        pid = fleet.ready["pids"][name]  # type: ignore[index]
        return {frozenset(os.sched_getaffinity(int(one.name))) for one in Path(f"/proc/{pid}/task").iterdir()}

    for name in ("local", "dear"):
        crc32c.delay(url, length=1000, policy={"substrates": [name]}).get(timeout=20)
    for name in ("worker", "worker-dear"):  # for some milliseconds in two seconds, one of them may be run anywhere
        wait_until(lambda name=name: len(cores(name)) == 1 and len(*cores(name)) == 1, f"{name} stays on a core")
    assert cores("worker-scans") == {frozenset(os.sched_getaffinity(0))}


def test_doctor_asks_every_endpoint(fleet: RunningSystem) -> None:
    found = {one["check"]: one for one in shown(fleet, "doctor")["findings"]}
    assert found["dear"]["state"] == "ok"
    assert "healthy" in found["dear"]["message"]
    assert "dear@" in found["workers"]["message"]


def answers(fleet: RunningSystem) -> bool:
    """Whether the gateway does; who asks before it is up waits."""
    with urllib.request.urlopen(f"{fleet.ready['gateway_url']}/openapi.json", timeout=30) as answer:
        return bool(answer.status == 200)


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_promtool_finds_no_fault_with_the_metrics(fleet: RunningSystem, metrics_port: int, url: str) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not installed: apt-get install prometheus")
        pytest.skip("promtool is not installed: apt-get install prometheus")
    crc32c.delay(url, length=1000).get(timeout=20)
    for port in (metrics_port, metrics_port + 1):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=metrics(port), capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout + done.stderr == ""


def test_scans_are_counted(fleet: RunningSystem, metrics_port: int, url: str) -> None:
    scan.delay(url, [{"op": "crc32c"}], cache=False).get(timeout=30)
    of_scans = metrics(metrics_port + PLACES)  # after those of the places
    assert 'packetfs_scans_total{outcome="done"} 1.0' in of_scans


@pytest.fixture
def prometheus(tmp_path: Path, metrics_port: int) -> Iterator[str]:
    binary = shutil.which("prometheus")
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("prometheus is not installed: apt-get install prometheus")
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    targets = ", ".join(f"'127.0.0.1:{metrics_port + at}'" for at in range(3))
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: packetfs, static_configs: [{{targets: [{targets}]}}]}}]\n"
    )
    port = free_port()
    process = subprocess.Popen(
        [binary, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def asked(prometheus: str, query: str) -> dict[str, float] | None:
    """Return what Prometheus answers, by the first label that is not its own."""
    address = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return None
    return {one["metric"].get("substrate", ""): float(one["value"][1]) for one in found}


def test_prometheus_scrapes_every_worker(fleet: RunningSystem, prometheus: str, url: str) -> None:
    for _ in range(4):
        program.delay(url, ops=[{"op": "crc32c"}, {"op": "fnv64"}], length=5000).get(timeout=20)
    crc32c.delay(url, length=1000, policy={"substrates": ["dear"]}).get(timeout=20)
    wait_until(lambda: sum((asked(prometheus, "up") or {}).values()) >= 1, "Prometheus has scraped", 60)
    done = 'sum by (substrate) (packetfs_jobs_total{op="program",outcome="done"})'
    wait_until(lambda: (asked(prometheus, done) or {}).get("local", 0) >= 4, "the jobs are counted", 60)
    cost = "sum by (substrate) (packetfs_cost_usd_total)"
    wait_until(
        lambda: (asked(prometheus, cost) or {}).get("dear", 0) >= 0.5, "so is what they cost, by every worker", 60
    )
    assert (asked(prometheus, "sum by (substrate) (packetfs_bytes_total)") or {})["local"] >= 20_000
    assert (asked(prometheus, "sum by (substrate) (packetfs_attempt_seconds_count)") or {})["dear"] >= 1
    assert set(asked(prometheus, "max by (substrate) (packetfs_breaker_state)") or {}) == {
        "local", "dear", "failing", "narrow",
    }  # fmt: skip
    assert asked(prometheus, "max(packetfs_queue_depth)") == {"": 0}
    assert asked(prometheus, "max(packetfs_open_jobs)") == {"": 0}
    assert (asked(prometheus, "max(packetfs_resubmitted_total)") or {})[""] >= 0


def consumers(fleet: RunningSystem, name: str) -> frozenset[str]:
    places = [one.capabilities for one in load_fleet(fleet.settings)]
    return open_fleet(fleet.settings, places).consumers(time.time())[name]


def is_ended(fleet: RunningSystem, name: str) -> None:
    pid = fleet.ready["pids"][name]  # type: ignore[index]
    wait_until(lambda: not alive(pid), "it is ended", 60)


@pytest.fixture(scope="module")
def pending(fleet: RunningSystem, url: str) -> Any:
    """A job for a worker that consumes no more; another one and the gateway hang. They are given their time all at once."""
    node = f"dear@{os.uname().nodename}"
    wait_until(lambda: node in consumers(fleet, "dear"), "it consumes")
    assert answers(fleet)
    for name in ("worker-failing", "gateway"):
        os.kill(fleet.ready["pids"][name], signal.SIGSTOP)  # type: ignore[index]
    app.control.cancel_consumer(queue_of("dear"), destination=[node])
    pending = crc32c.delay(url, length=10, policy={"substrates": ["dear"], "deadline_s": 120})
    assert alive(fleet.ready["pids"]["worker-dear"]), "it lives, and does nothing"  # type: ignore[index]
    return pending


class TestStartedAgain:
    def test_a_worker_that_stops_consuming(self, fleet: RunningSystem, pending: Any) -> None:
        is_ended(fleet, "worker-dear")
        assert pending.get(timeout=60)["substrate"] == "dear"

    @pytest.mark.usefixtures("pending")
    def test_a_worker_that_hangs(self, fleet: RunningSystem) -> None:
        is_ended(fleet, "worker-failing")
        node = f"failing@{os.uname().nodename}"
        wait_until(lambda: node in consumers(fleet, "failing"), "another one consumes", 60)

    @pytest.mark.usefixtures("pending")
    def test_a_gateway_that_hangs(self, fleet: RunningSystem) -> None:
        is_ended(fleet, "gateway")
        assert answers(fleet), "at the address that it had"

    def test_upkeep(self, fleet: RunningSystem) -> None:
        pid = fleet.ready["pids"]["upkeep"]  # type: ignore[index]
        os.kill(pid, signal.SIGKILL)
        mark = b"upkeep"

        def others() -> list[int]:
            found = []
            for one in descendants(fleet.process.pid):
                try:
                    if mark in Path(f"/proc/{one}/cmdline").read_bytes() and one != pid:
                        found.append(one)
                except FileNotFoundError:
                    continue
            return found

        wait_until(others, "another one runs")
