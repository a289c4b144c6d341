"""Scenario files: the shipped ones, and that a wrong one is told by field and fix."""

import copy
from pathlib import Path
from typing import Any

import pytest

from packetfs_compute.errors import ConfigurationError
from packetfs_compute.routing.prices import FLY, LAMBDA_ARM64
from packetfs_compute.simulator import load_scenario, parse_scenario, scaled, shipped

LEAST: dict[str, Any] = {
    "jobs": 10,
    "rate_per_s": 1,
    "mix": [{"name": "m", "url": "https://cdn.example.com/", "bytes": {"median": 1e6}}],
    "places": [{"name": "p", "slots": 2, "overhead_s": 0.1, "bytes_per_s": 1e8}],
}


def test_the_least_scenario_has_sane_defaults() -> None:
    scenario = parse_scenario(LEAST, "least")
    assert (scenario.name, scenario.title, scenario.seed, scenario.places) == ("least", "least", 1, 1)
    assert (scenario.publishers.count, scenario.publishers.refresh_s, scenario.wave, scenario.bursts) == (
        1,
        1,
        None,
        (),
    )
    (group,) = scenario.groups
    assert (group.slots, group.declared.overhead_s, group.declared.bytes_per_s) == (2, 0.1, 1e8)


def test_what_is_declared_may_differ_from_the_truth() -> None:
    table = copy.deepcopy(LEAST)
    table["places"][0] |= {"declared_bytes_per_s": 5e8, "prices": "lambda_arm64", "count": 3}
    table["places"][0]["price_changes"] = [
        {"at_s": 9, "prices": "own"},
        {"at_s": 4, "prices": "fly", "told_after_s": 2},
    ]
    (group,) = parse_scenario(table).groups
    assert (group.bytes_per_s, group.declared.bytes_per_s) == (1e8, 5e8)
    assert group.declared.prices == LAMBDA_ARM64
    assert [(change.at_s, change.told_after_s) for change in group.price_changes] == [(4, 2), (9, 0)]
    assert group.price_changes[0].prices == FLY


def _with(path: str, value: object) -> dict[str, Any]:
    table = copy.deepcopy(LEAST)
    *way, last = path.split(".")
    at: Any = table
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    at[last] = value
    return table


OUTAGE = {"kind": "down", "start_s": 1, "stop_s": 2}


@pytest.mark.parametrize(
    ("path", "value", "field", "hint"),
    [
        ("jbos", 1, "s.jbos", "known are"),
        ("jobs", 0, "s.jobs", "from 1 to"),
        ("jobs", "many", "s.jobs", "from 1 to"),
        ("mix", [], "s.mix", "at least one"),
        ("mix", {}, "s.mix", "at least one"),
        ("mix.0.url", "ftp://x/", "s.mix[0].url", "begins with"),
        ("mix.0.weight", 0, "s.mix[0].weight", "from 1e-06"),
        ("mix.0.bytes", 5, "s.mix[0].bytes", "give a table"),
        ("mix.0.bytes.median", -1, "s.mix[0].bytes.median", "from 1 to"),
        ("mix.0.bytes", {"sigma": 1}, "s.mix[0].bytes.median", "add it"),
        ("mix.0.policy", {"goal": "best"}, "s.mix[0].policy.goal", "use one of"),
        ("mix.0.policy", {"max_cost_usd": 1}, "s.mix[0].policy.max_cost_usd", "leave it out"),
        ("places.0.slots", 0, "s.places[0].slots", "from 1 to"),
        ("places.0.prices", "cheap", "s.places[0].prices", "one of own, workers"),
        ("places.0.prices", {"usd": 1}, "s.places[0].prices.usd", "known are usd_per_request"),
        ("places.0.outages", [{**OUTAGE, "kind": "fire"}], "s.places[0].outages[0].kind", "down, hang"),
        ("places.0.outages", [{**OUTAGE, "stop_s": 1}], "s.places[0].outages[0].stop_s", "after start_s"),
        ("places.0.outages", [{**OUTAGE, "kind": "slow"}], "s.places[0].outages[0].factor", "above 1"),
        ("places.0.outages", [{**OUTAGE, "kind": "errors", "factor": 2}], "s.places[0].outages[0].factor", "0 to 1"),
        ("places.0.price_changes", [{"at_s": 1}], "s.places[0].price_changes[0].prices", "add it"),
        ("publishers", {"count": 0}, "s.publishers.count", "from 1 to"),
        ("bursts", [{"start_s": 5, "stop_s": 1, "times": 2}], "s.bursts[0].stop_s", "after start_s"),
        ("wave", {"period_s": 10, "amplitude": 2}, "s.wave.amplitude", "from 0 to 0.95"),
    ],
)
def test_an_error_names_field_and_fix(path: str, value: object, field: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_scenario(_with(path, value), "s")
    assert caught.value.details["field"] == field
    assert hint in str(caught.value.hint)
    assert field in caught.value.message


@pytest.mark.parametrize("missing", ["jobs", "rate_per_s", "mix", "places"])
def test_what_is_needed_is_missed(missing: str) -> None:
    table = {key: value for key, value in LEAST.items() if key != missing}
    with pytest.raises(ConfigurationError, match="is missing"):
        parse_scenario(table)


@pytest.mark.parametrize("name", ["mix", "places"])
def test_names_are_told_apart(name: str) -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        parse_scenario({**LEAST, name: LEAST[name] * 2})


def test_shipped_ones_load_by_bare_name_and_others_by_path(tmp_path: Path) -> None:
    assert shipped() == ["herd", "internet", "outage"]
    assert load_scenario("internet").places >= 2000
    assert load_scenario("internet").jobs == 1_000_000
    assert load_scenario("herd").publishers.count >= 200
    path = tmp_path / "mine.toml"
    path.write_text(
        'jobs = 1\nrate_per_s = 1\n[[mix]]\nname = "m"\nurl = "https://a/"\nbytes = { median = 1 }\n'
        '[[places]]\nname = "p"\nslots = 1\noverhead_s = 1\nbytes_per_s = 1\n'
    )
    assert load_scenario(str(path)).name == "mine"


def test_a_file_that_is_not_there_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_scenario("intranet")
    assert "herd, internet, outage" in str(caught.value.hint)
    (tmp_path / "bad.toml").write_text("jobs = ")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_scenario(str(tmp_path / "bad.toml"))


def test_scaling_keeps_time_and_the_load_of_a_place() -> None:
    whole = load_scenario("internet")
    part = scaled(whole, whole.jobs // 10)
    assert scaled(whole, whole.jobs) is whole
    assert part.jobs / part.rate_per_s == pytest.approx(whole.jobs / whole.rate_per_s)
    counts = {group.name: group.count for group in part.groups}
    assert (counts["rack"], counts["colo"], counts["fly"], counts["lambda-us-east-1"]) == (60, 33, 16, 1)
