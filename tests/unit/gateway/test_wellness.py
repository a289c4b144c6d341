"""What is unwell, for systems that are made up."""

import time

from packetfs_compute.gateway.wellness import assess, no_redis
from packetfs_compute.places import SubstrateSpec
from packetfs_compute.routing import Health, Member
from packetfs_compute.routing.breaker import Breaker
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_substrate

NOW = time.time()
LOCAL = load_substrate("local", Settings()).capabilities
OPEN = Health(breaker=Breaker("open", NOW - 1, NOW + 30, 1, 0))


def test_all_is_well() -> None:
    report = assess([Member(LOCAL, Health())], {"local": {"local@host"}}, 0.0, NOW)
    assert (report["status"], report["unwell"]) == ("healthy", [])


def test_nobody_consumes_the_only_queue() -> None:
    report = assess([Member(LOCAL, Health())], {"local": set()}, 0.0, NOW)
    assert report["status"] == "unhealthy"
    assert report["unwell"] == [{"what": "queue", "name": "local", "message": "nobody consumes packetfs.local"}]


def test_an_open_breaker_is_told_and_jobs_may_still_run() -> None:
    report = assess([Member(LOCAL, OPEN)], {"local": {"local@host"}}, 0.0, NOW)
    assert report["status"] == "degraded"
    assert report["unwell"] == [{"what": "breaker", "name": "local", "message": "open for 30 s more"}]
    assert assess([Member(LOCAL, OPEN)], {"local": {"local@host"}}, 0.0, NOW + 31)["status"] == "healthy"


def test_that_nobody_lends_a_browser_is_no_fault() -> None:
    spec = SubstrateSpec("pages", "browser", url="http://127.0.0.1:1/v1/browsers")
    browsers = load_substrate("pages", Settings(substrates=(spec,))).capabilities
    members, consumers = [Member(LOCAL, Health()), Member(browsers, OPEN)], {"local": {"l@h"}, "pages": {"p@h"}}
    assert assess(members, consumers, 0.0, NOW)["status"] == "healthy"
    assert assess(members, {"local": {"l@h"}}, 0.0, NOW)["unwell"][0]["name"] == "pages", "its worker is ours"


def test_nobody_sweeps() -> None:
    report = assess([Member(LOCAL, Health())], {"local": {"local@host"}}, 16.0, NOW)
    assert report["status"] == "degraded"
    assert [one["what"] for one in report["unwell"]] == ["upkeep"]
    assert assess([Member(LOCAL, Health())], {"local": {"local@host"}}, 14.0, NOW)["status"] == "healthy"


def test_no_redis_is_the_end() -> None:
    assert no_redis()["status"] == "unhealthy"
