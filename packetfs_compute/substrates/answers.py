"""Reading what a place sends back, which is not to be trusted yet: its JSON, and its words."""

import json
from typing import Final

from packetfs_compute.errors import Internal

__all__ = ["json_of", "words_of"]

_MAX_WORDS: Final = 300


def json_of(body: bytes) -> object:
    """Return the JSON of a body; NaN, nesting without end and numbers without end are none (RFC 8259)."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Internal("the substrate's answer cannot be trusted: it is no JSON") from error


def words_of(said: object) -> str:
    """Return text of theirs fit for a message of ours: one line, printable, bounded; empty where it is none."""
    if not isinstance(said, str):
        return ""
    return "".join(char if char.isprintable() else " " for char in said[:_MAX_WORDS]).strip()


def _no_number(text: str) -> None:
    raise ValueError(text)
