"""``packetfs verify``: whether objects are what they should be, with none of them downloaded here."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from packetfs_compute.cli.computing import Computing
from packetfs_compute.cli.interrupt import interruptible
from packetfs_compute.cli.params import POLICY, local_file, policy_of
from packetfs_compute.cli.render import seconds_text, usd_text
from packetfs_compute.cli.session import system_for
from packetfs_compute.deadline import Deadline, Token, cancelled_by
from packetfs_compute.errors import ConfigurationError
from packetfs_compute.routing import parse_policy
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.sources import RangeRequest, open_source
from packetfs_compute.sources.declared import Declared, declared
from packetfs_compute.verifying import (
    Check,
    Row,
    Verifier,
    open_report,
    parse_check,
    read_manifest,
    verify_all,
)
from packetfs_compute.verifying.check import Status, Wrong
from packetfs_compute.verifying.verify import Facts

__all__ = ["verify"]

_LOOK_S: Final = 10.0
"""How long a source may take to say what it knows of an object."""
_STATUSES: Final[tuple[Status, ...]] = ("match", "mismatch", "undeclared", "failed")


@click.command(
    short_help="Whether objects are what they should be.",
    epilog="Exit code: 0 when all match, 1 when any does not or cannot be verified, 2 for bad usage.",
)
@click.argument("source", required=False)
@click.option("--crc32c", help="The CRC-32C that it should have, 8 hexadecimal digits.")
@click.option("--fnv64", help="The FNV-1a 64 that it should have, 16 hexadecimal digits.")
@click.option("--against", metavar="SOURCE", help="The other one that it should be equal to.")
@click.option("--declared", "by_store", is_flag=True, help="Against the CRC-32C that its store declares (the default).")
@click.option("--size", type=click.IntRange(min=0), help="The size in bytes that it should have, besides.")
@click.option("--strict", is_flag=True, help="Compare mirrors by FNV-1a 64 too, which must read them in order.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Many checks: JSON Lines, or CSV in a .csv file.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="What came of them: .jsonl, .json or .csv; gone on with."
)
@click.option("--concurrency", type=click.IntRange(1, 64), default=8, show_default=True, help="Objects at once.")
@click.option("--policy", type=POLICY, multiple=True, help="KEY=VALUE (repeatable) or JSON, of each job.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(
    source: str | None,
    crc32c: str | None,
    fnv64: str | None,
    against: str | None,
    by_store: bool,
    size: int | None,
    strict: bool,
    manifest: Path | None,
    report: Path | None,
    concurrency: int,
    policy: tuple[dict[str, Any], ...],
    as_json: bool,
) -> None:
    """Verify the object at SOURCE (a URL, s3://bucket/key, a local path), or all that a manifest names.

    The bytes are read where jobs run, never here. A manifest's line has source, one of crc32c, fnv64 and against (none:
    what the store declares), and size where that is known. Its report is written as checks are made; run again, what
    matched is not verified again.

    \b
    packetfs verify s3://bucket/key                                  what S3 or GCS declares
    packetfs verify https://host/object --crc32c 8a9136aa
    packetfs verify https://mirror/object --against https://host/object
    packetfs verify --manifest objects.csv --report report.jsonl
    """
    # What is known already would say nothing of what the store holds now.
    settings, wishes = load_settings(), {"cache": False, **(policy_of(policy) or {})}
    parse_policy(wishes)
    expected = {"crc32c": crc32c, "fnv64": fnv64, "against": against, "size": size}
    given = ["SOURCE"] if source is not None else []
    given += [f"--{name}" for name, value in expected.items() if value is not None]
    verifying = partial(_verifier, wishes=wishes, strict=strict)
    if manifest is not None:
        _refuse_beside("--manifest", [*given, *(["--declared"] if by_store else [])], "write it into the manifest")
        if report is None:
            raise ConfigurationError("a manifest needs a report", {"field": "--report", "hint": "name report.jsonl"})
        matched = _many(manifest, report, partial(verifying, settings), concurrency, as_json=as_json)
    elif source is None:
        raise ConfigurationError(
            "nothing to verify is named", {"field": "SOURCE", "hint": "give SOURCE, or --manifest FILE --report FILE"}
        )
    else:
        if report is not None:
            raise ConfigurationError("--report is of a manifest", {"field": "--report", "hint": "use --json"})
        if by_store:
            _refuse_beside(
                "--declared", [name for name in given if name not in ("SOURCE", "--size")], "give one of them"
            )
        check, settings = _typed({"source": source, **expected}, settings)
        matched = _one(check, partial(verifying, settings), as_json=as_json)
    if not matched:
        raise click.exceptions.Exit(1)


_Verifying = Callable[[], AbstractContextManager[Verifier]]


def _one(check: Check, verifying: _Verifying, *, as_json: bool) -> bool:
    """Make one check and print what came of it; return whether it matched."""
    with interruptible(), verifying() as verifier:
        row = verifier.verify(check)
    if as_json:
        click.echo(json.dumps(row.document()))
    else:
        click.echo(row.status)
        click.echo(_line(row), err=True)
    return row.status == "match"


def _many(manifest: Path, report: Path, verifying: _Verifying, concurrency: int, *, as_json: bool) -> bool:
    """Make a manifest's checks and print how many came to what; return whether all matched."""
    checks = read_manifest(manifest)

    def tell(row: Row) -> None:
        if row.status != "match" and not as_json:
            click.echo(_line(row), err=True)

    with open_report(report, checks) as rows:
        if len(rows.done) == len(checks):
            counts: Counter[Status] = Counter({"match": len(checks)})
        else:
            with interruptible(), verifying() as verifier:
                counts = verify_all(verifier, checks, rows, concurrency, tell)
    if as_json:
        told = {status: counts[status] for status in _STATUSES}
        click.echo(json.dumps({**told, "known": len(rows.done), "report": str(report)}))
    else:
        click.echo(", ".join(f"{counts[status]} {status}" for status in _STATUSES if counts[status]))
        click.echo(f"{len(rows.done)} of them were known to match; the report is {report}", err=True)
    return counts["match"] == len(checks)


