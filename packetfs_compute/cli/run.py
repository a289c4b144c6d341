"""``packetfs run``: one operation over one range."""

import json
from collections.abc import Callable

import click

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.cli.job_options import Asked, job_options
from packetfs_compute.cli.render import result_lines
from packetfs_compute.dispatch import Dispatcher
from packetfs_compute.fleet import FleetChooser, StubFleet
from packetfs_compute.job import accept_job
from packetfs_compute.names import LOCAL
from packetfs_compute.result import JobResult, op_result
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.substrates import load_substrate

__all__ = ["run"]


@click.command(
    short_help="One operation over one range.",
    epilog="An OP that takes a byte is written with it: counteq:10, or counteq --imm 10.",
)
@job_options
@click.option("--inline", is_flag=True, help="Compute in this process, with no broker.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def run(asked: Callable[[Settings], Asked], inline: bool, as_json: bool) -> None:
    """Run the operation OP over a range of SOURCE: a URL, s3://bucket/key, or a local path.

    The value goes to stdout, the rest to stderr.

    \b
    packetfs run crc32c https://host/object
    packetfs run crc32c https://host/object --offset 1GiB --length 64MiB --json
    packetfs run crc32c s3://bucket/key --policy goal=cheapest --policy max_cost_usd=0.01
    packetfs run counteq:10 ./log.txt --inline          # count the lines
    """
    job = asked(load_settings())
    # Validated before anything is started, so that a mistake is told at once.
    accept_job("inline", job.program, job.policy)
    with interruptible():
        if inline:
            result = op_result(_run_inline(job))
        else:
            from packetfs_compute.cli.submit import submit_and_wait  # noqa: PLC0415  (inline need not load Celery)

            result = submit_and_wait(job)
    if as_json:
        click.echo(json.dumps(result))
    else:
        value, details = result_lines(result)
        click.echo(value)
        click.echo(details, err=True)


def _run_inline(asked: Asked) -> JobResult:
    """Make every attempt in this process, on the one place that it is."""
    fleet = StubFleet([load_substrate(LOCAL, asked.settings).capabilities])
    dispatcher = Dispatcher(asked.settings, fleet, FleetChooser(fleet))
    return dispatcher.run_here(accept_job("inline", asked.program, asked.policy), LOCAL)
