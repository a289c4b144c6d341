"""``packetfs simulate``: its table, its document, its options, and a scenario that is none."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from packetfs_compute.cli.simulate import simulate
from packetfs_compute.errors import ConfigurationError

SMALL = """
title = "Small"
seed = 3
jobs = 200
rate_per_s = 50
[[mix]]
name = "m"
url = "https://cdn.example.com/"
bytes = { median = 1e6, sigma = 0.5 }
[[places]]
name = "one"
count = 2
slots = 4
overhead_s = 0.05
bytes_per_s = 1e8
[[places]]
name = "two"
slots = 4
overhead_s = 0.2
bytes_per_s = 1e8
prices = "fly"
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


def run(*arguments: str) -> tuple[str, str]:
    done = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout, done.stderr


def test_the_table_says_what_came_of_it_and_the_seed(scenario: str) -> None:
    out, err = run(scenario)
    for told in ("Small (seed 3)", "router", "oracle", "p99.9", "one", "regret", "misroutes", "200 jobs, seed 3"):
        assert told in out
    assert err == "Small: 200 jobs over 3 places, seed 3\n"


def test_json_is_one_document_and_the_same_for_the_same_seed(scenario: str) -> None:
    one, same = (json.loads(run(scenario, "--json")[0]) for _ in range(2))
    assert one.pop("wall_s") > 0
    del same["wall_s"]
    assert one == same
    assert (one["scenario"], one["seed"], one["jobs"], one["places"]) == ("small", 3, 200, 3)
    assert [group["name"] for group in one["groups"]] == ["one", "two"]
    assert one["regret"] == pytest.approx(one["router"]["score"] / one["oracle"]["score"] - 1)


def test_jobs_and_seed_may_be_others(scenario: str) -> None:
    document = json.loads(run(scenario, "--json", "--jobs", "100", "--seed", "8")[0])
    assert (document["jobs"], document["seed"]) == (100, 8)


def test_a_shipped_one_has_a_bare_name() -> None:
    assert json.loads(run("herd", "--jobs", "200", "--json")[0])["scenario"] == "herd"


def test_what_is_no_scenario_is_told() -> None:
    with pytest.raises(ConfigurationError, match="there is no scenario nowhere"):
        run("nowhere")
