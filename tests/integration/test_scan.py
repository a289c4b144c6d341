"""Scans on the real system, reading from nginx: whole objects, exact, whatever dies or changes in the middle."""

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from support.gateway import Client, gateway_process
from support.nginx import Nginx
from support.processes import alive, descendants, wait_until
from support.system import PACKETFS, RunningSystem, end_system, publishing_to, start_system

from packetfs_compute import kernels
from packetfs_compute.celery import app
from packetfs_compute.desk import Desk
from packetfs_compute.errors import NoSubstrate, RangeNotSatisfiable, SourceChanged, SourceNotFound
from packetfs_compute.names import LEDGER_OPEN, SCAN_STATE
from tasks import scan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MIB = 1 << 20
DATA = random.Random(6).randbytes(50 * MIB + 12_345)
ANYWHERE: list[dict[str, Any]] = [
    {"op": "crc32c"},
    {"op": "counteq", "imm": 10},
    {"op": "xor", "imm": 255},
    {"op": "add", "imm": 1},
]
FIVE = [*ANYWHERE, {"op": "fnv64"}]
SPARSE = 1 << 30
SLOW = 24 * MIB
"""Bytes that take some seconds where nginx gives each request of :data:`WINDOW` bytes the second half a second later."""
WINDOW = 2 * MIB
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    running = start_system(tmp_path_factory.mktemp("scans"), scans=True)
    with publishing_to(running.settings):
        yield running
    end_system(running)


@pytest.fixture(scope="module")
def desk(up: RunningSystem) -> Iterator[Desk]:
    with closing(Desk(up.settings)) as made:
        yield made


@pytest.fixture(scope="module")
def client(up: RunningSystem) -> Iterator[Any]:
    with redis.Redis.from_url(up.settings.state_url) as made:
        yield made


@pytest.fixture(scope="module")
def url(nginx: Nginx) -> str:
    (nginx.www / "scan.bin").write_bytes(DATA)
    return nginx.url("scan.bin")


def sparse(nginx: Nginx, name: str, size: int = SPARSE) -> str:
    with (nginx.www / name).open("wb") as file:
        file.truncate(size)
    return nginx.url(name)


def slow(nginx: Nginx, name: str) -> str:
    sparse(nginx, name, SLOW)
    return nginx.url(f"slow/{name}")


def values(data: bytes, ops: list[dict[str, Any]]) -> list[Any]:
    start = [kernels.FNV64_OFFSET if op["op"] == "fnv64" else 0 for op in ops]
    found = kernels.fused(data, ops, start)
    return [f"{value:016x}" if op["op"] == "fnv64" else value for op, value in zip(ops, found, strict=True)]


def zeros_crc32c(size: int) -> int:
    """The CRC-32C of ``size`` zero bytes, a power of two, or three times one."""
    length = 1 if size % 3 else 3
    value = kernels.crc32c(bytes(length))
    while length < size:
        value, length = kernels.crc32c_combine(value, value, length), 2 * length
    assert length == size
    return value


def given(result: dict[str, Any]) -> list[Any]:
    return [one["value"] for one in result["results"]]


def progress(pending: AsyncResult[Any]) -> dict[str, Any]:
    """Wait until a scan is in its middle; return how far it is."""
    told: dict[str, Any] = {}

    def begun() -> bool:
        assert not pending.ready(), pending.info
        if pending.state == "PROGRESS":
            told.update(pending.info)
        return bool(told.get("windows_done"))

    wait_until(begun, "it is in its middle", PATIENCE_S)
    assert told["bytes_done"] < told["bytes_total"]
    return told


def wait_until_over(client: Any, scan_id: str) -> None:
    mine = scan_id.encode()
    wait_until(
        lambda: not [one for one in client.zrange(LEDGER_OPEN, 0, -1) if one.startswith(mine)], "nothing of it is open"
    )


