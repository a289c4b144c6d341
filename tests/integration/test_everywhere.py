"""One object, every place: local, Workers in workerd, Lambda in awslambdaric, Fly in uvicorn, Vercel in edge-runtime.

First directly, 500 random programs: every place must give the same values. Then through `packetfs up` with all of them
in one fleet: a job routed to each, and each killed in turn under load.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.everywhere import ALL_OPS, DATA, REMOTES, Places
from support.load import Load
from support.processes import wait_until
from support.reading import OPEN
from support.system import RunningSystem, end_system, publishing_to, start_system

from packetfs_compute.executor import execute
from packetfs_compute.fleet.redis import RedisFleet, open_fleet
from packetfs_compute.names import FNV64_OFFSET, LOCAL, queue_of
from packetfs_compute.routing.breaker import state_at
from packetfs_compute.substrates import Substrate, load_fleet, load_substrate
from tasks import program

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]

EVERY_S = 0.04
_imms = st.integers(0, 255)
_ops = st.one_of(
    st.builds(lambda name, imm: {"op": name, "imm": imm}, st.sampled_from(["counteq", "xor", "add"]), _imms),
    st.just({"op": "crc32c"}),
    st.just({"op": "fnv64"}),
    st.builds(
        lambda seed: {"op": "fnv64", "seed": f"{seed:016x}"}, st.integers(0, (1 << 64) - 1) | st.just(FNV64_OFFSET)
    ),
)
_offsets = st.integers(0, len(DATA)) | st.sampled_from([0, 1, 65_535, 65_536, 262_144, len(DATA) - 1, len(DATA)])
_lengths = st.none() | st.integers(0, len(DATA)) | st.integers(0, 300) | st.sampled_from([0, 1, 65_536, 262_144])


def test_five_hundred_programs_have_the_same_values_everywhere(places: Places) -> None:
    fleet: dict[str, Substrate] = {name: load_substrate(name, places.settings) for name in REMOTES}
    seen: Counter[str] = Counter()

    @settings(max_examples=500, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(_ops, min_size=1, max_size=6), _offsets, _lengths)
    def same(ops: list[dict[str, Any]], offset: int, length: int | None) -> None:
        asked: dict[str, Any] = {"data_url": places.url, "ops": ops, "offset": offset}
        asked |= {} if length is None else {"length": length}
        request = {"program": asked, "timeout": 20_000}
        here = execute(request, OPEN)
        seen["done" if here["success"] else here["error"]["type"]] += 1
        for name, place in fleet.items():
            there = place.invoke(request)
            assert there["success"] is here["success"], (name, there)
            if here["success"]:
                for key in ("results", "bytesProcessed", "objectSize", "etag"):
                    assert json.dumps(there[key]) == json.dumps(here[key]), name
            else:
                kept = ("type", "retryable", "object_size")
                assert [there["error"].get(key) for key in kept] == [here["error"].get(key) for key in kept], name

    same()
    assert set(seen) == {"done", "range_not_satisfiable"}
    assert seen["done"] >= 250


@dataclass
class Fleet:
    """`packetfs up` with all the places in its fleet."""

    system: RunningSystem
    places: Places
    shared: RedisFleet

    def breaker(self, name: str) -> str:
        members = self.shared.snapshot(time.time()).members
        health = next(member.health for member in members if member.place.name == name)
        return state_at(health.breaker, time.time())


@pytest.fixture(scope="module")
def fleet(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    system = start_system(tmp_path_factory.mktemp("fleet"), **places.environ)
    with ExitStack() as stack:
        stack.callback(end_system, system)
        stack.enter_context(publishing_to(system.settings))
        shared = open_fleet(system.settings, [one.capabilities for one in load_fleet(system.settings)])
        yield Fleet(system, places, shared)


def test_one_object_routed_to_every_place_has_one_value(fleet: Fleet) -> None:
    jobs = {
        name: program.delay(fleet.places.url, ALL_OPS, offset=3, policy={"substrates": [name]})
        for name in (LOCAL, *REMOTES)
    }
    results = {name: job.get(timeout=60) for name, job in jobs.items()}
    assert {name: result["substrate"] for name, result in results.items()} == {name: name for name in jobs}
    assert {json.dumps(result["results"]) for result in results.values()} == {json.dumps(results[LOCAL]["results"])}
    assert {result["bytes_processed"] for result in results.values()} == {len(DATA) - 3}
    assert {result["etag"] for result in results.values()} == {results[LOCAL]["etag"]}
    assert results["cloudflare"]["region"] != results[LOCAL]["region"]
    assert all(result["cost_usd"] > 0 for name, result in results.items() if name != LOCAL)


@pytest.mark.parametrize("dead", REMOTES)
def test_each_place_is_killed_under_load_and_nothing_is_lost(fleet: Fleet, dead: str) -> None:
    server = fleet.places.servers[dead]
    wait_until(lambda: all(fleet.breaker(name) == "closed" for name in REMOTES), "all are well to begin with", 60)
    # Half of the jobs go where the router says, half to the place that is to die, so that it surely has work when it does.
    routed = Load(fleet.places.url, DATA, {}, every_s=2 * EVERY_S)
    sent = Load(fleet.places.url, DATA, {}, every_s=2 * EVERY_S, queue=queue_of(dead))
    with routed, sent:
        wait_until(lambda: sum(one["substrate"] == dead for one in sent.finished()) >= 5, f"{dead} has work", 60)
        server.kill()
        wait_until(lambda: fleet.breaker(dead) != "closed", f"{dead} is shut out", 30)
        time.sleep(1)
        server.start()
        wait_until(lambda: fleet.breaker(dead) == "closed", f"{dead} is well again", 60)
    failed = [one for result in [*sent.results, *routed.results] for one in result["attempts"] if not one["ok"]]
    assert {one["substrate"] for one in failed} == {dead}
    assert len({result["substrate"] for result in sent.results} - {dead}) >= 1
