"""``packetfs simulate``: how well routing does in a fleet that need not exist, against one who knows the future."""

import json
import sys
from dataclasses import replace
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from packetfs_compute import simulator
from packetfs_compute.cli.render import seconds_text
from packetfs_compute.simulator import Report

__all__ = ["simulate"]

_SHOWN_SHARE: Final = 0.0005


@click.command(short_help="Try routing on a fleet that need not exist.")
@click.argument("scenario")
@click.option("--jobs", type=click.IntRange(1), help="At another size: so many jobs, and places to match.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the scenario's own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def simulate(scenario: str, jobs: int | None, seed: int | None, as_json: bool) -> None:
    """Run SCENARIO, a TOML file or the name of one that is shipped: internet, outage, herd.

    Discrete events over the very functions that route jobs in earnest. What comes of it is compared with an oracle that
    knows every attempt's time, every outage and every queue beforehand. The same seed gives the same numbers.
    """
    given = simulator.load_scenario(scenario)
    given = given if jobs is None else simulator.scaled(given, jobs)
    given = given if seed is None else replace(given, seed=seed)
    click.echo(f"{given.title}: {given.jobs:,} jobs over {given.places:,} places, seed {given.seed}", err=True)
    report = simulator.simulate(given)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        _print(report)


def _print(report: Report) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_sides(report), _groups(report))
    for line in _lines(report):
        click.echo(line)


def _lines(report: Report) -> list[str]:
    kinds = ", ".join(f"{kind} {regret:.2%}" for kind, regret in sorted(report.regret_by_kind.items()))
    share, cost = f"{report.misroute_share:.2%}", f"{report.misroute_regret:.2%}"
    ran = f"{report.simulated_s:,.0f} s simulated in {report.wall_s:.1f} s"
    return [
        f"regret {report.regret:.2%} of the oracle's score ({kinds})",
        f"misroutes {report.misroutes:,}, {share} of the jobs; they cost {cost} of the oracle's score",
        f"attempts {report.attempts:,}, of which failed {report.failed_attempts:,}; failovers {report.failovers:,}",
        f"moved on by a consumer {report.moves:,}; failed for good {report.failed_jobs:,}",
        f"longest queue {report.longest_queue:,}; {report.places:,} places, {report.publishers:,} publishers",
        f"{report.jobs:,} jobs, seed {report.seed}: {ran}",
    ]


def _sides(report: Report) -> Table:
    table = Table(title=f"{report.title} (seed {report.seed})", title_justify="left")
    columns = ("", "platforms", "egress", "cost", *report.router.latency_s, "score")
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, side in (("router", report.router), ("oracle", report.oracle)):
        table.add_row(
            name,
            *(f"${usd:,.4f}" for usd in (side.platform_usd, side.egress_usd, side.usd)),
            *(seconds_text(seconds) for seconds in side.latency_s.values()),
            f"{side.score:,.3f}",
        )
    return table


def _groups(report: Report) -> Table:
    table = Table(title="Where the jobs ran", title_justify="left")
    for name in ("places", "count", "jobs", "share", "oracle", "failed attempts", "breakers opened"):
        table.add_column(name, justify="left" if name == "places" else "right", no_wrap=True)
    for group in report.groups:
        if max(group.share, group.oracle_share) >= _SHOWN_SHARE or group.failed_attempts:
            table.add_row(
                group.name,
                f"{group.places:,}",
                f"{group.jobs:,}",
                f"{group.share:.1%}",
                f"{group.oracle_share:.1%}",
                f"{group.failed_attempts:,}",
                f"{group.opened:,}",
            )
    return table
