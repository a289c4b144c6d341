"""What a message in a queue's list must be, so that neither kombu nor Celery stumbles over it.

Of 31 kinds of malformed message that were tried, 11 end a Celery worker, which then starts again and meets the same message.
So everything that kombu (``transport/virtual/base.py``, ``message.py``), Celery's consumer and its timers take for granted
is said here, as a table, and asked of each message before they see it. It is asked of our own messages as well, before they
are published: what a worker would put aside, the caller learns at once.

The envelope is kombu's for Redis: a JSON object of ``body`` (JSON in base64), ``content-type``, ``content-encoding``,
``headers`` and ``properties``; headers and body are Celery's message protocol 2. What a task makes of its arguments is the
task's own affair. Functions here are pure.
"""

import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kombu.utils.json import loads

from packetfs_compute.names import MAX_JOB_ID_CHARS

__all__ = ["MAX_MESSAGE_BYTES", "NOT_JSON", "defect", "defect_of_envelope", "moment", "one_line", "open_body"]

MAX_MESSAGE_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 200
"""Far below Python's limit of 1000, which pickling a message for the worker's pool must keep as well."""
_MAX_TEXT: Final = 1024
_MAX_REPR: Final = 1 << 16  # for a person to read: Celery itself cuts it at 1,024
_MAX_COUNT: Final = (1 << 53) - 1
_LATEST: Final = datetime(9998, 1, 1, tzinfo=UTC).timestamp()

NOT_JSON: Final = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, zlib.error)
"""What reading raises: kombu decodes objects such as ``{"__type__": …}`` on the way, and trusts what they hold."""

_ZLIB: Final = frozenset({"application/x-gzip", "gzip", "zlib"})
"""Kombu's names of the one compression that can be undone within a bound."""

_Check = Callable[[Any], bool]


def _text(longest: int = _MAX_TEXT, shortest: int = 0) -> _Check:
    return lambda value: (
        isinstance(value, str)
        and shortest <= len(value) <= longest
        and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))
    )


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _integer(highest: int, lowest: int = 0) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _is_repr(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_REPR


def _is_limit(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT


def _is_time_limits(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_or_none(_is_limit), value))


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_text(), value))


def _is_signature(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _text(shortest=1)(value.get("task"))
        and isinstance(value.get("args", []), list)
        and isinstance(value.get("kwargs", {}), dict)
        and isinstance(value.get("options", {}), dict)
    )


def _is_signatures(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_signature, value))


def moment(value: object) -> float | None:
    """Return an ISO 8601 time as Unix seconds, one without a zone as UTC; ``None`` for what is none."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < _LATEST else None


def _is_moment(value: object) -> bool:
    return moment(value) is not None


_Rules = Mapping[str, tuple[_Check, str]]

_NAME: Final = (_or_none(_text()), "a string")
_HEADERS: Final[_Rules] = {
    "id": (_text(MAX_JOB_ID_CHARS, 1), f"a string of 1 to {MAX_JOB_ID_CHARS} characters"),
    "task": (_text(256, 1), "the name of a task"),
    "eta": (_or_none(_is_moment), "an ISO 8601 time"),
    "expires": (_or_none(_is_moment), "an ISO 8601 time"),
    "retries": (_or_none(_integer(1 << 31)), "a count"),
    "timelimit": (_or_none(_is_time_limits), "two numbers of seconds"),
    "group_index": (_or_none(_integer(_MAX_COUNT)), "a count"),
    "ignore_result": (_or_none(lambda value: isinstance(value, bool)), "true or false"),
    "replaced_task_nesting": (_or_none(_integer(1 << 31)), "a count"),
    "stamped_headers": (_or_none(_is_names), "a list of names"),
    "stamps": (_or_none(lambda value: isinstance(value, dict)), "an object"),
    "argsrepr": (_or_none(_is_repr), "a string"),
    "kwargsrepr": (_or_none(_is_repr), "a string"),
    "compression": (_or_none(lambda value: isinstance(value, str) and value in _ZLIB), "gzip or zlib"),
    **dict.fromkeys(("root_id", "parent_id", "group", "shadow", "origin", "lang"), _NAME),
}
_PROPERTIES: Final[_Rules] = {
    "delivery_tag": (_text(MAX_JOB_ID_CHARS, 1), "a string"),
    "delivery_info": (lambda value: isinstance(value, dict), "an object"),
    "body_encoding": (_or_none(lambda value: value == "base64"), "base64"),
    "priority": (_or_none(_integer(255)), "an integer from 0 to 255"),
    **dict.fromkeys(("correlation_id", "reply_to"), _NAME),
}
_DELIVERY: Final[_Rules] = {
    "exchange": (_text(), "a string"),
    "routing_key": (_text(shortest=1), "the name of a queue"),
    "consumer_tag": _NAME,
}
_EMBEDDED: Final[_Rules] = {
    **dict.fromkeys(("callbacks", "errbacks", "chain"), (_or_none(_is_signatures), "a list of signatures")),
    "chord": (_or_none(_is_signature), "a signature"),
}


def defect(raw: bytes) -> str | None:
    """Return why an item of a queue's list is no message that a worker can take; ``None`` where it is one."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return f"it has {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are taken"
    try:
        envelope = _parsed(raw.decode("utf-8"))
    except NOT_JSON as error:
        return f"it is no JSON: {one_line(error)}"
    return defect_of_envelope(envelope)


