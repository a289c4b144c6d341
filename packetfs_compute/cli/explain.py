"""``packetfs explain``: where a job would run and why, with nothing run."""

import json
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packetfs_compute.celery import router_of
from packetfs_compute.cli.job_options import Asked, job_options
from packetfs_compute.cli.render import bytes_text, console_width, seconds_text, usd_text
from packetfs_compute.errors import BrokerUnavailable, NoSubstrate
from packetfs_compute.job import accept_job
from packetfs_compute.names import task_of
from packetfs_compute.router import wanted_of
from packetfs_compute.routing import Candidate, Decision, Wanted
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
    policy = accept_job("explain", job.program, job.policy).policy
    router = router_of(job.settings)
    try:
        router.refresh()
        measured = True
    except BrokerUnavailable:
        measured = False
    _, wanted = wanted_of(task_of(job.program["op"]), (), job.arguments, job.settings)
    started = time.perf_counter()
    decision = router.decide(wanted, policy)
    took_s = time.perf_counter() - started
    if as_json:
        click.echo(json.dumps(_document(decision, wanted, measured)))
    else:
        _print(decision, wanted, policy.goal, measured, took_s)
    if decision.substrate is None:
        raise NoSubstrate("policy leaves no place to run", {"field": "policy", "vetoes": decision.vetoes})


def _document(decision: Decision, wanted: Wanted, measured: bool) -> dict[str, Any]:
    return {
        "substrate": decision.substrate,
        "panic": decision.panic,
        "measured": measured,
        "byte_count": wanted.byte_count,
        "candidates": [row._asdict() for row in decision.candidates],
    }


def _print(decision: Decision, wanted: Wanted, goal: str, measured: bool, took_s: float) -> None:
    size = (
        f"{bytes_text(UNKNOWN_BYTES)} (the length is not given)"
        if wanted.byte_count is None
        else bytes_text(wanted.byte_count)
    )
    basis = "the fleet's health" if measured else "what substrates declare (no Redis answers)"
    table = Table(title=f"{goal} over {size}, by {basis}", title_justify="left")
    table.add_column("substrate", no_wrap=True)
    for name in ("wait", "run", "price", "egress", "success", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in sorted(decision.candidates, key=lambda row: (row.veto is not None, row.score)):
        table.add_row(*_cells(row, row.substrate == decision.substrate))
    Console(width=console_width()).print(table)
    note = "every place is unwell: the least bad is used; " if decision.panic else ""
    click.echo(f"{note}decided in {took_s * 1e6:.0f} us", err=True)


def _cells(row: Candidate, winner: bool) -> list[str | Text]:
    verdict = Text("runs here", "bold green") if winner else Text(row.veto or "", "red")
    cells = [
        row.substrate, seconds_text(row.wait_s), seconds_text(row.run_s), usd_text(row.usd), usd_text(row.egress_usd),
        f"{row.success:.0%}", f"{row.score:.3g}",
    ]  # fmt: skip
    return [*cells, verdict]
