"""What settings say of the places: the substrates of the fleet, their prices, and what leaving a source costs.

In ``packetfs.toml`` a substrate is a table under its name; in the environment ``PACKETFS_SUBSTRATES`` is the same as a
JSON object. A field that is left out is what the substrate's kind declares of itself::

    [substrates.fly-iad]
    kind = "fly"                              # which module of packetfs_compute.substrates it is; the name by default
    url = "https://packetfs-compute.fly.dev"
    region = "iad"
    slots = 40                                # attempts at once, over all consumers
    prices = { usd_per_s = 7.8e-7 }

    [[egress]]                                # before the rules that the package knows
    host = "*.assets.example.com"
    usd_per_gb = 0.05
    provider = "aws"                          # free for substrates of this provider …
    region = "us-east-1"                      # … in this region
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

from packetfs_compute.names import MAX_RANGE_BYTES, MAX_TIMEOUT_MS
from packetfs_compute.parsers import count, from_json, listed, number, seconds, split_url, text, url
from packetfs_compute.validation import show

__all__ = [
    "EgressRule",
    "EndpointKey",
    "Prices",
    "SubstrateSpec",
    "Trust",
    "endpoint_key",
    "endpoint_keys",
    "parse_egress",
    "parse_substrates",
    "to_json",
]

Trust = Literal["any", "verified", "own"]
"""Who runs a place: anyone, anyone whose results are checked, or ourselves and vendors under contract with us."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|s3://[a-z0-9.*-]{1,63}")
"""``*`` stands for the names below a host, and for any part of a bucket's name."""
_FUNCTION: Final = re.compile(
    r"(?:arn:aws[a-z-]*:lambda:[a-z0-9-]{1,32}:[0-9]{12}:function:)?[A-Za-z0-9_-]{1,64}(?::[A-Za-z0-9$_-]{1,128})?"
)
_KEY: Final = re.compile(r"([A-Za-z0-9_-]{1,64}):([\x21-\x2b\x2d-\x7e]{16,256})")
_MAX_SUBSTRATES: Final = 1024
_MAX_SCRIPT_CHARS: Final = 4096


@dataclass(frozen=True, slots=True)
class Prices:
    """A platform's price formula, in USD: what one attempt costs beside the egress from its source."""

    usd_per_request: float = 0.0
    usd_per_s: float = 0.0
    """Of a machine, for as long as the attempt takes."""
    usd_per_gb_s: float = 0.0
    """Of memory, whatever of it is used."""
    usd_per_cpu_s: float = 0.0
    cpu_s_per_gb: float = 0.0
    """CPU time that a gigabyte (10**9 bytes) takes there; what CPU-billed platforms charge for."""
    cpu_s_per_request: float = 0.0
    step_s: float = 0.0
    """Durations are billed in whole steps of this."""


@dataclass(frozen=True, slots=True)
class SubstrateSpec:
    """One substrate as settings name it. ``None`` is "as its kind declares"."""

    name: str
    kind: str
    url: str | None = None
    function: str | None = None
    """An AWS Lambda function: its name or ARN, and after a colon an alias or version."""
    region: str | None = None
    provider: str | None = None
    trust: Trust | None = None
    slots: int | None = None
    memory_mb: int | None = None
    max_range_bytes: int | None = None
    max_duration_s: float | None = None
    overhead_s: float | None = None
    """First guess of what an attempt takes beside its bytes, until it is learnt."""
    bytes_per_s: float | None = None
    prices: Prices | None = None
    script: str | None = None
    """What a stub does, as JSON; see :mod:`packetfs_compute.substrates.stub`."""


@dataclass(frozen=True, slots=True)
class EgressRule:
    """What a byte costs that leaves the sources at ``host`` (``*.`` before it: any name below it)."""

    host: str
    usd_per_gb: float
    provider: str | None = None
    region: str | None = None
    """Substrates of this provider, and of this region where one is named, pay nothing."""


@dataclass(frozen=True, slots=True)
class EndpointKey:
    """The key with which requests to one substrate are signed."""

    substrate: str
    key_id: str
    secret: str = field(repr=False)


def _one_of(*allowed: str) -> Callable[[object], str]:
    def parse(raw: object) -> str:
        if raw not in allowed:
            raise ValueError(f"give one of {', '.join(allowed)}")
        return str(raw)

    return parse


def _matching(pattern: re.Pattern[str], fix: str) -> Callable[[object], str]:
    def parse(raw: object) -> str:
        if not isinstance(raw, str) or not pattern.fullmatch(raw):
            raise ValueError(fix)
        return raw

    return parse


_name = _matching(_NAME, "name it with 1 to 32 of a-z 0-9 -")


def _prices(raw: object) -> Prices:
    return Prices(**_table(raw, "prices", {field.name: number(0, 1e6) for field in fields(Prices)}))


