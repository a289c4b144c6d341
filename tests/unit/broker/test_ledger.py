"""The ledger's scripts against a real server."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from support.malformed import GOOD_ID, good
from support.valkey import valkey

from packetfs_compute.broker.ledger import Entry, Ledger, LedgerStats, Move
from packetfs_compute.broker.lua import Script
from packetfs_compute.names import (
    LEDGER_JOBS,
    LEDGER_LEASES,
    LEDGER_OPEN,
    LEDGER_RESUBMITTED,
    LEDGER_RUNS,
)

KEY = "packetfs.local"


def server_time(client: Any) -> float:
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def only(ledger: Ledger, later_s: float = 1000.0) -> Entry:
    """The one entry, looked at in the future."""
    now = server_time(ledger._client)
    _, (entry,) = ledger.due(10, now + later_s)
    return entry


def test_an_entry_holds_all_that_is_needed_to_publish_it_again(ledger: Ledger, redis_client: Any) -> None:
    message = json.dumps(good())
    before = server_time(redis_client)
    ledger.enter(GOOD_ID, KEY, message)
    entry = only(ledger)
    assert (entry.id, entry.key, entry.runs, entry.lease) == (GOOD_ID, KEY, 0, None)
    assert before + 5 <= entry.due <= server_time(redis_client) + 5
    stored = json.loads(entry.message)
    assert before - 1e-5 <= stored.pop("packetfs_published") <= server_time(redis_client)
    assert stored == good()
    assert redis_client.lrange(KEY, 0, -1) == [entry.message]


def test_a_message_that_takes_another_way_is_kept_and_put_on_no_list(ledger: Ledger, redis_client: Any) -> None:
    ledger.enter(GOOD_ID, "", json.dumps(good()), patience_s=60)
    assert only(ledger).key == ""
    assert sorted(redis_client.keys()) == [LEDGER_JOBS.encode(), LEDGER_OPEN.encode()]


def test_what_is_due_comes_the_longest_overdue_first_and_bounded(ledger: Ledger, redis_client: Any) -> None:
    for i in range(5):
        ledger.enter(f"j{i}", KEY, json.dumps(good()), patience_s=10 - i)
    now = server_time(redis_client)
    assert ledger.due(10) == (pytest.approx(now, abs=5), [])
    time, entries = ledger.due(3, now + 100)
    assert time == now + 100
    assert [entry.id for entry in entries] == ["j4", "j3", "j2"]
    assert [entry.id for entry in ledger.due(10, entries[1].due)[1]] == ["j4", "j3"]


def test_one_look_reads_no_more_than_it_can_hold(ledger: Ledger, redis_client: Any) -> None:
    for i in range(12):
        ledger.enter(f"j{i}", "", json.dumps({**good(), "body": "x" * (1 << 20)}))
    assert len(ledger.due(500, server_time(redis_client) + 100)[1]) == 7


def test_leases_are_for_open_jobs_alone(ledger: Ledger, redis_client: Any) -> None:
    ledger.enter("open", KEY, "{}")
    now = server_time(redis_client)
    assert ledger.lease("open", 15)
    assert not ledger.lease("finished", 15)
    assert ledger.renew(["open", "finished"], 60) == 1
    assert ledger.renew([], 60) == 0
    assert redis_client.zrange(LEDGER_LEASES, 0, -1) == [b"open"]
    lease = only(ledger).lease
    assert lease is not None
    assert 59 < lease - now < 62
    ledger.release("open")
    assert only(ledger).lease is None


def test_a_job_that_is_struck_out_leaves_nothing(ledger: Ledger, redis_client: Any) -> None:
    ledger.enter("j", "", "{}")
    ledger.lease("j", 15)
    redis_client.hset(LEDGER_RUNS, "j", 2)
    ledger.strike("j")
    assert redis_client.keys() == []
    assert ledger.open_count() == 0
    ledger.strike("j")


def test_an_entry_is_moved_only_if_it_is_as_it_was_read(ledger: Ledger, redis_client: Any) -> None:
    ledger.enter("j", KEY, "{}")
    seen = only(ledger)
    assert ledger.postpone([Move(seen, seen.due + 7.25)]) == 1
    assert ledger.postpone([Move(seen, seen.due + 100)]) == 0
    assert redis_client.zscore(LEDGER_OPEN, "j") == seen.due + 7.25
    ledger.strike("j")
    assert ledger.postpone([Move(seen, seen.due + 7.25)]) == 0
    assert redis_client.zcard(LEDGER_OPEN) == 0


def test_a_presumed_run_never_shortens_a_lease(ledger: Ledger, redis_client: Any) -> None:
    ledger.enter("j", KEY, "{}")
    seen = only(ledger)
    ledger.lease("j", 600)
    lease = only(ledger).lease
    ledger.postpone([Move(seen, seen.due + 5, running=True)])
    assert only(ledger).lease == lease


def test_publishing_again_replaces_the_message_that_a_worker_holds(ledger: Ledger, redis_client: Any) -> None:
    ledger.enter("j", KEY, "{}")
    redis_client.delete(KEY)
    redis_client.hset("unacked", "tag", "held")
    redis_client.zadd("unacked_index", {"tag": 1})
    ledger.lease("j", 0)
    seen = only(ledger)
    assert ledger.resubmit(seen, seen.due + 10, json.dumps(good()), "tag")
    assert redis_client.exists("unacked", "unacked_index") == 0
    again = only(ledger)
    assert (again.due, again.runs, again.lease) == (seen.due + 10, 1, None)
    assert redis_client.lrange(KEY, 0, -1) == [again.message]
    assert redis_client.get(LEDGER_RESUBMITTED) == b"1"
    assert not ledger.resubmit(seen, seen.due + 20, json.dumps(good()), "tag")
    ledger.strike("j")
    assert not ledger.resubmit(again, again.due + 20, json.dumps(good()), "tag")
    assert redis_client.llen(KEY) == 1


def test_of_many_sweepers_one_publishes(ledger: Ledger, redis_settings: Any, redis_client: Any) -> None:
    for i in range(20):
        ledger.enter(f"j{i}", "", "{}")
    _, seen = ledger.due(100, server_time(redis_client) + 100)
    published: list[str] = []
    barrier = threading.Barrier(4)

    def sweep() -> None:
        with redis.Redis.from_url(redis_settings.state_url) as client:
            mine = Ledger(client)
            barrier.wait()
            published.extend(entry.id for entry in seen if mine.resubmit(entry, entry.due + 10, "{}"))

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(published) == sorted(entry.id for entry in seen)


def test_the_ledger_in_numbers(ledger: Ledger, redis_client: Any) -> None:
    assert ledger.stats() == LedgerStats(0, 0, 0.0, 0, 0)
    ledger.enter("a", KEY, "{}", patience_s=-30)
    ledger.enter("b", KEY, "{}")
    ledger.lease("b", 60)
    entry = ledger.due(1)[1][0]
    ledger.resubmit(entry, entry.due, "{}")
    ledger.give_up("b")
    stats = ledger.stats()
    assert (stats.open, stats.running, stats.resubmitted, stats.given_up) == (1, 0, 1, 1)
    assert 29 < stats.overdue_s < 60


def test_old_leases_are_forgotten(ledger: Ledger, redis_client: Any) -> None:
    redis_client.zadd(LEDGER_LEASES, {"old": 5.0, "new": 50.0})
    ledger.forget_leases(10.0)
    assert redis_client.zrange(LEDGER_LEASES, 0, -1) == [b"new"]


def test_a_restarted_server_knows_no_scripts_and_all_jobs(tmp_path: Path) -> None:
    for entered in (1, 2):
        with valkey(tmp_path, persistent=True) as settings, redis.Redis.from_url(settings.state_url) as client:
            ledger = Ledger(client)
            ledger.enter(f"j{entered}", KEY, json.dumps(good()))
            assert ledger.open_count() == entered
            assert len(ledger.due(10, server_time(client) + 100)[1]) == entered


def test_a_script_is_read_once() -> None:
    script = Script("renew")
    assert script.text.startswith("-- ")
    assert len(script.digest) == 40
