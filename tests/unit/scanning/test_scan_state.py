"""What a scan keeps in a real Redis: found again whole, small once it is done, and gone with what was asked."""

from typing import Any

import pytest

from packetfs_compute.cache.base import Kept
from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.names import SCAN_STATE
from packetfs_compute.scanning import Scan, accept_scan
from packetfs_compute.scanning.plan import Plan
from packetfs_compute.scanning.recall import Head, Mark
from packetfs_compute.scanning.state import Found, ScanState, connect
from packetfs_compute.scanning.tally import Part, Tally, scan_result
from packetfs_compute.settings import Settings

PLAN = Plan(0, 25, 10, 25, '"v1"')
PARTS = {0: Part((1, 2), 10, "local", "here", 0.5, 0.1, 0.2), 2: Part((5, 6), 5, "fly", "iad", cached=True)}
FAILED: Any = {"substrate": "fly", "ok": False, "error": {"type": "busy", "message": "full"}, "seconds": 0.1}


def scan(length: int | None = None, window: int | None = None) -> Scan:
    program = {"data_url": "https://host/object", "ops": [{"op": "crc32c"}, {"op": "xor", "imm": 1}], "length": length}
    return accept_scan("s", program, None, window)


def state(client: Any, asked: Scan | None = None) -> ScanState:
    return ScanState(client, asked or scan(), 1000)


def test_what_is_kept_is_found(redis_client: Any) -> None:
    assert state(redis_client).found() == Found()
    state(redis_client).begin(PLAN)
    state(redis_client).keep(PARTS)
    state(redis_client).keep_tally(Tally([FAILED], 0.25, 2))
    state(redis_client).keep_chain(20, PARTS[0])
    assert state(redis_client).found() == Found(PLAN, PARTS, (20, PARTS[0]), Tally([FAILED], 0.25, 2))
    assert state(redis_client).part(2) == PARTS[2]
    assert state(redis_client).part(1) is None
    assert 900 < redis_client.ttl(SCAN_STATE + "s") <= 1000


def test_so_is_what_it_goes_on_from(redis_client: Any) -> None:
    head = Head('"v0"', 9, 9, (Kept(1, "local", "a b"), Kept(2, "fly,local", "here")), (Mark(0, 5, (0, 0), (7, 8)),))
    state(redis_client).begin(PLAN, head)
    assert state(redis_client).found() == Found(PLAN, head=head)
    state(redis_client).begin(PLAN, None, "it has become shorter")
    assert state(redis_client).found() == Found(PLAN, anew="it has become shorter")


@pytest.mark.parametrize("other", [scan(length=9), scan(window=3)])
def test_another_scan_under_the_same_id_finds_nothing(redis_client: Any, other: Scan) -> None:
    state(redis_client).begin(PLAN)
    state(redis_client).keep(PARTS)
    assert state(redis_client, other).found() == Found()
    assert not redis_client.exists(SCAN_STATE + "s")


def test_one_that_is_done_is_its_result_alone(redis_client: Any) -> None:
    state(redis_client).begin(PLAN)
    state(redis_client).keep(PARTS)
    result = scan_result(scan(), PLAN, [8, 9], list(PARTS.values()), Tally(), queued_s=None, total_s=1.0)
    state(redis_client).finish(PLAN, result)
    found = state(redis_client).found()
    assert (found.result, found.parts) == (result, {})


def test_a_plan_that_is_not_there_counts_for_nothing(redis_client: Any) -> None:
    state(redis_client).keep(PARTS)
    assert state(redis_client).found() == Found()


def test_a_redis_that_is_away_is_told_by_name() -> None:
    away = ScanState(connect(Settings(redis_url="redis://127.0.0.1:1")), scan(), 1000)
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        away.found()
    with pytest.raises(BrokerUnavailable):
        away.keep(PARTS)
