"""``packetfs explain``: where a job would run and why, with nothing run."""

import json
from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packetfs_compute.cli.job_options import Asked, job_options
from packetfs_compute.cli.render import bytes_text, console_width, seconds_text, usd_text
from packetfs_compute.errors import NoSubstrate
from packetfs_compute.overview import Explained, explained
from packetfs_compute.routing import Candidate
from packetfs_compute.routing.decide import UNKNOWN_BYTES
from packetfs_compute.settings import Settings, load_settings

__all__ = ["explain"]


@click.command(short_help="Where a job would run, and why; nothing is run.")
@job_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def explain(asked: Callable[[Settings], Asked], as_json: bool) -> None:
    """Print the decision that the router makes for OP over a range of SOURCE: every candidate, and the winner.

    Takes the words of `packetfs run`. The fleet's health is read from the Redis in the settings; where none answers, the
    decision is by what the substrates declare, as it is for a publisher that has seen no snapshot yet.

    \b
    packetfs explain crc32c s3://bucket/key --length 1GiB --policy goal=cheapest
    """
    job = asked(load_settings())
    told = explained(job.program, job.policy, job.settings)
    if as_json:
        click.echo(json.dumps(told.document()))
    else:
        _print(told)
    if told.decision.substrate is None:
        raise NoSubstrate("policy leaves no place to run", {"field": "policy", "vetoes": told.decision.vetoes})


def _print(told: Explained) -> None:
    decision, byte_count = told.decision, told.wanted.byte_count
    size = f"{bytes_text(UNKNOWN_BYTES)} (the length is not given)" if byte_count is None else bytes_text(byte_count)
    basis = "the fleet's health" if told.measured else "what substrates declare (no Redis answers)"
    table = Table(title=f"{told.policy.goal} over {size}, by {basis}", title_justify="left")
    table.add_column("substrate", no_wrap=True)
    for name in ("wait", "run", "price", "egress", "success", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in sorted(decision.candidates, key=lambda row: (row.veto is not None, row.score)):
        table.add_row(*_cells(row, row.substrate == decision.substrate))
    Console(width=console_width()).print(table)
    note = "every place is unwell: the least bad is used; " if decision.panic else ""
    click.echo(f"{note}decided in {told.took_s * 1e6:.0f} us", err=True)


def _cells(row: Candidate, winner: bool) -> list[str | Text]:
    verdict = Text("runs here", "bold green") if winner else Text(row.veto or "", "red")
    cells = [
        row.substrate, seconds_text(row.wait_s), seconds_text(row.run_s), usd_text(row.usd), usd_text(row.egress_usd),
        f"{row.success:.0%}", f"{row.score:.3g}",
    ]  # fmt: skip
    return [*cells, verdict]
