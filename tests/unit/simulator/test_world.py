"""What is true in a simulation: how attempts end, what they cost, which places are alike, and who asks when."""

import itertools
import math
from random import Random
from statistics import mean
from typing import Any

import pytest

from packetfs_compute.routing.prices import FLY, attempt_usd
from packetfs_compute.simulator import parse_scenario
from packetfs_compute.simulator.oracle import Oracle
from packetfs_compute.simulator.scenario import Scenario
from packetfs_compute.simulator.world import REFUSED_S, Block, Job, arrivals, blocks_of


def scenario(*places: dict[str, Any], **more: Any) -> Scenario:
    base = {"slots": 1, "overhead_s": 1.0, "bytes_per_s": 1e6}
    table = {
        "jobs": 4000,
        "rate_per_s": 100,
        "mix": [{"name": "m", "url": "https://cdn.example.com/", "bytes": {"median": 1e6, "sigma": 1, "max": 5e6}}],
        "places": [{"name": f"p{at}", **base, **place} for at, place in enumerate(places)],
    }
    return parse_scenario({**table, **more})


def block(**place: Any) -> Block:
    return blocks_of(scenario(place))[0]


def job(at: float = 0.0, byte_count: int = 1_000_000, noise: float = 0.0, luck: float = 0.9) -> Job:
    return Job(0, at, 0, byte_count, noise, luck)


def test_an_attempt_takes_overhead_and_bytes_with_scatter_about_the_mean() -> None:
    assert block().run_s(job(), 0) == 2.0
    noisy = block(sigma=0.5)
    rng = Random(1)
    assert mean(noisy.run_s(job(noise=rng.gauss(0, 1)), 0) for _ in range(20_000)) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "at", "ending", "seconds"),
    [
        ("down", 5.0, "ok", 2.0),
        ("down", 9.0, "internal", 1.0),
        ("down", 15.0, "internal", REFUSED_S),
        ("down", 20.0, "ok", 2.0),
        ("hang", 9.0, "timeout", 7.0),
        ("hang", 15.0, "timeout", 7.0),
        ("errors", 15.0, "internal", 2.0),
        ("errors", 9.0, "ok", 2.0),
        ("slow", 15.0, "ok", 6.0),
    ],
)
def test_how_an_attempt_ends(kind: str, at: float, ending: str, seconds: float) -> None:
    factor = {"slow": 3.0, "errors": 1.0}.get(kind, 1.0)
    ill = block(outages=[{"kind": kind, "start_s": 10, "stop_s": 20, "factor": factor}])
    fate = ill.fate(job(at), at, 7.0, 0)
    assert (fate.ending, pytest.approx(fate.seconds)) == (ending, seconds)


def test_one_that_takes_too_long_is_cut_off() -> None:
    assert block().fate(job(), 0, 1.5, 0) == ("timeout", 1.5)


def test_luck_decides_where_a_share_fails_and_is_another_at_each_place_and_try() -> None:
    shaky = block(error_rate=0.3)
    endings = [shaky.fate(job(luck=0.1), 0, 9, draw).ending for draw in range(1000)]
    assert endings[0] == "internal"
    assert endings.count("internal") == pytest.approx(300, abs=5)


def test_a_probe_meets_what_is_down_or_silent_but_not_what_is_slow_or_wrong() -> None:
    for kind, answered in (("down", False), ("hang", False), ("slow", True), ("errors", True)):
        factor = 3.0 if kind == "slow" else 1.0
        ill = block(outages=[{"kind": kind, "start_s": 10, "stop_s": 20, "factor": factor}])
        assert [ill.answers(at) for at in (9.0, 10.0, 20.0)] == [True, answered, True]


def test_prices_change_when_they_do_whenever_the_fleet_is_told() -> None:
    dear = block(price_changes=[{"at_s": 5, "prices": "fly", "told_after_s": 99}])
    assert dear.usd(10, 2.0, 4.9) == 0.0
    assert dear.usd(10, 2.0, 5.0) == attempt_usd(FLY, 1024, 10, 2.0)


def test_places_that_meet_the_same_are_one_block() -> None:
    down = {"kind": "down", "start_s": 1, "stop_s": 2}
    blocks = blocks_of(scenario({"count": 10, "outages": [{**down, "share": 0.25}, {**down, "share": 0.5}]}, {}))
    assert [(one.number, one.first, one.count, len(one.outages)) for one in blocks] == [
        (0, 0, 3, 2), (0, 3, 2, 1), (0, 5, 5, 0), (1, 0, 1, 0),
    ]  # fmt: skip


def test_jobs_come_at_the_rate_and_in_the_sizes_that_the_scenario_says() -> None:
    given = scenario({}, bursts=[{"start_s": 10, "stop_s": 20, "times": 2}])
    jobs = list(arrivals(given, Random(4)))
    assert [one.number for one in jobs] == list(range(4000))
    assert all(one.at < after.at for one, after in itertools.pairwise(jobs))
    assert sum(one.at < 10 for one in jobs) == pytest.approx(1000, rel=0.1)
    assert sum(10 <= one.at < 20 for one in jobs) == pytest.approx(2000, rel=0.1)
    assert sorted(one.byte_count for one in jobs)[2000] == pytest.approx(1e6, rel=0.1)
    assert max(one.byte_count for one in jobs) == 5_000_000


class TestOracle:
    def one(self, *places: dict[str, Any], **more: Any) -> tuple[Oracle, tuple[Block, ...]]:
        given = scenario(*places, **more)
        blocks = blocks_of(given)
        return Oracle(given, blocks), blocks

    def test_it_takes_the_least_true_score_and_keeps_its_own_queue(self) -> None:
        oracle, _ = self.one({}, {"overhead_s": 1.5})
        chosen = [oracle.assign(job(), lambda at: 0.0)[0] for _ in range(3)]
        assert [(one.at, one.seconds) for one in chosen] == [(0, 2.0), (1, 2.5), (0, 4.0)]

    def test_it_avoids_an_outage_that_has_not_begun(self) -> None:
        oracle, _ = self.one({"outages": [{"kind": "hang", "start_s": 1, "stop_s": 9}]}, {"overhead_s": 4.0})
        assert oracle.assign(job(), lambda at: 0.0)[0].at == 1

    def test_it_waits_for_the_end_of_one_where_that_is_best(self) -> None:
        oracle, _ = self.one({"outages": [{"kind": "down", "start_s": 0, "stop_s": 3}]}, {"overhead_s": 40.0})
        assert oracle.assign(job(), lambda at: 0.0)[0] == (pytest.approx(0.005), 0, 5.0, 0.0, 0.0, 5.0)

    def test_it_knows_who_will_fail(self) -> None:
        oracle, _ = self.one({"error_rate": 0.6}, {"overhead_s": 1.1})
        assert oracle.assign(job(luck=0.5), lambda at: 0.0)[0].at == 1
        assert oracle.assign(job(luck=0.7), lambda at: 0.0)[0].at == 0

    def test_what_is_best_in_the_other_fleet_goes_by_that_fleets_queues(self) -> None:
        oracle, _ = self.one({}, {"overhead_s": 1.5})
        mine, theirs = oracle.assign(job(), lambda at: math.inf if at == 0 else 0.0)
        assert (mine.at, theirs.at) == (0, 1)
