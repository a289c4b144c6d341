"""What is counted of attempts and jobs, and that it comes back from its fields as it went in."""

from collections import Counter

import pytest

from packetfs_compute.journal.counts import Tally, count_attempt, count_job, summed, tallies
from packetfs_compute.journal.histogram import ERROR
from packetfs_compute.result import Attempt
from packetfs_compute.routing import Outcome

GOOD: Attempt = {"substrate": "fly", "ok": True, "error": None, "seconds": 0.2}
BUSY: Attempt = {"substrate": "fly", "ok": False, "error": {"type": "busy", "message": "no"}, "seconds": 0.1}
LAMBDA_MS = 2.1e-9
"""What the cheapest Lambda asks for a millisecond, in dollars."""


def stored(counts: Counter[str]) -> dict[bytes, bytes]:
    return {name.encode(): str(value).encode() for name, value in counts.items()}


def counted() -> Counter[str]:
    counts: Counter[str] = Counter()
    count_attempt(counts, GOOD, Outcome(ok=True, byte_count=100, cost_usd=LAMBDA_MS))
    count_attempt(counts, GOOD, Outcome(ok=True, byte_count=11, cost_usd=LAMBDA_MS))
    count_attempt(counts, BUSY, Outcome(ok=False))
    count_job(counts, "fly", None)
    count_job(counts, "edge", None, cached=True)
    count_job(counts, "local", "source_not_found")
    count_job(counts, "local", "source_not_found")
    return counts


def test_it_comes_back_as_it_was_counted() -> None:
    found = tallies(stored(counted()))
    assert set(found) == {"fly", "local", "edge"}
    assert (found["edge"].done, found["edge"].cached, found["fly"].cached) == (1, 1, 0)
    fly, local = found["fly"], found["local"]
    assert (fly.done, fly.failed, fly.ok, fly.bad) == (1, {}, 2, {"busy": 1})
    assert (fly.byte_count, fly.usd) == (111, pytest.approx(2 * LAMBDA_MS, rel=1e-3))
    assert fly.percentile_s(0.99) == pytest.approx(0.2, rel=ERROR)
    assert fly.percentile_s(0.2) == pytest.approx(0.1, rel=ERROR)
    assert (local.done, local.failed, local.ok, local.percentile_s(0.5)) == (0, {"source_not_found": 2}, 0, None)


def test_sums_leave_their_parts_alone() -> None:
    one, two = tallies(stored(counted())), tallies(stored(counted()))
    both = summed([one, two, {}])
    assert (both["fly"].ok, both["fly"].bad, both["local"].failed) == (4, {"busy": 2}, {"source_not_found": 4})
    assert (both["fly"].done, both["fly"].byte_count, both["fly"].dollar_parts) == (2, 222, 4 * 2100)
    assert both["fly"].buckets.total() == 6
    assert (both["edge"].done, both["edge"].cached) == (2, 2)
    assert one["fly"].ok == 2
    assert summed([]) == {}


def test_what_a_later_version_counts_is_left_out() -> None:
    assert tallies({b"moods|fly|good": b"7", b"done|fly": b"1"}) == {"fly": Tally(done=1)}