def defect_of_envelope(envelope: object) -> str | None:
    """Return what is wrong with a message as an object, or ``None``."""
    if not isinstance(envelope, dict):
        return "it is no JSON object"
    if envelope.get("content-type") != "application/json":
        return "content-type is not application/json"
    encoding = envelope.get("content-encoding")
    if not (isinstance(encoding, str) and encoding.lower() == "utf-8"):
        return "content-encoding is not utf-8"
    headers, properties = envelope.get("headers"), envelope.get("properties")
    if not isinstance(headers, dict):
        return "headers is not an object"
    if not isinstance(properties, dict):
        return "properties is not an object"
    return (
        _broken(_HEADERS, headers, "headers")
        or _broken(_PROPERTIES, properties, "properties")
        or _broken(_DELIVERY, properties["delivery_info"], "properties.delivery_info")
        or ("it is nested too deeply" if _deeper_than(_MAX_DEPTH, envelope) else None)
        or _defect_of_body(envelope.get("body"), properties, headers)
    )


def _broken(rules: _Rules, values: Mapping[str, Any], where: str) -> str | None:
    for name, (check, what) in rules.items():
        if not check(values.get(name)):
            return f"{where}.{name} is {'not ' + what if name in values else 'missing'}"
    return None


def _defect_of_body(body: object, properties: Mapping[str, Any], headers: Mapping[str, Any]) -> str | None:
    if not isinstance(body, str):
        return "body is not a string"
    try:
        text = open_body(body, properties, headers).decode("utf-8")
        parts = _parsed(text)
    except NOT_JSON as error:
        return f"body cannot be read: {one_line(error)}"
    match parts:
        case [list(), dict(), dict() | None as embedded]:
            pass
        case _:
            return "body is not [arguments, keyword arguments, options]"
    if text.count("[") + text.count("{") > _MAX_DEPTH and _deeper_than(_MAX_DEPTH, parts):
        return "body is nested too deeply"
    unknown = set(embedded or ()) - set(_EMBEDDED)
    if unknown:
        return f"body has options that are not known: {', '.join(sorted(unknown))[:100]}"
    return _broken(_EMBEDDED, embedded or {}, "body.options")


def _parsed(text: str) -> Any:
    """Return what kombu reads from a text. It calls a function for each object, to find those that stand for other types.

    The parser without that function is four times as fast, and gives the same where no key can be ``__type__``.
    """
    return loads(text) if "__type__" in text or "\\" in text else json.loads(text)


def open_body(body: str, properties: Mapping[str, Any], headers: Mapping[str, Any]) -> bytes:
    """Return what a message's body holds, without its encoding and compression; raise what :data:`NOT_JSON` lists."""
    raw = b64decode(body, validate=True) if properties.get("body_encoding") == "base64" else body.encode()
    if headers.get("compression") is None:
        return raw
    inflater = zlib.decompressobj()
    data = inflater.decompress(raw, MAX_MESSAGE_BYTES)
    if not inflater.eof:
        raise ValueError("it is cut short, or too long when uncompressed")
    return data


def _deeper_than(limit: int, value: object) -> bool:
    """Whether ``value`` nests deeper than ``limit``; it is walked level by level, so that nothing recurses."""
    level: list[Any] = [value]
    for _ in range(limit + 1):
        level = [
            item
            for parent in level
            for item in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(item, (dict, list, tuple))
        ]
        if not level:
            return False
    return True


def one_line(error: BaseException) -> str:
    """Return what an error says, short enough for a reason."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
