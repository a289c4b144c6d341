"""Routing in simulated fleets: how far it is from knowing the future, and what it does when things go wrong."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from packetfs_compute.simulator import Report, Scenario, load_scenario, parse_scenario, scaled, simulate
from packetfs_compute.simulator.publishers import Counting

pytestmark = pytest.mark.integration  # hours that are simulated: many seconds

SEEDS = {"internet": 20261124, "outage": 911, "herd": 2027}
JOBS = {"internet": 6000, "outage": 20_000, "herd": 6000}
"""Fewer would leave the outages of ``outage`` to a few dozen urgent jobs, and the regret to chance."""


@cache
def shipped(name: str) -> Report:
    return simulate(scaled(load_scenario(name), JOBS[name]))


@pytest.mark.integration  # thousands of jobs each
@pytest.mark.parametrize("name", sorted(SEEDS))
class TestShipped:
    def test_regret_is_under_five_percent(self, name: str) -> None:
        report = shipped(name)
        assert report.seed == SEEDS[name]
        assert 0 <= report.regret < 0.05

    def test_every_job_is_answered_once(self, name: str) -> None:
        report = shipped(name)
        assert sum(group.jobs for group in report.groups) + report.failed_jobs == report.jobs
        assert report.failed_jobs <= report.jobs // 1000
        assert report.attempts == report.jobs + report.failed_attempts - report.failed_jobs
        assert sum(group.failed_attempts for group in report.groups) == report.failed_attempts
        assert sum(sum(second.values()) for second in report.sends) == report.attempts

    def test_the_report_is_plain_json(self, name: str) -> None:
        document = shipped(name).to_dict()
        assert document["scenario"] == name
        assert set(document["router"]["latency_s"]) == {"p50", "p90", "p99", "p99.9"}
        assert "sends" not in document


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    places = [{"name": "own", "count": 6, "outages": [{"kind": "down", "start_s": 2, "stop_s": 4, "share": 0.5}]}]
    scenario = table([*places, {"name": "far", "overhead_s": 0.2, "error_rate": 0.1}], 8, 100)
    one, same, other = (simulate(given, clock=lambda: 0.0) for given in (scenario, scenario, replace(scenario, seed=5)))
    assert one == same
    assert one.router != other.router


def table(places: list[dict[str, Any]], seconds: float, rate: float, **more: Any) -> Scenario:
    mix = [{"name": "m", "url": "https://cdn.example.com/", "bytes": {"median": 1e7, "sigma": 0.5}}]
    base = {"slots": 32, "overhead_s": 0.05, "bytes_per_s": 1e8, "sigma": 0.2}
    return parse_scenario({
        "jobs": int(seconds * rate), "rate_per_s": rate, "mix": mix, "places": [{**base, **place} for place in places],
        "publishers": {"count": 8, "phases": 4}, **more,
    })  # fmt: skip


def sent_to(report: Report, group: str, start_s: int, stop_s: int) -> float:
    """The share of the attempts that began in these seconds which went to a group."""
    seconds = report.sends[start_s:stop_s]
    return sum(second.get(group, 0) for second in seconds) / sum(sum(second.values()) for second in seconds)


def two(seconds: float = 70, **first: Any) -> Report:
    """``first`` is the better one until something befalls it."""
    first = {"name": "first", "count": 4, **first}
    return simulate(table([first, {"name": "second", "count": 4, "overhead_s": 0.08}], seconds, 60))


@pytest.mark.parametrize(("kind", "factor"), [("down", 1.0), ("slow", 8.0)])
def test_an_outage_moves_the_traffic_within_five_seconds(kind: str, factor: float) -> None:
    report = two(40, outages=[{"kind": kind, "start_s": 10, "stop_s": 100, "factor": factor}])
    assert sent_to(report, "first", 5, 10) > 0.8
    assert sent_to(report, "first", 15, 20) < 0.05
    assert sent_to(report, "first", 15, 40) < 0.1
    assert report.failed_jobs == 0


def test_one_that_answers_probes_and_fails_attempts_stays_shut_out() -> None:
    report = two(40, outages=[{"kind": "errors", "start_s": 10, "stop_s": 100}])
    assert sent_to(report, "first", 15, 40) < 0.1
    assert report.failed_jobs == 0


def test_silence_is_noticed_when_attempts_run_out_of_their_budget() -> None:
    report = two(40, outages=[{"kind": "hang", "start_s": 10, "stop_s": 100}])
    assert sent_to(report, "first", 20, 40) < 0.02
    assert report.failed_jobs < report.jobs * 0.02  # three in a row that say nothing are a whole deadline
    assert report.router.latency_s["p99.9"] > 5


def test_a_place_that_is_back_gets_its_traffic_slowly_and_then_all_of_it() -> None:
    report = two(outages=[{"kind": "down", "start_s": 10, "stop_s": 16}])
    early, later = sent_to(report, "first", 18, 30), sent_to(report, "first", 60, 70)
    assert early < 0.6 * later
    assert later > 0.8
    assert next(group.opened for group in report.groups if group.name == "first") >= 4


def test_a_change_of_prices_moves_the_traffic_once_the_fleet_is_told() -> None:
    report = two(30, price_changes=[{"at_s": 5, "prices": {"usd_per_request": 0.01}, "told_after_s": 10}])
    assert [sent_to(report, "first", *span) > 0.8 for span in ((0, 5), (5, 15), (17, 30))] == [True, True, False]
    assert sent_to(report, "first", 17, 30) == 0
    assert report.router.platform_usd > 0.01 > report.oracle.platform_usd


def test_what_is_declared_wrong_is_learnt() -> None:
    report = two(40, overhead_s=0.4, declared_overhead_s=0.001, declared_bytes_per_s=1e9)
    assert sent_to(report, "first", 0, 1) > 0.5
    assert sent_to(report, "first", 20, 40) < 0.1


@cache
def herd(counting: Counting) -> Report:
    """Two hundred publishers, and a burst, upon places that are alike but for the noise in what is learnt of them."""
    places = [
        {"name": "own", "count": 20, "slots": 16, "sigma": 0.25},
        {"name": "far", "slots": 1000, "overhead_s": 0.4},
    ]
    return simulate(
        table(
            places, 8, 1000, publishers={"count": 200, "phases": 10}, bursts=[{"start_s": 5, "stop_s": 7, "times": 2}]
        ),
        counting,
    )


@pytest.mark.integration  # two herds
def test_without_a_count_of_what_was_sent_they_would_herd() -> None:
    queues = {counting: herd(counting).longest_queue for counting in ("pace", "count", "none")}  # type: ignore[arg-type]
    assert queues["pace"] <= 40
    assert queues["none"] > 2 * queues["pace"]


def test_sharing_by_room_is_better_than_counting_alone() -> None:
    assert herd("pace").regret < herd("count").regret < herd("none").regret
    assert herd("pace").misroutes < herd("none").misroutes / 2


@pytest.mark.parametrize("seed", range(4))
def test_the_oracle_is_on_average_no_worse(seed: int) -> None:
    report = simulate(replace(scaled(load_scenario("herd"), 1500), seed=seed))
    assert report.oracle.score <= report.router.score * 1.001


def test_a_job_that_nothing_can_run_fails_and_costs_its_deadline() -> None:
    report = two(10, outages=[{"kind": "down", "start_s": 0, "stop_s": 1000}])
    assert report.failed_jobs == 0
    nowhere = {"kind": "down", "start_s": 0, "stop_s": 1000}
    alone = simulate(table([{"name": "only", "outages": [nowhere]}], 1, 20))
    assert alone.failed_jobs == alone.jobs
    assert alone.router.latency_s["p50"] == pytest.approx(30.0)