def _script(raw: object) -> str:
    try:
        given = raw if isinstance(raw, str) else json.dumps(raw)
    except (TypeError, RecursionError):  # TOML has dates
        raise ValueError("give a table of what JSON can hold") from None
    if len(given) > _MAX_SCRIPT_CHARS or not isinstance(from_json(given), dict):
        raise ValueError(f"give a table of at most {_MAX_SCRIPT_CHARS} characters")
    return given


_http_url = url("http", "https")


def _endpoint(raw: object) -> str:
    given = _http_url(raw)
    parts = split_url(given)
    try:
        usable = parts is not None and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # of the port
        usable = False
    if not usable:
        raise ValueError("give a URL with a host, and without a user: its key is set with PACKETFS_KEYS")
    return given


_SPEC: Final[dict[str, Callable[[object], Any]]] = {
    "kind": _name,
    "url": _endpoint,
    "function": _matching(_FUNCTION, "give a function's name or ARN, with :alias where one is meant"),
    "region": text,
    "provider": text,
    "trust": _one_of(*get_args(Trust)),
    "slots": count(1, 100_000),
    "memory_mb": count(1, 1 << 24),
    "max_range_bytes": count(1, MAX_RANGE_BYTES),
    "max_duration_s": seconds(0.001, MAX_TIMEOUT_MS / 1000),
    "overhead_s": seconds(0, 3600),
    "bytes_per_s": number(1, 1e15),
    "prices": _prices,
    "script": _script,
}
_EGRESS: Final[dict[str, Callable[[object], Any]]] = {
    "host": _matching(_HOST, "give a host in lower case, such as data.example.com, *.example.com or s3://bucket"),
    "usd_per_gb": number(0, 1000),
    "provider": text,
    "region": text,
}


def _table(raw: object, where: str, known: Mapping[str, Callable[[object], Any]]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: give a table")
    parsed = {}
    for key, value in raw.items():
        if key not in known:
            raise ValueError(f"{where} has no field {show(key)}; known are {', '.join(known)}")
        if value is None:
            continue
        try:
            parsed[key] = known[key](value)
        except ValueError as error:
            shown = "a URL with credentials" if isinstance(value, str) and "@" in value else show(value)
            raise ValueError(f"{where}.{key} is {shown}: {error}") from None
    return parsed


def parse_substrates(raw: object) -> tuple[SubstrateSpec, ...]:
    """Return the substrates of a table from name to fields, or of the same as JSON text."""
    given = from_json(raw) if isinstance(raw, str) else raw
    if not isinstance(given, Mapping) or len(given) > _MAX_SUBSTRATES:
        raise ValueError(f"give a table of at most {_MAX_SUBSTRATES} substrates by name")
    specs = []
    for name, table in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"substrates has {show(name)}: name it with 1 to 32 of a-z 0-9 -")
        specs.append(SubstrateSpec(name=name, **{"kind": name, **_table(table, f"substrates.{name}", _SPEC)}))
    return tuple(specs)


def parse_egress(raw: object) -> tuple[EgressRule, ...]:
    """Return the rules of an array of tables, or of the same as JSON text."""
    given = from_json(raw) if isinstance(raw, str) else raw
    if not isinstance(given, list):
        raise ValueError("give an array of tables")
    rules = []
    for at, table in enumerate(given):
        rule = _table(table, f"egress[{at}]", _EGRESS)
        if "host" not in rule or "usd_per_gb" not in rule:
            raise ValueError(f"egress[{at}] needs host and usd_per_gb")
        rules.append(EgressRule(**rule))
    return tuple(rules)


def endpoint_key(raw: object) -> EndpointKey:
    """Return the key of one endpoint, written ``substrate=key id:secret``."""
    name, equals, key = raw.partition("=") if isinstance(raw, str) else ("", "", "")
    match = _KEY.fullmatch(key)
    if not equals or not _NAME.fullmatch(name) or match is None:
        raise ValueError("give each as substrate=keyid:secret, the secret of 16 to 256 visible characters, no comma")
    return EndpointKey(name, match[1], match[2])


def endpoint_keys(raw: object) -> tuple[EndpointKey, ...]:
    """Return the keys of a list, one a substrate at most."""
    keys = listed(endpoint_key)(raw)
    if len({key.substrate for key in keys}) < len(keys):
        raise ValueError("give each substrate one key; it is the server that may have two")
    return keys


def to_json(value: tuple[SubstrateSpec, ...] | tuple[EgressRule, ...]) -> str:
    """Return substrates or egress rules as the environment holds them."""
    tables = [{key: item for key, item in _plain(one).items() if item is not None} for one in value]
    if value and isinstance(value[0], EgressRule):
        return json.dumps(tables)
    return json.dumps({table.pop("name"): table for table in tables})


def _plain(one: SubstrateSpec | EgressRule) -> dict[str, Any]:
    plain = {field.name: getattr(one, field.name) for field in fields(one)}
    if isinstance(plain.get("prices"), Prices):
        plain["prices"] = {field.name: getattr(plain["prices"], field.name) for field in fields(Prices)}
    return plain
