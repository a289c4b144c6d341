"""A scenario as a TOML file, parsed strictly: an error names the field and the fix.

::

    title = "A region fails"
    seed = 7
    jobs = 200_000
    rate_per_s = 1000.0                       # of all publishers together
    bursts = [{ start_s = 60, stop_s = 62, times = 4 }]
    wave = { period_s = 120, amplitude = 0.3 }  # day and night, as a sine over the rate

    [publishers]                              # each with its own count of what it has sent
    count = 64
    phases = 8                                # moments within refresh_s at which some of them read the fleet
    refresh_s = 1.0

    [[mix]]                                   # what is asked for
    name = "logs"
    weight = 3
    url = "https://logs.s3.us-east-1.amazonaws.com/"   # says where the bytes live, and so their egress
    bytes = { median = 1e6, sigma = 1.5, max = 1e9 }   # log-normal
    policy = { goal = "cheapest" }

    [[places]]                                # a group of like places
    name = "lambda-us-east-1"
    count = 1
    provider = "aws"
    region = "us-east-1"
    slots = 1000
    overhead_s = 0.03                         # the truth …
    bytes_per_s = 8e7
    declared_overhead_s = 0.02                # … and what is claimed, where it differs
    prices = "lambda_x86"                     # a price list's name, or a table
    sigma = 0.2                               # scatter of an attempt's time
    error_rate = 0.001
    outages = [{ kind = "down", start_s = 60, stop_s = 90, share = 0.5 }]
    price_changes = [{ at_s = 100, prices = "fly", told_after_s = 5 }]
"""

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, get_args

from packetfs_compute.errors import BadPolicy, ConfigurationError
from packetfs_compute.names import MAX_RANGE_BYTES
from packetfs_compute.parsers import count, number, text, url
from packetfs_compute.places import Prices, Trust
from packetfs_compute.routing import Capabilities, Policy, parse_policy
from packetfs_compute.routing.prices import CLOUD_RUN, FLY, LAMBDA_ARM64, LAMBDA_X86, VERCEL, WORKERS
from packetfs_compute.simulator.scenario import (
    Burst,
    Group,
    Mix,
    Outage,
    OutageKind,
    PriceChange,
    Publishers,
    Scenario,
    Sizes,
    Wave,
)
from packetfs_compute.validation import show

__all__ = ["load_scenario", "parse_scenario", "shipped"]

_FOLDER: Final = Path(__file__).parent / "scenarios"
_PRICE_LISTS: Final = {
    "own": Prices(),
    "workers": WORKERS,
    "lambda_x86": LAMBDA_X86,
    "lambda_arm64": LAMBDA_ARM64,
    "fly": FLY,
    "vercel": VERCEL,
    "cloud_run": CLOUD_RUN,
}
_T = TypeVar("_T")
_Parser = Callable[[object, str], Any]
"""Takes an untrusted value and the name of its field; raises :class:`ConfigurationError`."""


def shipped() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """Return the scenario in the file ``name``, or the shipped one of that bare name.

    Raises :class:`ConfigurationError` naming the field and the fix.
    """
    path = Path(name)
    if path.suffix != ".toml" and path.name == name:
        path = _FOLDER / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = f"give a path to a .toml file, or one of {', '.join(shipped())}"
        raise ConfigurationError(f"there is no scenario {name}", {"field": name, "hint": known}) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", {"field": str(path)}) from None
    return parse_scenario(table, path.stem)


def parse_scenario(table: Mapping[str, Any], name: str = "scenario") -> Scenario:
    """Return the scenario in a TOML table; raise :class:`ConfigurationError` naming the field and the fix."""
    given = _table(table, name, _SCENARIO, ("jobs", "rate_per_s", "mix", "places"))
    groups: tuple[Group, ...] = given.pop("places")
    for field, names in (("places", [one.name for one in groups]), ("mix", [one.name for one in given["mix"]])):
        twice = next((one for one in names if names.count(one) > 1), None)
        if twice is not None:
            _refuse(f"{name}.{field}", f"has {twice} twice", "give each a name of its own")
    return Scenario(**{"name": name, "title": name, "seed": 1, "groups": groups, **given})


