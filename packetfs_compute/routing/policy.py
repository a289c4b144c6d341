"""What the caller wants of a job beyond its value: where it may run, what it may cost, when it must be done."""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from packetfs_compute.errors import BadPolicy
from packetfs_compute.names import MAX_TIMEOUT_MS
from packetfs_compute.routing.capabilities import Capabilities, Trust
from packetfs_compute.validation import bad, integer, require_object, show

__all__ = ["Goal", "Policy", "parse_policy", "unwanted"]

Goal = Literal["balanced", "cheapest", "fastest"]

_TRUST_RANK: Final[dict[Trust, int]] = {"any": 0, "verified": 1, "own": 2}
_MAX_NAMES: Final = 64
_MAX_NAME_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """A job's policy, valid by construction. ``None`` is "no wish"; ``deadline_s`` counts from the job's submission."""

    goal: Goal = "balanced"
    value_of_time_usd_per_hour: float | None = None
    max_cost_usd: float | None = None
    deadline_s: float | None = None
    substrates: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    min_memory_mb: int = 0
    trust: Trust = "any"
    cache: bool = True
    """Whether values that are known already will do, and what is computed may be kept."""
    append_only: bool = False
    """Of a scan: whether the object only ever grows at its end, so that an earlier version's values are its head's."""


_ANY: Final = Policy()
_FIELDS: Final = frozenset(Policy.__dataclass_fields__)


def parse_policy(raw: object) -> Policy:
    """Return the policy in ``raw``, a JSON object or ``None``; raise :class:`BadPolicy` naming the field and the fix."""
    if raw is None:
        return _ANY
    given = require_object(raw, "policy", _FIELDS, BadPolicy)
    parsed: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in ("goal", "trust"):
            parsed[name] = _one_of(value, f"policy.{name}", get_args(Goal if name == "goal" else Trust))
        elif name in ("substrates", "exclude"):
            parsed[name] = _names(value, f"policy.{name}")
        elif name == "min_memory_mb":
            parsed[name] = integer(value, "policy.min_memory_mb", 0, 1 << 20, BadPolicy)
        elif name in ("cache", "append_only"):
            parsed[name] = _flag(value, f"policy.{name}")
        elif name == "deadline_s":
            parsed[name] = _number(value, "policy.deadline_s", 0.001, MAX_TIMEOUT_MS / 1000)
        else:
            parsed[name] = _number(value, f"policy.{name}", 0, 1e6)
    if parsed.get("append_only") and not parsed.get("cache", True):
        raise bad(
            "policy.append_only", "stands beside policy.cache false", "leave one out: it goes by the cache", BadPolicy
        )
    return Policy(**parsed)


def unwanted(policy: Policy, place: Capabilities) -> str | None:
    """Return why ``policy`` does not want ``place`` for any job, or ``None`` when it may run there."""
    if policy.substrates is not None and place.name not in policy.substrates:
        return f"not among policy.substrates ({', '.join(policy.substrates)})"
    if place.name in policy.exclude:
        return "in policy.exclude"
    if _TRUST_RANK[place.trust] < _TRUST_RANK[policy.trust]:
        return f"its trust is {place.trust}, policy.trust wants {policy.trust}"
    if place.memory_mb < policy.min_memory_mb:
        return f"has {place.memory_mb} MB, policy.min_memory_mb wants {policy.min_memory_mb}"
    return None


def _one_of(raw: object, field: str, allowed: tuple[str, ...]) -> str:
    if not isinstance(raw, str) or raw not in allowed:
        raise bad(field, f"is {show(raw)}", f"use one of {', '.join(allowed)}", BadPolicy)
    return raw


def _names(raw: object, field: str) -> tuple[str, ...]:
    if (
        not isinstance(raw, (list, tuple))
        or len(raw) > _MAX_NAMES
        or not all(isinstance(name, str) and len(name) <= _MAX_NAME_CHARS for name in raw)
    ):
        raise bad(field, f"is {show(raw)}", 'give a list of substrate names, such as ["local"]', BadPolicy)
    return tuple(raw)


def _flag(raw: object, field: str) -> bool:
    if not isinstance(raw, bool):
        raise bad(field, f"is {show(raw)}", "give true or false", BadPolicy)
    return raw


def _number(raw: object, field: str, low: float, high: float) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not low <= raw <= high:
        raise bad(field, f"is {show(raw)}", f"give a number from {low:g} to {high:g}", BadPolicy)
    return float(raw)