@contextmanager
def _verifier(settings: Settings, wishes: dict[str, Any] | None, strict: bool) -> Iterator[Verifier]:
    """Yield what verifies by jobs and scans of the system at hand."""
    token = Token()

    def learn(source: str) -> Facts:
        with (
            cancelled_by(token),
            open_source(RangeRequest(source, 0, 0), Deadline.after(_LOOK_S), settings) as stream,
        ):
            return Facts(stream.object_size, stream.etag)

    def ask(source: str) -> Declared:
        with cancelled_by(token):
            return declared(source, Deadline.after(_LOOK_S), settings)

    with system_for(settings, scans=True) as session, closing(session.desk()) as desk:
        computing = Computing(desk, settings, wishes)

        def stop() -> None:
            token.cancel()
            computing.stop()

        yield Verifier(computing, learn, ask, strict, stop)


def _typed(raw: dict[str, Any], settings: Settings) -> tuple[Check, Settings]:
    """Return the check that was typed; a local path is a file here, and what is started here may read it."""
    for name in ("source", "against"):
        path = None if raw[name] is None else local_file(raw[name])
        if path is not None:
            raw[name] = str(path)
            settings = replace(settings, file_roots=(*settings.file_roots, path.parent))
    try:
        return parse_check(raw), settings
    except Wrong as wrong:
        field = "SOURCE" if wrong.field == "source" else f"--{wrong.field}"
        raise ConfigurationError(f"{field} {wrong.problem}", {"field": field, "hint": wrong.fix}) from None


def _refuse_beside(option: str, others: Sequence[str], fix: str) -> None:
    if others:
        raise ConfigurationError(f"{others[0]} stands beside {option}", {"field": others[0], "hint": fix})


def _line(row: Row) -> str:
    """Return a row as a person reads it."""
    text = f"{row.source}: {row.status}"
    if row.message is not None:
        return f"{text}: {row.error}: {row.message}" if row.error else f"{text}: {row.message}"
    sides = [
        " ".join(part for part in (value, None if size is None else f"({size:,} bytes)") if part)
        for value, size in ((row.found, row.found_size), (row.wanted, row.wanted_size))
    ]
    return f"{text}: it has {sides[0]}, expected {sides[1]}; {seconds_text(row.seconds)}, {usd_text(row.cost_usd)}"
