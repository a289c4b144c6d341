"""Small checks for untrusted JSON. Each error names the field, what is wrong with it, and what would be right."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from packetfs_compute.errors import BadProgram, JobError

__all__ = ["STRONG_ETAG", "bad", "integer", "require_object", "show"]

STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
"""A strong entity tag in its quotes (RFC 9110, section 8.8.3)."""


def bad(field: str, problem: str, fix: str, error: type[JobError] = BadProgram) -> JobError:
    """Return the error for one field: what is wrong with it, and what would be right."""
    return error(f"{field} {problem}", {"field": field, "hint": fix})


def require_object(
    raw: object, field: str, known: frozenset[str], error: type[JobError] = BadProgram
) -> Mapping[str, Any]:
    """Return ``raw`` if it is a JSON object with no other keys than ``known``; else raise ``error``."""
    if not isinstance(raw, Mapping):
        raise bad(field, f"is {show(raw)}", "give a JSON object", error)
    for key in raw:
        if key not in known:
            name = key if isinstance(key, str) and len(key) <= 32 and key.isprintable() else show(key)
            raise bad(f"{field}.{name}", "is not a known field", f"known are {', '.join(sorted(known))}", error)
    return raw


def integer(raw: object, field: str, low: int, high: int, error: type[JobError] = BadProgram) -> int:
    """Return ``raw`` as an integer in ``low..high``; raise ``error`` naming ``field`` for anything else."""
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
        raise bad(field, f"is {show(raw)}", f"give an integer from {low} to {high}", error)
    return raw


def show(value: object, limit: int = 64) -> str:
    """Return a short, safe rendering of an untrusted value for an error message.

    A huge integer is described, not printed: ``str`` of one over 4,300 digits raises ``ValueError``.
    """
    if value is None:
        return "missing"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return f"a list of {len(value)} items"
    text = repr(value[: limit + 1] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
