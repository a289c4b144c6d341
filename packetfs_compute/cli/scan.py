"""``packetfs scan``: operations over a whole object, with a bar that shows how far they are."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.cli.params import OPERATION, POLICY, SIZE, local_file, policy_of
from packetfs_compute.cli.render import bytes_text, rate_text, seconds_text, usd_text
from packetfs_compute.cli.session import system_for
from packetfs_compute.cli.submit import check_consumers
from packetfs_compute.desk import Desk
from packetfs_compute.errors import Internal, PacketFSError, error_class
from packetfs_compute.names import SCANS_QUEUE
from packetfs_compute.scanning.request import accept_scan
from packetfs_compute.scanning.scanner import scan_here
from packetfs_compute.settings import Settings, load_settings

__all__ = ["scan"]

_PATIENCE_S: Final = 3.0
"""After this wait for it to begin, see whether anybody runs scans at all."""
_LOOK_EVERY_S: Final = 0.1

_Show = Callable[[Mapping[str, Any]], None]


@click.command(short_help="Operations over a whole object, split over all places.")
@click.argument("source")
@click.option("--op", "ops", type=OPERATION, multiple=True, required=True, help="crc32c, counteq:10 … (repeatable)")
@click.option("--window", type=SIZE, help="Bytes of one job: 8MiB.  [default: by how fast the places are]")
@click.option("--offset", type=SIZE, default=0, show_default=True, help="First byte of the range: 4096, 8MiB.")
@click.option("--length", type=SIZE, help="Bytes in the range.  [default: to the end]")
@click.option("--etag", help="Compute only on this version, such as '\"abc\"'.")
@click.option(
    "--policy", type=POLICY, multiple=True, help="KEY=VALUE (repeatable) or JSON, for all of it: max_cost_usd=1."
)
@click.option(
    "--append-only", is_flag=True, help="The object only ever grows at its end: read no more of it than is new."
)
@click.option("--inline", is_flag=True, help="Compute in this process, with no broker.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def scan(
    source: str,
    ops: tuple[dict[str, Any], ...],
    window: int | None,
    policy: tuple[dict[str, Any], ...],
    append_only: bool,
    inline: bool,
    as_json: bool,
    **span: Any,
) -> None:
    """Run operations over all of SOURCE: a URL, s3://bucket/key, or a local path.

    It is split into windows, which run on all places at once, and what they give is combined exactly. Ctrl-C cancels it. The
    values go to stdout, the rest to stderr.

    \b
    packetfs scan https://host/object --op crc32c
    packetfs scan s3://bucket/key --op crc32c --op counteq:10 --policy max_cost_usd=0.50
    packetfs scan ./disk.img --op fnv64 --inline
    """
    settings, path = load_settings(), local_file(source)
    if path is not None:  # what is started here may read what the user names
        settings = replace(settings, file_roots=(*settings.file_roots, path.parent))
    program = {"data_url": source if path is None else str(path), "ops": list(ops), **span}
    wishes = policy_of((*policy, {"append_only": True}) if append_only else policy)
    asked = accept_scan("scan", program, wishes, window)  # so that a mistake is told at once
    with interruptible(), _bar() as show:
        if inline:
            result: Mapping[str, Any] = scan_here(asked, settings, show)
        else:
            result = _submit_and_wait(settings, program, window, wishes, show)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo("\n".join(_values(result)))
        click.echo(_details(result), err=True)


def _submit_and_wait(
    settings: Settings, program: Mapping[str, Any], window: int | None, policy: Mapping[str, Any] | None, show: _Show
) -> Mapping[str, Any]:
    """Run a scan on the system at hand and return its result; raise what it ended with. Who interrupts it cancels it."""
    with system_for(settings, scans=True) as session, closing(session.desk()) as desk:
        job_id = str(uuid.uuid4())
        try:
            desk.submit_scan(job_id, program, window, policy)
            return _result(desk, job_id, show)
        except KeyboardInterrupt:
            with suppress(PacketFSError):
                desk.cancel(job_id)
            raise


def _result(desk: Desk, job_id: str, show: _Show) -> Mapping[str, Any]:
    look_s: float | None = time.monotonic() + _PATIENCE_S
    while True:
        status = desk.status(job_id)
        if status is None:
            raise Internal("the scan is not known any more", {"job_id": job_id})
        if status["result"] is not None:
            return status["result"]
        error = status["error"]
        if error is not None:
            details = {name: value for name, value in error.items() if name not in ("type", "message")}
            raise error_class(error["type"])(error["message"], {"job_id": job_id, **details})
        if "progress" in status:
            show(status["progress"])
            look_s = None
        elif look_s is not None and time.monotonic() > look_s and status["status"] == "queued":
            check_consumers(SCANS_QUEUE)
            look_s = None
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _bar() -> Iterator[_Show]:
    """Yield what shows a scan's progress at a terminal, and nothing elsewhere."""
    columns = (
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[usd]}"),
    )
    console = Console(stderr=True)
    # A terminal that cannot move its cursor would get a line for each look.
    able = console.is_terminal and not console.is_dumb_terminal
    with Bar(*columns, console=console, transient=True, disable=not able) as bar:
        task = bar.add_task("", total=None, usd="")

        def show(told: Mapping[str, Any]) -> None:
            bar.update(task, total=told["bytes_total"], completed=told["bytes_done"], usd=usd_text(told["cost_usd"]))

        yield show


def _values(result: Mapping[str, Any]) -> list[str]:
    """Return the value of a single operation as it is, each of several after its operation."""
    results = result["results"]
    if len(results) == 1:
        return [str(results[0]["value"])]
    names = [one["op"] if "imm" not in one else f"{one['op']}:{one['imm']}" for one in results]
    return [f"{name} {one['value']}" for name, one in zip(names, results, strict=True)]


def _details(result: Mapping[str, Any]) -> str:
    count, total_s = result["bytes_processed"], result["timing"]["total_s"]
    shares = sorted(result["substrates"].items(), key=lambda share: -share[1])
    if result["cached"]:
        places = ", ".join(name for name, _ in shares)
        return f"{bytes_text(count)} from the cache, computed before on {places}; {seconds_text(total_s)}, nothing was read"
    places = ", ".join(f"{name} {bytes_text(share)}" for name, share in shares) or "nowhere"
    failed = sum(1 for attempt in result["attempts"] if not attempt["ok"])
    windows = result["windows"]
    return (
        f"{bytes_text(count)} in {windows} window{'' if windows == 1 else 's'} on {places}, "
        f"{seconds_text(total_s)} ({rate_text(count, total_s)} MB/s), {usd_text(result['cost_usd'])}"
        + (f", {bytes_text(result['cached_bytes'])} from the cache" if result["cached_bytes"] else "")
        + (f", appended to {result['appended_to']}" if result["appended_to"] else "")
        + (f", {failed} attempts failed" if failed else "")
        + (f"; nothing of an earlier version was used: {result['anew']}" if result["anew"] else "")
        + ("" if result["pinned"] else "; the source names no version: nothing proves that all of it is of one")
    )
