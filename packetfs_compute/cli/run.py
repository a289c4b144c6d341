"""``packetfs run``: one operation over one range."""

import json
from dataclasses import replace
from typing import Any

import click

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.cli.params import OPERATION, POLICY, SIZE, local_file, policy_of
from packetfs_compute.cli.render import result_lines
from packetfs_compute.dispatch import accept_job, run_job
from packetfs_compute.names import LOCAL
from packetfs_compute.result import op_result
from packetfs_compute.settings import Settings, load_settings

__all__ = ["run"]


@click.command(
    short_help="One operation over one range.",
    epilog="An OP that takes a byte is written with it: counteq:10, or counteq --imm 10.",
)
@click.argument("op", type=OPERATION)
@click.argument("source")
@click.option("--imm", type=int, help="The operation's byte, 0 to 255 (counteq, xor, add).")
@click.option("--seed", help="The running value to start from, 16 hex digits (fnv64).")
@click.option("--offset", type=SIZE, default=0, show_default=True, help="First byte of the range: 4096, 8MiB.")
@click.option("--length", type=SIZE, help="Bytes in the range.  [default: to the end]")
@click.option("--etag", help="Compute only on this version, such as '\"abc\"'.")
@click.option("--policy", type=POLICY, multiple=True, help="KEY=VALUE (repeatable) or JSON: deadline_s=5.")
@click.option("--inline", is_flag=True, help="Compute in this process, with no broker.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def run(
    op: dict[str, Any],
    source: str,
    imm: int | None,
    seed: str | None,
    offset: int,
    length: int | None,
    etag: str | None,
    policy: tuple[dict[str, Any], ...],
    inline: bool,
    as_json: bool,
) -> None:
    """Run the operation OP over a range of SOURCE: a URL, s3://bucket/key, or a local path.

    The value goes to stdout, the rest to stderr.

    \b
    packetfs run crc32c https://host/object
    packetfs run crc32c https://host/object --offset 1GiB --length 64MiB --json
    packetfs run counteq:10 ./log.txt --inline          # count the lines
    """
    one = {**op, **{key: value for key, value in (("imm", imm), ("seed", seed)) if value is not None}}
    settings, url = _readable(load_settings(), source)
    raw = {"data_url": url, "offset": offset, "length": length, "etag": etag, **one}
    wanted = policy_of(policy)
    # Validated before anything is started, so that a mistake is told at once.
    job = accept_job("inline", raw, wanted)
    with interruptible():
        if inline:
            result = op_result(run_job(job, LOCAL, settings))
        else:
            from packetfs_compute.cli.submit import submit_and_wait  # noqa: PLC0415  (inline need not load Celery)

            result = submit_and_wait(settings, raw, wanted)
    if as_json:
        click.echo(json.dumps(result))
    else:
        value, details = result_lines(result)
        click.echo(value)
        click.echo(details, err=True)


def _readable(settings: Settings, source: str) -> tuple[Settings, str]:
    """Return the source as a URL or absolute path; what is started here may read where the user names a file."""
    path = local_file(source)
    if path is None:
        return settings, source
    return replace(settings, file_roots=(*settings.file_roots, path.parent)), str(path)
