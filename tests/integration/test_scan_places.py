"""Scans over several real places at once, one of which stops, dies or sees another version in the middle.

`packetfs up` with two real HTTP compute servers (processes of ``remote/fly``) beside this machine, reading from nginx.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import crc32c as crc32c_package
import pytest
import redis
from celery.result import AsyncResult
from support.fly import FlyServer
from support.nginx import Nginx
from support.processes import wait_until
from support.system import RunningSystem, end_system, publishing_to, start_system

from packetfs_compute.errors import NoSubstrate, SourceChanged
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.names import LEDGER_OPEN, LOCAL, SCAN_STATE, fleet_key
from packetfs_compute.places import SubstrateSpec, to_json
from packetfs_compute.routing.breaker import state_at
from packetfs_compute.scanning.tally import Part
from packetfs_compute.substrates import load_fleet
from tasks import scan

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(180)]

KIB, MIB = 1 << 10, 1 << 20
DATA = random.Random(8).randbytes(64 * MIB + 4321)
WINDOW = 256 * KIB
WINDOWS = -(-len(DATA) // WINDOW)
OPS: list[dict[str, Any]] = [{"op": "crc32c"}, {"op": "counteq", "imm": 7}]
VALUES = [crc32c_package.crc32c(DATA), DATA.count(7)]
ELSEWHERE = {"exclude": [LOCAL]}
TRIES = 20


def given(result: dict[str, Any]) -> list[Any]:
    return [one["value"] for one in result["results"]]


@dataclass
class Places:
    system: RunningSystem
    servers: dict[str, FlyServer]
    url: str
    client: Any

    def done(self, scan_id: str) -> Counter[str]:
        """Return how many windows of a scan each place has done so far."""
        kept = self.client.hgetall(SCAN_STATE + scan_id)
        return Counter(Part.from_json(json.loads(part)).substrate for name, part in kept.items() if name.isdigit())

    def begin(self, url: str | None = None, cap_usd: float | None = None) -> AsyncResult[Any]:
        """Start a scan of which both servers have done some windows, and some are still to be done."""
        policy = ELSEWHERE if cap_usd is None else {**ELSEWHERE, "max_cost_usd": cap_usd}
        for _ in range(TRIES):
            pending = scan.delay(url or self.url, OPS, window=WINDOW, policy=policy, cache=False)
            while not pending.ready():
                done = self.done(pending.id)
                if set(self.servers) <= set(done) and done.total() < WINDOWS:
                    return pending
                time.sleep(0.005)
            assert given(pending.get()) == VALUES
        raise AssertionError(f"{TRIES} times one of them did all")

    def cap_usd(self) -> float:
        """Return some times what the scan is expected to cost, once both are well."""
        for name in self.servers:  # what the scan before did to them must not bear on the next
            self.client.delete(fleet_key(name))
        wait_until(self.well, "both are well to begin with", 60)
        with pytest.raises(NoSubstrate) as caught:
            scan.delay(self.url, OPS, window=WINDOW, policy={**ELSEWHERE, "max_cost_usd": 1e-15}).get(timeout=60)
        return 4 * float(caught.value.details["estimate_usd"])

    def well(self) -> bool:
        shared = open_fleet(self.system.settings, [one.capabilities for one in load_fleet(self.system.settings)])
        now = time.time()
        states = {one.place.name: state_at(one.health.breaker, now) for one in shared.snapshot(now).members}
        return all(states[name] == "closed" for name in self.servers)

    def nothing_is_open(self) -> bool:
        return self.client.zcard(LEDGER_OPEN) == 0


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, nginx: Nginx) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("scan-places")
    (nginx.www / "places.bin").write_bytes(DATA)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(FlyServer(folder)) for name in ("fly-a", "fly-b")}
        specs = tuple(SubstrateSpec(name, "fly", url=server.url, slots=4) for name, server in servers.items())
        keys = ",".join(f"{name}={server.key_id}:{server.secret}" for name, server in servers.items())
        system = start_system(folder, scans=True, PACKETFS_SUBSTRATES=to_json(specs), PACKETFS_KEYS=keys)
        stack.callback(end_system, system)
        stack.enter_context(publishing_to(system.settings))
        client = stack.enter_context(redis.Redis.from_url(system.settings.state_url))
        yield Places(system, servers, nginx.url("places.bin"), client)


def test_an_object_that_is_replaced_gives_no_value_wherever_its_windows_run(places: Places, nginx: Nginx) -> None:
    replaced, other = nginx.www / "places-replaced.bin", nginx.www / "places-other.bin"
    replaced.write_bytes(DATA)
    other.write_bytes(DATA[::-1])
    os.utime(other, (1, 1))
    pending = places.begin(nginx.url(replaced.name))
    other.rename(replaced)
    with pytest.raises(SourceChanged):
        pending.get(timeout=60)
    assert places.client.hget(SCAN_STATE + pending.id, "result") is None
    wait_until(places.nothing_is_open, "none of its windows is open")


def test_windows_of_a_place_that_dies_are_run_by_the_others(places: Places) -> None:
    dead = places.servers["fly-a"]
    cap_usd = places.cap_usd()
    pending = places.begin(cap_usd=cap_usd)
    dead.kill()
    try:
        result = pending.get(timeout=60)
    finally:
        dead.start()
    assert given(result) == VALUES
    assert {one["substrate"] for one in result["attempts"] if not one["ok"]} == {"fly-a"}
    assert 0 < result["cost_usd"] <= cap_usd


def test_windows_of_a_place_that_stops_are_hedged_to_another(places: Places) -> None:
    slow = places.servers["fly-a"]
    cap_usd = places.cap_usd()
    pending = places.begin(cap_usd=cap_usd)
    os.kill(slow.pid, signal.SIGSTOP)
    try:
        result = pending.get(timeout=60)
    finally:
        os.kill(slow.pid, signal.SIGCONT)
    assert given(result) == VALUES
    assert result["bytes_processed"] == sum(result["substrates"].values()) == len(DATA)
    assert 1 <= result["hedges"] <= WINDOWS // 20
    assert 0 < result["cost_usd"] <= cap_usd
    wait_until(places.nothing_is_open, "what was hedged is open no more")
