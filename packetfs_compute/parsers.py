"""Parsers of settings: each takes an untrusted value, returns it typed, or raises ``ValueError`` that says what to give.

A value comes from the environment, where everything is text, or from TOML, where numbers and lists are typed already.
"""

import ipaddress
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

__all__ = [
    "Network", "count", "flag", "from_json", "listed", "network", "number", "path", "seconds", "split_url", "text", "url",
]  # fmt: skip

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_T = TypeVar("_T")


def text(raw: object) -> str:
    """Return a non-empty string without the spaces around it."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("give a non-empty string")
    return raw.strip()


def url(*schemes: str) -> Callable[[object], str]:
    """Return the parser of a URL with one of ``schemes``."""

    def parse(raw: object) -> str:
        given = text(raw)
        begins = tuple(scheme + "://" for scheme in schemes)
        if not given.startswith(begins) or split_url(given) is None:
            raise ValueError(f"give a URL that begins with {' or '.join(begins)}")
        return given

    return parse


def split_url(given: str) -> SplitResult | None:
    """Return the parts of a URL, or ``None`` where it has none."""
    try:
        return urlsplit(given)
    except ValueError:  # its message may quote a part of the password
        return None


def path(raw: object) -> Path:
    """Return an absolute path; ``~`` is the user's home."""
    try:
        text(raw)
        return Path(str(raw)).expanduser().absolute()
    except RuntimeError:
        raise ValueError("give a path without ~: there is no such user") from None


def number(low: float, high: float, unit: str = "") -> Callable[[object], float]:
    """Return the parser of a number from ``low`` to ``high``."""

    def parse(raw: object) -> float:
        try:
            if isinstance(raw, bool):
                raise ValueError
            value = float(raw)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"give a number{unit} from {low:g} to {high:g}")
        return value

    return parse


def seconds(low: float, high: float) -> Callable[[object], float]:
    """Return the parser of a time in seconds."""
    return number(low, high, " of seconds")


def count(low: int, high: int) -> Callable[[object], int]:
    """Return the parser of an integer from ``low`` to ``high``."""

    def parse(raw: object) -> int:
        try:
            if isinstance(raw, (bool, float)):
                raise ValueError
            value = int(raw)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"give an integer from {low} to {high}")
        return int(value)

    return parse


def flag(raw: object) -> bool:
    """Return a truth value: TOML's own, or ``1``, ``true``, ``0``, ``false``."""
    known = {"1": True, "true": True, "0": False, "false": False}
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in known:
        return known[raw.strip().lower()]
    raise ValueError("give 1 or 0, true or false")


def from_json(raw: str) -> Any:
    """Return what JSON text holds."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:  # its message quotes nothing of the text
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"give JSON; this is none: {reason}") from None


def listed(item: Callable[[object], _T]) -> Callable[[object], tuple[_T, ...]]:
    """Return the parser of a list: TOML's, or text with commas, or a JSON array where an item holds a comma."""

    def parse(raw: object) -> tuple[_T, ...]:
        if isinstance(raw, str) and raw.startswith("["):
            raw = from_json(raw)
        elif isinstance(raw, str):
            raw = [part.strip() for part in raw.split(",") if part.strip()]
        if not isinstance(raw, list):
            raise ValueError("give a list")
        return tuple(item(part) for part in raw)

    return parse


def network(raw: object) -> Network:
    """Return a network in CIDR form."""
    try:
        return ipaddress.ip_network(text(raw))
    except ValueError:
        raise ValueError("give networks in CIDR form, such as 127.0.0.0/8") from None
