"""The frames between hub and browser, version 1: JSON objects as text, one a WebSocket message.

What a browser sends is a stranger's: :func:`parse_frame` takes what ``remote/contract/browser.schema.json`` allows, in at
most ``MAX_FRAME`` bytes, and raises :class:`BadFrame` for everything else. What an answer says is looked at later, beside
the request that it answers (:func:`packetfs_compute.wire.parse_answer`).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from packetfs_compute.errors import JobError
from packetfs_compute.names import PROTOCOL
from packetfs_compute.validation import integer, require_object, show

__all__ = [
    "MAX_FRAME",
    "MAX_SLOTS",
    "Alive",
    "Answer",
    "BadFrame",
    "Frame",
    "Hello",
    "Pause",
    "Resume",
    "cancel_frame",
    "checked_frame",
    "parse_frame",
    "run_frame",
    "welcome_frame",
]

MAX_FRAME: Final = 64 << 10
"""Most bytes of a frame."""
MAX_SLOTS: Final = 8
"""Most programs that one browser runs at once."""

_TICKET: Final = re.compile(r"[A-Za-z0-9._-]{1,512}")
_KERNEL: Final = re.compile(r"[a-z0-9-]{1,32}")
_LEASE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class BadFrame(Exception):
    """What came is no frame of the protocol; the message says why."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame: who it is, and how many programs it runs at once."""

    ticket: str
    kernel: str
    slots: int


@dataclass(frozen=True, slots=True)
class Alive:
    """These leases still run."""

    leases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lease's program came to, not looked at yet."""

    lease: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """No new programs, please."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Programs are welcome again."""


Frame = Hello | Alive | Answer | Pause | Resume


def parse_frame(text: str) -> Frame:
    """Return the frame that a browser sent; raise :class:`BadFrame` for anything else."""
    if len(text) > MAX_FRAME or len(text.encode("utf-8", "replace")) > MAX_FRAME:
        raise BadFrame(f"a frame has {MAX_FRAME} bytes at most")
    try:
        raw = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadFrame("a frame is one JSON object") from None
    return checked_frame(raw)


def checked_frame(raw: object) -> Frame:
    """Return the frame in a JSON value; raise :class:`BadFrame` for anything that is none."""
    if not isinstance(raw, Mapping):
        raise BadFrame("a frame is one JSON object")
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadFrame(f"type is {show(kind)}: known are {', '.join(_KINDS)}")
    known, build = _KINDS[kind]
    try:
        return build(require_object(raw, kind, known | {"type"}))
    except JobError as error:
        raise BadFrame(error.message) from None


def welcome_frame(browser: str, lease_ms: int) -> str:
    """Return the hub's answer to a hello."""
    return json.dumps({"type": "welcome", "browser": browser, "lease_ms": lease_ms})


def run_frame(lease: str, request: Mapping[str, Any]) -> str:
    """Return the frame that hands a program over; ``request`` is one of ``POST /compute``."""
    return json.dumps({"type": "run", "lease": lease, "request": request})


def cancel_frame(lease: str) -> str:
    """Return the frame that takes a program back."""
    return json.dumps({"type": "cancel", "lease": lease})


def _hello(raw: Mapping[str, Any]) -> Hello:
    integer(raw.get("version"), "hello.version", PROTOCOL, PROTOCOL)
    ticket, kernel = _match(raw, "ticket", _TICKET), _match(raw, "kernel", _KERNEL)
    return Hello(ticket, kernel, integer(raw.get("slots"), "hello.slots", 1, MAX_SLOTS))


def _alive(raw: Mapping[str, Any]) -> Alive:
    leases = raw.get("leases")
    if not isinstance(leases, list) or len(leases) > MAX_SLOTS:
        raise BadFrame(f"alive.leases is {show(leases)}: give a list of at most {MAX_SLOTS}")
    return Alive(tuple(_match({"leases": lease}, "leases", _LEASE) for lease in leases))


def _answer(raw: Mapping[str, Any]) -> Answer:
    answer = raw.get("answer")
    if not isinstance(answer, Mapping):
        raise BadFrame(f"answer.answer is {show(answer)}: give an object")
    return Answer(_match(raw, "lease", _LEASE), answer)


def _match(raw: Mapping[str, Any], field: str, pattern: re.Pattern[str]) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadFrame(f"{field} is {show(value)}")
    return value


def _no_number(text: str) -> None:
    raise ValueError(text)


_KINDS: Final[dict[str, tuple[frozenset[str], Callable[[Mapping[str, Any]], Frame]]]] = {
    "hello": (frozenset({"version", "ticket", "kernel", "slots"}), _hello),
    "alive": (frozenset({"leases"}), _alive),
    "answer": (frozenset({"lease", "answer"}), _answer),
    "pause": (frozenset(), lambda _: Pause()),
    "resume": (frozenset(), lambda _: Resume()),
}
