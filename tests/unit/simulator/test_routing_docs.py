"""The tables of docs/routing.md are what the code says, and its runs are of the scenarios that are shipped."""

from pathlib import Path

import pytest

from packetfs_compute.routing import (
    Capabilities,
    Decision,
    Policy,
    Snapshot,
    Wanted,
    decide,
    locality,
    survey,
    unmeasured,
)
from packetfs_compute.routing.prices import FLY, LAMBDA_ARM64, WORKERS
from packetfs_compute.simulator import load_scenario, shipped

DOCS = (Path(__file__).parents[3] / "docs" / "routing.md").read_text("utf-8")

_WEB = frozenset({"http", "https"})
PLACES = (
    Capabilities("local", "own", 16_384, 1 << 45, 3600.0, _WEB, overhead_s=0.002, bytes_per_s=1.25e7, slots=8),
    Capabilities("lambda", "own", 1769, 1 << 45, 900.0, _WEB, provider="aws", region="us-east-1", overhead_s=0.05,
                 bytes_per_s=9e7, prices=LAMBDA_ARM64, slots=1000),
    Capabilities("cloudflare", "own", 128, 1 << 45, 900.0, _WEB, provider="cloudflare", overhead_s=0.03,
                 bytes_per_s=6e7, prices=WORKERS, slots=200),
    Capabilities("fly", "own", 256, 1 << 45, 300.0, _WEB, provider="fly", overhead_s=0.05, bytes_per_s=1e8, prices=FLY,
                 slots=25),
)  # fmt: skip
SOURCES = {
    "S3 us-east-1": "https://b.s3.us-east-1.amazonaws.com/o",
    "GCS": "https://storage.googleapis.com/b/o",
    "R2": "https://b.r2.cloudflarestorage.com/o",
    "own CDN": "https://cdn.example.com/o",
}
SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20, "1 GiB": 1 << 30}
GOALS = ("cheapest", "balanced", "fastest")


def chosen(url: str, byte_count: int, goal: str) -> Decision:
    fleet = survey(Snapshot(unmeasured(PLACES).members, 0.0), 0.0)
    return decide(Wanted(byte_count, "https", locality(url)), Policy(goal=goal), fleet, lambda: 0.0)  # type: ignore[arg-type]


def policy_table() -> str:
    lines = ["| object in | size | " + " | ".join(GOALS) + " |", "|---|--:|" + "---|" * len(GOALS)]
    for source, url in SOURCES.items():
        for size, byte_count in SIZES.items():
            cells = []
            for goal in GOALS:
                row = chosen(url, byte_count, goal).chosen
                assert row is not None
                cells.append(f"{row.substrate}, ${row.usd:.2g}, {row.seconds:.3g} s")
            lines.append(f"| {source} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_what_each_goal_picks() -> None:
    assert policy_table() in DOCS, f"put this into docs/routing.md:\n\n{policy_table()}"


@pytest.mark.parametrize("name", shipped())
def test_the_runs_are_of_the_scenarios_that_are_shipped(name: str) -> None:
    scenario = load_scenario(name)
    assert f"{scenario.title} (seed {scenario.seed})" in DOCS
    assert f"{scenario.jobs:,} jobs, seed {scenario.seed}: " in DOCS
    assert f"{scenario.places:,} places, {scenario.publishers.count:,} publishers" in DOCS
