"""``packetfs conform``: whether an endpoint keeps the contract, asked of it from outside."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table

from packetfs_compute import conform as suite
from packetfs_compute.cli.params import SIZE
from packetfs_compute.conform import CHECKS, Bench, HttpTarget, InvokedTarget, Key, Report, Target
from packetfs_compute.errors import ConfigurationError
from packetfs_compute.settings import Settings, load_settings
from packetfs_compute.substrates import load_substrate

__all__ = ["conform"]

_SHOWN_FAILURES: Final = 20
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class _Address(click.ParamType[tuple[str, int]]):
    """Where to listen: ``127.0.0.1:8080``."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is no address; write host:port, such as 0.0.0.0:8080", param, ctx)
        return host, int(port)


@click.command(short_help="Whether an endpoint keeps the contract.")
@click.argument("target")
@click.option("--source-url", help="Where the endpoint finds this machine, such as http://203.0.113.7:8080.")
@click.option("--source-listen", type=_Address(), default="127.0.0.1:0", help="Where the suite's sources listen.")
@click.option(
    "--only", multiple=True, type=click.Choice([check.name for check in CHECKS]), help="This check; may repeat."
)
@click.option(
    "--forgeries", type=click.IntRange(1, 10**6), default=1000, show_default=True, help="Altered requests to try."
)
@click.option("--large", type=SIZE, default="256MiB", show_default=True, help="A range that must stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def conform(
    target: str,
    source_url: str | None,
    source_listen: tuple[str, int],
    only: tuple[str, ...],
    forgeries: int,
    large: int,
    as_json: bool,
) -> None:
    """Hold TARGET, the URL of an endpoint or the name of a substrate in the settings, to the whole contract.

    Its key is the one that PACKETFS_KEYS gives the substrate of that name or URL, else the first of
    PACKETFS_SIGNING_KEYS. Most checks have the endpoint read sources that this command serves. An endpoint on this machine
    finds them, if PACKETFS_ALLOW_PRIVATE_SOURCES lets it; for another one say with --source-url where it finds them.
    Exit code 1 when a case failed.

    \b
    packetfs conform http://127.0.0.1:8080
    packetfs conform fly-iad --source-listen 0.0.0.0:8080 --source-url http://203.0.113.7:8080
    """
    settings = load_settings()
    endpoint = _target(target, settings)
    with _bench(endpoint, _reachable(endpoint, source_url), source_listen, forgeries, large) as bench:
        report = suite.conform(
            bench, frozenset(only), lambda check: click.echo(f"{check.name}: {check.about}", err=True)
        )
    if as_json:
        failed = [asdict(one) for one in report.failed]
        counts = Counter(one.check for one in report.outcomes)
        click.echo(json.dumps({"target": target, "cases": counts, "failed": failed, "left_out": report.left_out}))
    else:
        _print(report)
    if report.failed:
        raise SystemExit(1)


@contextmanager
def _bench(
    endpoint: Target, source_url: str | None, listen: tuple[str, int], forgeries: int, large: int
) -> Iterator[Bench]:
    """Yield the bench; the suite's sources are served where the endpoint can reach them (an empty URL: at loopback)."""
    if source_url is None:
        yield Bench(endpoint, tampered=forgeries, large_bytes=large)
        return
    try:
        with suite.serving(listen) as origin:
            base = source_url.rstrip("/") or origin.url("")
            yield Bench(endpoint, origin, base, tampered=forgeries, large_bytes=large)
    except OSError as error:
        hint = "give another address with --source-listen"
        raise ConfigurationError(f"nothing can listen at {listen[0]}:{listen[1]}: {error}", {"hint": hint}) from error


def _target(given: str, settings: Settings) -> Target:
    """Return the endpoint at a URL, with the key that belongs to it, or a substrate of the settings by its name."""
    key = Key(*settings.signing_keys[0].split(":", 1)) if settings.signing_keys else None
    spec = next((spec for spec in settings.substrates if given in (spec.name, spec.url)), None)
    if spec is not None:
        key = next((Key(one.key_id, one.secret) for one in settings.keys if one.substrate == spec.name), key)
        if spec.url is not None and spec.function is None:
            return HttpTarget(spec.url, key)
    elif "://" in given:
        if urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).hostname:
            raise click.BadParameter(f"{given!r} is no URL of http or https", param_hint="TARGET")
        return HttpTarget(given, key)
    return InvokedTarget(load_substrate(given if spec is None else spec.name, settings))


def _reachable(endpoint: Target, source_url: str | None) -> str | None:
    """Return where the endpoint finds the suite's sources: as told, or at loopback where it is here itself."""
    if source_url is not None or endpoint.http is None:
        return source_url or ""
    return "" if urlsplit(endpoint.http.url).hostname in _LOOPBACK else None


def _print(report: Report) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table(show_header=False, box=None)
    for check in CHECKS:
        cases = [one for one in report.outcomes if one.check == check.name]
        failed = sum(one.problem is not None for one in cases)
        if cases:
            verdict = f"[red]{failed} of {len(cases)} failed[/]" if failed else f"[green]{len(cases)} passed[/]"
            table.add_row(check.name, verdict, check.about)
        elif check.name in report.left_out:
            table.add_row(check.name, "[yellow]left out[/]", report.left_out[check.name])
    console.print(table)
    for one in report.failed[:_SHOWN_FAILURES]:
        console.print(f"{one.check}, {one.case}: {one.problem}", markup=False, style="red")
    if len(report.failed) > _SHOWN_FAILURES:
        console.print(f"and {len(report.failed) - _SHOWN_FAILURES} more (--json has all)")
    if any("forbidden_source" in (one.problem or "") for one in report.failed):
        console.print("hint: the endpoint must be let read the suite's sources: PACKETFS_ALLOW_PRIVATE_SOURCES there")
    passed = len(report.outcomes) - len(report.failed)
    console.print(f"{passed} of {len(report.outcomes)} cases passed, {len(report.left_out)} checks left out")
