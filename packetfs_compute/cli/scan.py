"""``packetfs scan``: operations over a whole object, with a bar that shows how far they are."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click

from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.cli.params import OPERATION, POLICY, SIZE, local_file, policy_of
from packetfs_compute.cli.render import bytes_text, rate_text, seconds_text, usd_text
from packetfs_compute.scanning.request import accept_scan
from packetfs_compute.settings import load_settings

__all__ = ["scan"]

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
            from packetfs_compute.scanning.here import scan_here  # noqa: PLC0415  (who submits need not load what reads)

            result: Mapping[str, Any] = scan_here(asked, settings, show)
        else:
            from packetfs_compute.cli.submit_scan import submit_scan_and_wait  # noqa: PLC0415  (inline submits nothing)

            result = submit_scan_and_wait(settings, program, window, wishes, show)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo("\n".join(_values(result)))
        click.echo(_details(result), err=True)


@contextmanager
def _bar() -> Iterator[_Show]:
    """Yield what shows a scan's progress at a terminal, and nothing elsewhere."""
    # A terminal that cannot move its cursor would get a line for each look.
    if sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
        from packetfs_compute.cli.bar import bar  # noqa: PLC0415  (rich takes longer to load than some scans do)

        with bar() as show:
            yield show
    else:
        yield lambda _: None


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