def pid_of(up: RunningSystem, name: str) -> int:
    """The process of this name that runs now: ``packetfs up`` has told those that it began with."""
    word = f"\0{'local' if name == 'worker' else 'scans'}@".encode()
    found = [
        pid for pid in descendants(up.process.pid)
        if alive(pid) and word in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    return min(found)


@pytest.fixture(scope="module", autouse=True)
def orphans(up: RunningSystem, nginx: Nginx, client: Any) -> Iterator[dict[str, AsyncResult[Any]]]:
    """Two scans whose coordinator was killed in their middle, one of them with the worker that ran its windows.

    It takes fifteen seconds until their leases have ended and somebody goes on with them; the other tests use the time.
    """
    url = slow(nginx, "orphans")
    windows = scan.delay(url, [{"op": "crc32c"}, {"op": "counteq", "imm": 0}], window=WINDOW, cache=False)
    chain = scan.delay(url, [{"op": "fnv64"}, {"op": "counteq", "imm": 0}], window=WINDOW)
    told = progress(windows)
    progress(chain)
    killed = [pid_of(up, name) for name in ("worker-scans", "worker")]
    family = [*killed, *(child for pid in killed for child in descendants(pid))]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    # A pool's processes hold the dead worker's connection open: what Redis gives it comes again only after ten seconds.
    wait_until(lambda: not any(map(alive, family)), "they are dead")
    kept = client.hlen(SCAN_STATE + str(windows.id))
    assert kept >= told["windows_done"]
    assert client.hexists(SCAN_STATE + str(chain.id), "chain")
    yield {"windows": windows, "chain": chain}
    for pending in (windows, chain):  # or they ask the store to, when there is none any more
        app.backend.remove_pending_result(pending)  # type: ignore[attr-defined]


class TestValues:
    def test_an_object_of_a_gib(self, nginx: Nginx) -> None:
        result = scan.delay(sparse(nginx, "sparse"), [{"op": "crc32c"}, {"op": "counteq", "imm": 0}]).get(timeout=100)
        assert given(result) == [zeros_crc32c(SPARSE), SPARSE]
        assert (result["bytes_processed"], result["object_size"]) == (SPARSE, SPARSE)

    def test_windows_combine_to_what_the_kernels_give(self, url: str) -> None:
        result = scan.delay(url, ANYWHERE, window=MIB).get(timeout=PATIENCE_S)
        assert given(result) == values(DATA, ANYWHERE)
        assert (result["windows"], result["window"], result["pinned"]) == (51, MIB, True)
        assert result["substrates"] == {"local": len(DATA)}
        assert (result["bytes_processed"], result["object_size"]) == (len(DATA), len(DATA))

    def test_what_must_be_seen_in_order_is(self, url: str) -> None:
        result = scan.delay(url, FIVE).get(timeout=PATIENCE_S)
        assert given(result) == values(DATA, FIVE)

    @pytest.mark.parametrize("ops", [ANYWHERE, FIVE])
    def test_a_range_of_it(self, url: str, ops: list[dict[str, Any]]) -> None:
        result = scan.delay(url, ops, window=700_001, offset=1_000_003, length=9_999_999).get(timeout=PATIENCE_S)
        assert given(result) == values(DATA[1_000_003:11_000_002], ops)

    def test_nothing_of_it(self, url: str) -> None:
        result = scan.delay(url, FIVE, offset=len(DATA)).get(timeout=PATIENCE_S)
        assert (given(result), result["windows"]) == (values(b"", FIVE), 0)

    def test_called_it_needs_no_system(self, url: str, monkeypatch: pytest.MonkeyPatch, up: RunningSystem) -> None:
        monkeypatch.setattr("tasks.scans.current_settings", lambda: up.settings)
        assert given(scan(url, FIVE)) == values(DATA, FIVE)

    def test_a_known_scan_costs_nothing(self, url: str) -> None:
        first = scan.delay(url, ANYWHERE, window=5 * MIB).get(timeout=PATIENCE_S)
        again = scan.delay(url, ANYWHERE, window=5 * MIB).get(timeout=PATIENCE_S)
        assert given(again) == given(first)
        assert (again["cached"], again["cached_bytes"]) == (True, len(DATA))
        anew = scan.delay(url, ANYWHERE, window=5 * MIB, cache=False).get(timeout=PATIENCE_S)
        assert (anew["cached"], anew["cached_bytes"]) == (False, 0)

    def test_nothing_is_left_of_its_windows(self, url: str, client: Any) -> None:
        pending = scan.delay(url, ANYWHERE, window=5 * MIB)
        pending.get(timeout=PATIENCE_S)
        keys = list(client.scan_iter(f"*{pending.id}*"))
        assert sorted(keys) == [b"celery-task-meta-" + pending.id.encode(), SCAN_STATE.encode() + pending.id.encode()]
        assert client.hlen(SCAN_STATE + pending.id) < 5


class TestKnown:
    @pytest.mark.parametrize("ops", [ANYWHERE, FIVE], ids=["windows", "chain"])
    def test_a_known_scan_reads_nothing_whatever_its_windows(
        self, up: RunningSystem, nginx: Nginx, ops: list[dict[str, Any]]
    ) -> None:
        url = grown(nginx, f"known-{len(ops)}", 5 * MIB)
        first = scan.delay(url, ops, window=MIB).get(timeout=PATIENCE_S)
        again = scan.delay(url, ops).get(timeout=PATIENCE_S)
        assert given(again) == given(first) == values(DATA[: 5 * MIB], ops)
        assert (first["cached"], again["cached"], again["cached_bytes"]) == (False, True, 5 * MIB)
        assert (again["attempts"], again["cost_usd"], again["appended_to"]) == ([], 0.0, None)
        anew = scan.delay(url, ops, cache=False).get(timeout=PATIENCE_S)
        assert (anew["cached"], anew["cached_bytes"]) == (False, 0)
        elsewhere = scan.delay(url, ops, policy={"substrates": ["nowhere"]})
        with pytest.raises(NoSubstrate):
            elsewhere.get(timeout=PATIENCE_S)

    def test_another_start_is_another_value(self, nginx: Nginx) -> None:
        url = grown(nginx, "seeded", MIB)
        scan.delay(url, FIVE[-1:]).get(timeout=PATIENCE_S)
        seeded = scan.delay(url, [{"op": "fnv64", "seed": f"{1:016x}"}]).get(timeout=PATIENCE_S)
        assert given(seeded) == [f"{kernels.fnv64(DATA[:MIB], 1):016x}"]
        assert seeded["cached"] is False


GROWS = {"append_only": True}
OLD, NEW = 9 * MIB + 5, 11 * MIB + 77


def grown(nginx: Nginx, name: str, size: int) -> str:
    (nginx.www / name).write_bytes(DATA[:size])
    return nginx.url(name)


@pytest.mark.parametrize("ops", [ANYWHERE, FIVE], ids=["windows", "chain"])
class TestAppended:
    """Objects that have grown, or say so."""

    def first(self, nginx: Nginx, ops: list[dict[str, Any]], name: str, offset: int = 0) -> dict[str, Any]:
        url = grown(nginx, f"{name}-{len(ops)}", OLD)
        return dict(scan.delay(url, ops, window=MIB, offset=offset).get(timeout=PATIENCE_S))

    def then(
        self, first: dict[str, Any], ops: list[dict[str, Any]], policy: Any = GROWS, **more: Any
    ) -> dict[str, Any]:
        pending = scan.delay(first["data_url"], ops, policy=policy, window=more.pop("window", MIB), **more)
        return dict(pending.get(timeout=PATIENCE_S))

    def test_only_the_tail_is_read_where_the_caller_says_so(self, nginx: Nginx, ops: list[dict[str, Any]]) -> None:
        first = self.first(nginx, ops, "grown", 3)
        grown(nginx, f"grown-{len(ops)}", NEW)
        then = self.then(first, ops, offset=3, window=700_001)
        assert given(then) == values(DATA[3:NEW], ops)
        assert (then["appended_to"], then["cached_bytes"], then["cached"]) == (first["etag"], OLD - 3, False)
        assert (then["bytes_processed"], then["object_size"], then["offset"]) == (NEW - 3, NEW, 3)
        assert then["windows"] == -(-(NEW - OLD) // 700_001)
        assert then["etag"] != first["etag"]
        grown(nginx, f"grown-{len(ops)}", len(DATA))
        last = self.then(then, ops, offset=3)
        assert given(last) == values(DATA[3:], ops)
        assert (last["appended_to"], last["cached_bytes"]) == (then["etag"], NEW - 3)
        again = self.then(last, ops, None, offset=3)
        assert (given(again), again["cached"], again["appended_to"]) == (given(last), True, None)

    def test_nothing_of_another_version_is_used_without_that(self, nginx: Nginx, ops: list[dict[str, Any]]) -> None:
        first = self.first(nginx, ops, "unsaid")
        grown(nginx, f"unsaid-{len(ops)}", NEW)
        then = self.then(first, ops, None)
        assert given(then) == values(DATA[:NEW], ops)
        assert (then["appended_to"], then["anew"], then["cached_bytes"]) == (None, None, 0)

    @pytest.mark.parametrize("where", [OLD - 1, None], ids=["in the last window", "everywhere"])
    def test_what_has_changed_is_noticed_and_all_of_it_is_read(
        self, nginx: Nginx, ops: list[dict[str, Any]], where: int | None
    ) -> None:
        first = self.first(nginx, ops, name := f"changed-{where}")
        data = bytearray(DATA[:NEW]) if where is not None else bytearray(NEW)
        data[where or 0] ^= 1
        (nginx.www / f"{name}-{len(ops)}").write_bytes(data)
        then = self.then(first, ops)
        assert given(then) == values(bytes(data), ops)
        assert then["appended_to"] is None
        assert then["cached_bytes"] <= 2 * MIB  # of this version: what the proof has read is not read again
        assert "are not what they were" in then["anew"]
        data += b"more"
        (nginx.www / f"{name}-{len(ops)}").write_bytes(data)
        after = self.then(then, ops)  # from the newest version
        assert (given(after), after["appended_to"]) == (values(bytes(data), ops), then["etag"])

    def test_what_has_become_shorter_is_read_anew(self, nginx: Nginx, ops: list[dict[str, Any]]) -> None:
        first = self.first(nginx, ops, "shorter")
        grown(nginx, f"shorter-{len(ops)}", OLD - 1)
        then = self.then(first, ops)
        assert given(then) == values(DATA[: OLD - 1], ops)
        assert "shorter" in then["anew"]
        assert then["cached_bytes"] == 0

    def test_what_was_only_touched_is_proved_and_not_read(self, nginx: Nginx, ops: list[dict[str, Any]]) -> None:
        first = self.first(nginx, ops, "touched")
        os.utime(nginx.www / f"touched-{len(ops)}", (1, 1))
        then = self.then(first, ops)
        assert given(then) == given(first)
        assert (then["appended_to"], then["cached_bytes"], then["cached"], then["windows"]) == (
            first["etag"],
            OLD,
            False,
            0,
        )


class TestRefused:
    @pytest.mark.parametrize(
        ("more", "error"),
        [({"offset": 1 << 40}, RangeNotSatisfiable), ({"length": 1 << 40}, RangeNotSatisfiable),
         ({"etag": '"another"'}, SourceChanged), ({"policy": {"exclude": ["local"]}}, NoSubstrate)],
    )  # fmt: skip
    def test_by_name(self, url: str, more: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            scan.delay(url, ANYWHERE, **more).get(timeout=PATIENCE_S)

    def test_an_object_that_is_not_there(self, nginx: Nginx) -> None:
        with pytest.raises(SourceNotFound):
            scan.delay(nginx.url("nothing"), FIVE).get(timeout=PATIENCE_S)


@pytest.mark.parametrize("ops", [ANYWHERE[:1], FIVE], ids=["windows", "chain"])
class TestInTheMiddle:
    def test_an_object_that_is_replaced_gives_no_value(self, nginx: Nginx, ops: list[dict[str, Any]]) -> None:
        url = slow(nginx, "replaced")
        pending = scan.delay(url, ops, window=WINDOW, cache=False)
        progress(pending)
        other = nginx.www / "other"
        with other.open("wb") as file:
            file.truncate(SLOW)
        os.utime(other, (1, 1))
        other.rename(nginx.www / "replaced")
        with pytest.raises(SourceChanged):
            pending.get(timeout=PATIENCE_S)

    def test_who_cancels_it_stops_its_windows(
        self, nginx: Nginx, desk: Desk, client: Any, ops: list[dict[str, Any]]
    ) -> None:
        pending = scan.delay(slow(nginx, "cancelled"), ops, window=WINDOW, cache=False)
        told = progress(pending)
        status = desk.status(pending.id)
        assert status is not None
        assert status["status"] == "running"
        assert status["progress"]["windows"] == told["windows"]
        desk.cancel(pending.id)
        with pytest.raises(TaskRevokedError):
            pending.get(timeout=PATIENCE_S)
        wait_until_over(client, pending.id)


class TestShell:
    def test_a_scan_prints_its_values(self, up: RunningSystem, url: str) -> None:
        command = ("scan", url, "--op", "crc32c", "--op", "counteq:10", "--window", "5MiB", "--policy")
        done = up.packetfs(*command, "cache=false")
        crc, count = values(DATA, ANYWHERE[:2])
        assert (done.returncode, done.stdout) == (0, f"crc32c {crc}\ncounteq:10 {count}\n"), done.stderr
        assert "11 windows on local" in done.stderr
        scan.delay(url, ANYWHERE[:2]).get(timeout=PATIENCE_S)
        known = up.packetfs(*command, "cache=true")
        assert (known.stdout, "from the cache, computed before on local" in known.stderr) == (done.stdout, True)

    def test_who_interrupts_it_cancels_it(self, up: RunningSystem, nginx: Nginx, client: Any) -> None:
        url, before = slow(nginx, "interrupted"), set(client.keys(f"{SCAN_STATE}*"))
        command = [*PACKETFS, "scan", url, "--op", "crc32c", "--window", "2MiB", "--policy", "cache=false"]
        with subprocess.Popen(command, env=up.environ, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: set(client.keys(f"{SCAN_STATE}*")) - before, "it runs", PATIENCE_S)
            (key,) = set(client.keys(f"{SCAN_STATE}*")) - before
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=PATIENCE_S)[1]
        assert (process.returncode, "interrupted" in said) == (130, True), said
        wait_until_over(client, key.decode().removeprefix(SCAN_STATE))


def test_over_http(up: RunningSystem, nginx: Nginx, url: str) -> None:
    with gateway_process(up.environ, up.files) as gateway:
        http: Client = gateway.client
        body = {"program": {"data_url": url, "ops": FIVE}, "window": MIB, "job_id": "over-http"}
        first = http.post("/v1/scans", body)
        assert (first.status, first.json["program"]["window"]) == (202, MIB)
        status = http.get(f"{first.headers['Location']}?wait_s=30").json
        assert given(status["result"]) == values(DATA, FIVE)
        assert http.post("/v1/scans", body).status == 200
        assert http.post("/v1/jobs", {"program": body["program"], "job_id": "over-http"}).error == "conflict"
        assert http.post("/v1/scans", {**body, "job_id": "other", "window": 0}).json["field"] == "window"
        large = {"data_url": slow(nginx, "over-http"), "length": 12 * MIB, "ops": ANYWHERE[:1]}
        where = http.post("/v1/scans", {"program": large, "window": WINDOW, "policy": {"cache": False}}).headers[
            "Location"
        ]
        feed = http.pool.request("GET", f"{http.url}{where}/events", preload_content=False)
        told, seen = list[Any](), list[Any]()
        for line in feed:
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:]))
                if "progress" in told[-1]:
                    seen = seen or http.get("/v1/overview").json["scans"]
        (shown,) = [one for one in seen if where.endswith(one["job_id"])]
        assert shown["progress"]["windows"] == 6

        def recent() -> dict[str, Any]:
            return {one["job_id"]: one for one in http.get("/v1/overview").json["recent"]}

        wait_until(lambda: shown["job_id"] in recent(), "it is among the last jobs")
        scan_row = recent()[shown["job_id"]]["scan"]
        assert (scan_row["windows"], scan_row["bytes_processed"]) == (6, 12 * MIB)
        assert not [one for one in recent() if one.startswith(f"{shown['job_id']}.")]
        assert shown["job_id"] not in {one["job_id"] for one in http.get("/v1/overview").json["scans"]}
        assert {one["progress"]["bytes_total"] for one in told if "progress" in one} == {12 * MIB}
        assert given(told[-2]["result"]) == [zeros_crc32c(12 * MIB)]


def test_who_goes_on_with_an_orphan_does_what_is_left(orphans: dict[str, AsyncResult[Any]]) -> None:
    """The last test: see the fixture."""
    windows, chain = (orphans[name].get(timeout=PATIENCE_S) for name in ("windows", "chain"))
    assert given(windows) == [zeros_crc32c(SLOW), SLOW]
    assert given(chain)[1] == SLOW
    assert windows["bytes_processed"] == chain["bytes_processed"] == SLOW
