"""``packetfs fleet``: every substrate's health, load and prices."""

import json
import time

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packetfs_compute.cli.render import console_width, rate_text, seconds_text, usd_text
from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.overview import fleet_document
from packetfs_compute.routing import Member, attempt_usd
from packetfs_compute.routing.breaker import state_at
from packetfs_compute.routing.estimate import learnt
from packetfs_compute.settings import load_settings
from packetfs_compute.substrates import load_fleet

__all__ = ["fleet"]

_COLOURS = {"closed": "green", "half_open": "yellow", "open": "red"}
_GB = 10**9


@click.command(short_help="Every substrate: health, load, prices.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def fleet(as_json: bool) -> None:
    """Print the substrates of the fleet as all publishers and workers see them: breaker, load, estimate, prices, totals."""
    settings = load_settings()
    places = [one.capabilities for one in load_fleet(settings)]
    now = time.time()
    try:
        members = open_fleet(settings, places).snapshot(now).members
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            error.message, {"hint": "start it with `packetfs up`, or set PACKETFS_REDIS_URL"}
        ) from error
    if as_json:
        click.echo(json.dumps(fleet_document(members, now)))
    else:
        _print(members, now)


def _print(members: tuple[Member, ...], now: float) -> None:
    table = Table(title="The fleet", title_justify="left")
    for name in ("substrate", "kind", "region", "breaker"):
        table.add_column(name, no_wrap=True)
    for name in ("running", "slots", "queued", "overhead", "MB/s", "success", "$ a GB", "attempts", "spent"):
        table.add_column(name, justify="right", no_wrap=True)
    for member in members:
        table.add_row(*_cells(member, now))
    Console(width=console_width()).print(table)


def _cells(member: Member, now: float) -> list[str | Text]:
    place, health = member.place, member.health
    line = learnt(place, health, now)
    state = state_at(health.breaker, now)
    slots = "?" if health.slots is None else str(health.slots)
    success = "-" if health.calls < 1 else f"{1 - health.failures / health.calls:.0%}"
    return [
        place.name, place.kind, place.region or "-", Text(state.replace("_", "-"), _COLOURS[state]),
        str(health.in_flight), slots, str(health.depth),
        seconds_text(line.overhead_s), rate_text(_GB, line.s_per_byte * _GB), success,
        usd_text(attempt_usd(place.prices, place.memory_mb, _GB, line.seconds(_GB))),
        f"{health.attempts:,}", usd_text(health.cost_usd),
    ]  # fmt: skip
