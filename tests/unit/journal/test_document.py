"""The dashboard's feed, made of what was read; nothing runs."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from packetfs_compute.broker.ledger import LedgerStats
from packetfs_compute.journal import Reading, overview_document
from packetfs_compute.journal.counts import Tally
from packetfs_compute.journal.histogram import ERROR, bucket_of
from packetfs_compute.journal.reader import STEPS
from packetfs_compute.routing import Capabilities, Health, Member
from packetfs_compute.routing.breaker import Breaker

NOW = 1_764_000_000.5
CAUSE = {"at": NOW - 9, "error": "probe", "message": "no answer"}


def member(name: str, health: Health | None = None, slots: int | None = None) -> Member:
    place = Capabilities(
        name, "own", 256, 1 << 30, 60, frozenset({"https"}), kind="fly", provider="fly", region="iad", slots=slots
    )
    return Member(place, health or Health())


def tally(done: int = 0, **failed: int) -> Tally:
    return Tally(
        done, Counter(failed), done, Counter(failed), Counter({bucket_of(0.1): done}), 1000 * done, 10**9 * done
    )


def document(reading: Reading | None = None, *members: Member, **more: Any) -> dict[str, Any]:
    report = {"status": "degraded", "version": "1", "unwell": [{"what": "upkeep", "message": "no sweep"}]}
    members = members or (member("fly"),)
    found = overview_document(
        reading or Reading(), members, {"fly": {"w1", "w2"}}, LedgerStats(12, 1, 0.25, 3, 4), report, NOW, **more
    )
    return dict(json.loads(json.dumps(found, allow_nan=False)))


def steps(*last: dict[str, Tally]) -> tuple[dict[str, Tally], ...]:
    return (*({},) * (STEPS - len(last)), *last)


def test_where_nothing_happened_all_is_there_and_nought_or_null() -> None:
    feed = document()
    assert set(feed) == {
        "at",
        "window_s",
        "ledger",
        "unwell",
        "status",
        "substrates",
        "series",
        "scans",
        "recent",
        "browsers",
        "links",
    }
    assert (feed["at"], feed["window_s"], feed["status"]) == (NOW, 60, "degraded")
    assert feed["unwell"] == [{"what": "upkeep", "message": "no sweep"}]
    assert feed["ledger"] == {"open": 12, "overdue_s": 0.25, "resubmitted": 3, "given_up": 4}
    assert feed["links"] == {"flower": None, "docs": "/docs", "metrics": "/metrics"}
    assert (feed["browsers"], feed["scans"], feed["recent"]) == (None, [], [])
    assert feed["substrates"] == [
        {
            "name": "fly", "kind": "fly", "provider": "fly", "region": "iad", "trust": "own",
            "breaker": {"state": "closed", "since": None, "until": None, "times": 0, "cause": None},
            "depth": 0, "in_flight": 0, "slots": None, "consumers": 2,
            "jobs": {"done_per_s": 0, "failed_per_s": 0, "done": 0, "cached": 0, "failed": {}},
            "attempts": {"ok": 0, "failed": {}},
            "latency_s": {"count": 0, "p50": None, "p95": None, "p99": None},
            "bytes_per_s": 0, "bytes": 0, "usd_per_hour": 0, "usd": 0,
        }
    ]  # fmt: skip
    series = feed["series"]
    assert (series["step_s"], series["done"], series["failed"]) == (2, {"fly": [0] * 150}, {"fly": [0] * 150})
    assert (series["usd"], series["p50_s"], series["p95_s"]) == ([0] * 150, [None] * 150, [None] * 150)


def test_rates_are_of_the_last_minute_and_totals_of_the_day() -> None:
    last = [{"fly": tally(100)}, *({"fly": tally(2, busy=1)},) * 30]
    feed = document(Reading(0.0, steps(*last), {"fly": replace(tally(1200, busy=7), cached=40)}))
    (fly,) = feed["substrates"]
    assert fly["jobs"] == {"done_per_s": 1.0, "failed_per_s": 0.5, "done": 1200, "cached": 40, "failed": {"busy": 7}}
    assert fly["attempts"] == {"ok": 1200, "failed": {"busy": 7}}
    assert (fly["latency_s"]["count"], fly["bytes_per_s"], fly["bytes"]) == (60, 1000.0, 1_200_000)
    assert abs(fly["latency_s"]["p95"] / 0.1 - 1) <= ERROR
    assert (round(fly["usd_per_hour"], 9), round(fly["usd"], 9)) == (3.6, 1.2)


def test_the_series_are_by_place_and_step() -> None:
    some = {"fly": tally(2, busy=1), "local": tally(3)}
    feed = document(Reading(NOW - 300, steps(some, {}, some)), member("fly"), member("local"))["series"]
    assert feed["from"] == NOW - 300
    assert feed["done"] == {"fly": [0] * 147 + [2, 0, 2], "local": [0] * 147 + [3, 0, 3]}
    assert feed["failed"]["fly"] == [0] * 147 + [1, 0, 1]
    assert [round(usd, 6) for usd in feed["usd"][-3:]] == [0.005, 0, 0.005]
    assert [value is None for value in feed["p50_s"][-3:]] == [False, True, False]
    assert {len(one) for one in (*feed["done"].values(), *feed["failed"].values(), feed["usd"], feed["p95_s"])} == {150}


def test_a_breaker_says_what_opened_it_and_until_when() -> None:
    breaker = Breaker("open", NOW - 9, NOW + 5, 2)
    broken = document(Reading(opened={"fly": CAUSE}), member("fly", Health(breaker=breaker)))["substrates"][0]
    assert broken["breaker"] == {"state": "open", "since": NOW - 9, "until": NOW + 5, "times": 2, "cause": CAUSE}
    tried = Health(breaker=Breaker("open", NOW - 9, NOW - 1, 2))
    assert document(None, member("fly", tried))["substrates"][0]["breaker"] == {
        "state": "half_open", "since": NOW - 9, "until": None, "times": 2, "cause": None,
    }  # fmt: skip


def test_slots_are_what_both_sides_allow() -> None:
    def slots(declared: int | None, consumed: int | None) -> Any:
        return document(None, member("fly", Health(slots=consumed), declared))["substrates"][0]["slots"]

    assert [slots(4, 16), slots(16, 4), slots(4, None), slots(None, 4), slots(4, 0), slots(None, None)] == [
        4, 4, 4, 4, 0, None,
    ]  # fmt: skip


def test_what_the_gateway_knows_itself_is_passed_on() -> None:
    feed = document(browsers={"connected": 3}, flower="http://127.0.0.1:5555/")
    assert (feed["browsers"], feed["links"]["flower"]) == ({"connected": 3}, "http://127.0.0.1:5555/")
