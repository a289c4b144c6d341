"""A fleet of real places that fail in every way, under load: no job is lost, no value is wrong, traffic moves and returns.

`packetfs up` with four substrates: ``local``, two real HTTP compute servers (processes of ``remote/fly``), each behind a
proxy that can be told to misbehave, and a stub. The load is published as any client does it, by ``delay()``. The first
server is the nearest, so it has the traffic until it fails.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import crc32c as crc32c_package
import pytest
import redis
from support.faulty import FaultyProxy, faulty_proxy
from support.fly import FlyServer
from support.load import Load
from support.nginx import Nginx
from support.processes import wait_until
from support.system import RunningSystem, end_system, publishing_to, start_system

from packetfs_compute.fleet.redis import RedisFleet, open_fleet
from packetfs_compute.names import fleet_key
from packetfs_compute.places import SubstrateSpec, to_json
from packetfs_compute.routing import Health
from packetfs_compute.routing.breaker import state_at
from packetfs_compute.substrates import load_fleet
from tasks import crc32c

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(180)]

LENGTH = 8 << 10
DATA = random.Random(3).randbytes(1 << 20)
REMOTE = {"exclude": ["local"]}
RATE_S = 0.025


@dataclass
class Fleet:
    system: RunningSystem
    servers: dict[str, FlyServer]
    proxies: dict[str, FaultyProxy]
    url: str
    shared: RedisFleet

    def health(self, name: str) -> Health:
        members = self.shared.snapshot(time.time()).members
        return next(member.health for member in members if member.place.name == name)

    def breaker(self, name: str) -> str:
        return state_at(self.health(name).breaker, time.time())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, nginx: Nginx) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (nginx.www / "fleet.bin").write_bytes(DATA)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(FlyServer(folder)) for name in ("fly-a", "fly-b")}
        proxies = {name: stack.enter_context(faulty_proxy(server.url)) for name, server in servers.items()}
        proxies["fly-b"].delay_s = 0.04
        specs = [SubstrateSpec(name, "fly", url=proxy.url, slots=8) for name, proxy in proxies.items()]
        specs.append(SubstrateSpec("stub", "stub", slots=8, script='{"latency_s": 0.1}'))
        keys = ",".join(f"{name}={server.key_id}:{server.secret}" for name, server in servers.items())
        system = start_system(folder, PACKETFS_SUBSTRATES=to_json(tuple(specs)), PACKETFS_KEYS=keys)
        stack.callback(end_system, system)
        stack.enter_context(publishing_to(system.settings))
        shared = open_fleet(system.settings, [one.capabilities for one in load_fleet(system.settings)])
        yield Fleet(system, servers, proxies, nginx.url("fleet.bin"), shared)


def _kill(fleet: Fleet) -> None:
    fleet.servers["fly-a"].kill()


def _start(fleet: Fleet) -> None:
    fleet.servers["fly-a"].start()


def _mode(mode: Any) -> Callable[[Fleet], None]:
    def change(fleet: Fleet) -> None:
        fleet.proxies["fly-a"].mode = mode

    return change


FAULTS = {
    "killed": (_kill, _start, {"internal"}),
    "500": (_mode("500"), _mode("pass"), {"internal"}),
    "429": (_mode("429"), _mode("pass"), {"busy"}),
    "garbage": (_mode("garbage"), _mode("pass"), {"internal"}),
    "cut": (_mode("cut"), _mode("pass"), {"internal"}),
    "nothing": (_mode("nothing"), _mode("pass"), {"timeout"}),
    "slow": (_mode("slow"), _mode("pass"), {"timeout"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_place_that_fails_loses_no_job_and_its_traffic_moves_and_comes_back(fleet: Fleet, fault: str) -> None:
    begin, end, types = FAULTS[fault]
    proxy = fleet.proxies["fly-a"]
    # One fault must not bear on the next: a place that fell before is shut out for twice as long each time.
    with redis.Redis.from_url(fleet.system.settings.state_url) as store:
        store.delete(fleet_key("fly-a"))
    wait_until(lambda: fleet.breaker("fly-a") == "closed", "fly-a is well to begin with", 60)
    opened = fleet.health("fly-a").opened
    with Load(fleet.url, DATA, REMOTE, every_s=RATE_S) as load:
        began = time.monotonic()
        wait_until(lambda: proxy.computed_since(began) >= 20, "fly-a has the traffic")
        begin(fleet)
        time.sleep(5)
        after = time.monotonic()
        time.sleep(2)
        left = proxy.computed_since(after)
        assert left <= 10, f"{left} of some {2 / RATE_S:.0f} jobs still went there"
        health = fleet.health("fly-a")
        assert health.opened > opened or health.busy_until > time.time() - 5
        end(fleet)
        wait_until(lambda: fleet.breaker("fly-a") == "closed", "fly-a is well again", 60)
        back = time.monotonic()
        wait_until(lambda: proxy.computed_since(back) > 0, "fly-a has some traffic again", 30)
        returned = time.monotonic()
        time.sleep(2)
        if fault != "429":  # a place that is busy is no place that failed
            share = proxy.computed_since(returned) / (2 / RATE_S)
            assert share < 0.5, "it has all its traffic back at once"
    failed = [one for result in load.results for one in result["attempts"] if not one["ok"]]
    assert {one["substrate"] for one in failed} == {"fly-a"}
    assert {one["error"]["type"] for one in failed} == types
    assert all(one["seconds"] >= 0 and one["error"]["message"] for one in failed)
    assert {result["substrate"] for result in load.results} >= {"fly-a", "fly-b"}


def test_where_all_remote_places_are_dead_this_machine_computes(fleet: Fleet) -> None:
    for server in fleet.servers.values():
        server.kill()
    try:
        policy = {"exclude": ["stub"]}
        with Load(fleet.url, DATA, policy, every_s=RATE_S) as load:
            time.sleep(4)
        places = Counter(result["substrate"] for result in load.results)
        assert set(places) == {"local"}
    finally:
        for server in fleet.servers.values():
            server.start()


def test_where_every_place_that_may_is_dead_the_job_waits_for_one(fleet: Fleet) -> None:
    policy = {"substrates": ["fly-b"], "deadline_s": 60}
    fleet.servers["fly-b"].kill()
    try:
        pending = [crc32c.delay(fleet.url, 0, LENGTH, policy=policy) for _ in range(5)]
        time.sleep(2)
        assert not any(one.ready() for one in pending)
    finally:
        fleet.servers["fly-b"].start()
    for one in pending:
        result = one.get(timeout=60)
        assert result["value"] == crc32c_package.crc32c(DATA[:LENGTH])
        assert [attempt["ok"] for attempt in result["attempts"]].count(False) >= 1