def _refuse(field: str, problem: str, fix: str) -> NoReturn:
    raise ConfigurationError(f"{field} {problem}", {"field": field, "hint": fix})


def _table(raw: object, where: str, known: Mapping[str, _Parser], needed: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        _refuse(where, f"is {show(raw)}", "give a table")
    for key in raw:
        if key not in known:
            _refuse(f"{where}.{key}", "is not a known field", f"known are {', '.join(known)}")
    for key in needed:
        if key not in raw:
            _refuse(f"{where}.{key}", "is missing", "add it")
    return {key: known[key](value, f"{where}.{key}") for key, value in raw.items()}


def _plain(parse: Callable[[object], _T]) -> Callable[[object, str], _T]:
    """Return a parser of settings as one that knows its field's name."""

    def parsed(raw: object, where: str) -> _T:
        try:
            return parse(raw)
        except ValueError as error:
            _refuse(where, f"is {show(raw)}", str(error))

    return parsed


def _many(parse: Callable[[object, str], _T], least: int = 0) -> Callable[[object, str], tuple[_T, ...]]:
    def parsed(raw: object, where: str) -> tuple[_T, ...]:
        if not isinstance(raw, list) or len(raw) < least:
            _refuse(where, f"is {show(raw)}", f"give an array of {'at least one table' if least else 'tables'}")
        return tuple(parse(one, f"{where}[{at}]") for at, one in enumerate(raw))

    return parsed


def _one_of(*allowed: str) -> Callable[[object, str], str]:
    def parse(raw: object, where: str) -> str:
        if raw not in allowed:
            _refuse(where, f"is {show(raw)}", f"give one of {', '.join(allowed)}")
        return str(raw)

    return parse


_moment = _plain(number(0, 1e7, " of seconds"))
_span = _plain(number(1e-9, 1e7, " of seconds"))
_share = _plain(number(0, 1))
_size = _plain(number(1, MAX_RANGE_BYTES))
_rate = _plain(number(1, 1e15))
_text = _plain(text)


def _prices(raw: object, where: str) -> Prices:
    if isinstance(raw, str):
        if raw not in _PRICE_LISTS:
            _refuse(where, f"is {show(raw)}", f"give a table, or one of {', '.join(_PRICE_LISTS)}")
        return _PRICE_LISTS[raw]
    return Prices(**_table(raw, where, {field.name: _plain(number(0, 1e6)) for field in fields(Prices)}))


def _policy(raw: object, where: str) -> Policy:
    try:
        policy = parse_policy(raw)
    except BadPolicy as error:
        field = str(error.details["field"]).removeprefix("policy")
        _refuse(f"{where}{field}", "cannot be used", f"{error.message}; {error.hint}")
    for name in ("deadline_s", "max_cost_usd"):
        if getattr(policy, name) is not None:
            _refuse(f"{where}.{name}", "is not simulated", "leave it out: no score says what a refused job is worth")
    return policy


def _sizes(raw: object, where: str) -> Sizes:
    return Sizes(**_table(raw, where, {"median": _size, "sigma": _plain(number(0, 5)), "max": _size}, ("median",)))


def _mix(raw: object, where: str) -> Mix:
    known: dict[str, _Parser] = {
        "name": _text,
        "weight": _plain(number(1e-6, 1e6)),
        "url": _plain(url("http", "https", "s3")),
        "bytes": _sizes,
        "policy": _policy,
    }
    return Mix(**{"weight": 1.0, "policy": Policy(), **_table(raw, where, known, ("name", "url", "bytes"))})


def _interval(given: dict[str, Any], where: str) -> dict[str, Any]:
    if given["stop_s"] <= given["start_s"]:
        _refuse(f"{where}.stop_s", f"is {given['stop_s']:g}", f"give a moment after start_s ({given['start_s']:g})")
    return given


def _outage(raw: object, where: str) -> Outage:
    known: dict[str, _Parser] = {
        "kind": _one_of(*get_args(OutageKind)),
        "start_s": _moment,
        "stop_s": _moment,
        "share": _share,
        "factor": _plain(number(0, 1e4)),
    }
    outage = Outage(**_interval(_table(raw, where, known, ("kind", "start_s", "stop_s")), where))
    if outage.kind == "slow" and outage.factor <= 1:
        _refuse(f"{where}.factor", f"is {outage.factor:g}", "give how many times slower, above 1")
    if outage.kind == "errors" and outage.factor > 1:
        _refuse(f"{where}.factor", f"is {outage.factor:g}", "give the share of attempts that fail, from 0 to 1")
    return outage


def _price_change(raw: object, where: str) -> PriceChange:
    known: dict[str, _Parser] = {"at_s": _moment, "prices": _prices, "told_after_s": _moment}
    return PriceChange(**_table(raw, where, known, ("at_s", "prices")))


_PLACES: Final[dict[str, _Parser]] = {
    "name": _text,
    "count": _plain(count(1, 1_000_000)),
    "provider": _text,
    "region": _text,
    "slots": _plain(count(1, 100_000)),
    "memory_mb": _plain(count(1, 1 << 24)),
    "trust": _one_of(*get_args(Trust)),
    "max_range_bytes": _plain(count(1, MAX_RANGE_BYTES)),
    "max_duration_s": _span,
    "overhead_s": _span,
    "bytes_per_s": _rate,
    "declared_overhead_s": _span,
    "declared_bytes_per_s": _rate,
    "prices": _prices,
    "sigma": _plain(number(0, 3)),
    "error_rate": _share,
    "outages": _many(_outage),
    "price_changes": _many(_price_change),
}
_BESIDE_WHAT_IS_DECLARED: Final = {
    "count": 1,
    "sigma": 0.0,
    "error_rate": 0.0,
    "outages": (),
    "price_changes": (),
}


def _group(raw: object, where: str) -> Group:
    given = _table(raw, where, _PLACES, ("name", "slots", "overhead_s", "bytes_per_s"))
    declared = Capabilities(
        name=given["name"],
        trust=given.get("trust", "own"),
        memory_mb=given.get("memory_mb", 1024),
        max_range_bytes=given.get("max_range_bytes", MAX_RANGE_BYTES),
        max_duration_s=given.get("max_duration_s", 3600.0),
        schemes=frozenset({"http", "https"}),
        kind=given["name"],
        provider=given.get("provider", "own"),
        region=given.get("region"),
        slots=given["slots"],
        overhead_s=given.get("declared_overhead_s", given["overhead_s"]),
        bytes_per_s=given.get("declared_bytes_per_s", given["bytes_per_s"]),
        prices=given.get("prices", Prices()),
    )
    rest = {key: given.get(key, default) for key, default in _BESIDE_WHAT_IS_DECLARED.items()}
    rest["price_changes"] = tuple(sorted(rest["price_changes"], key=lambda change: change.at_s))
    truth = {key: given[key] for key in ("name", "overhead_s", "bytes_per_s")}
    return Group(declared=declared, **truth, **rest)


def _publishers(raw: object, where: str) -> Publishers:
    known: dict[str, _Parser] = {
        "count": _plain(count(1, 100_000)),
        "phases": _plain(count(1, 1000)),
        "refresh_s": _plain(number(0.01, 60, " of seconds")),
    }
    return Publishers(**_table(raw, where, known))


def _burst(raw: object, where: str) -> Burst:
    known: dict[str, _Parser] = {"start_s": _moment, "stop_s": _moment, "times": _plain(number(0, 1e4))}
    return Burst(**_interval(_table(raw, where, known, ("start_s", "stop_s", "times")), where))


def _wave(raw: object, where: str) -> Wave:
    known: dict[str, _Parser] = {"period_s": _plain(number(1, math.inf)), "amplitude": _plain(number(0, 0.95))}
    return Wave(**_table(raw, where, known, ("period_s", "amplitude")))


_SCENARIO: Final[dict[str, _Parser]] = {
    "title": _text,
    "seed": _plain(count(0, 1 << 62)),
    "jobs": _plain(count(1, 100_000_000)),
    "rate_per_s": _plain(number(1e-3, 1e7)),
    "timeout_s": _plain(number(1, 3600, " of seconds")),
    "publishers": _publishers,
    "bursts": _many(_burst),
    "wave": _wave,
    "mix": _many(_mix, least=1),
    "places": _many(_group, least=1),
}
