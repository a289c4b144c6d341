"""What the ledger reads in a message, and the message that publishes its job again. Functions here are pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid

from packetfs_compute.broker.messages import NOT_JSON, moment, one_line, open_body
from packetfs_compute.names import LEDGER_FLAG, TASK_PREFIX

__all__ = [
    "ENTERED",
    "PUBLISHED",
    "Letter",
    "decoded",
    "ledger_id",
    "published_at",
    "read_body",
    "read_letter",
    "republication",
]

PUBLISHED: Final = "packetfs_published"
"""Key of the envelope: when it was put on its list, by the server's clock."""
ENTERED: Final = "packetfs_entered"
"""Key of a republished envelope: when the job was first published."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What the ledger wants to know of a message that is well formed. Times are Unix seconds."""

    id: str
    task: str
    tag: str
    """The delivery tag, under which kombu keeps a message that a worker holds."""
    published: float
    """When it was put on its list last; 0 when nobody stamped it."""
    entered: float
    """When the job was published first."""
    eta: float | None
    queue: str


def ledger_id(headers: Mapping[str, Any]) -> str | None:
    """Return the id under which a message is entered in the ledger, or ``None`` where it is not to be."""
    task, job_id = headers.get("task"), headers.get("id")
    ours = isinstance(task, str) and task.startswith(TASK_PREFIX) and isinstance(job_id, str)
    return job_id if ours and headers.get(LEDGER_FLAG) is not False else None


def decoded(raw: bytes) -> dict[str, Any] | None:
    """Return an envelope as an object, or ``None`` where ``raw`` is none."""
    try:
        envelope = loads(raw)
    except NOT_JSON:
        return None
    return envelope if isinstance(envelope, dict) else None


def published_at(raw: bytes) -> float | None:
    """Return the stamp of an item of a list, or ``None`` where it has none."""
    return _seconds((decoded(raw) or {}).get(PUBLISHED))


def read_letter(envelope: Mapping[str, Any]) -> Letter:
    """Return what the ledger wants to know; raise :class:`ValueError` where the envelope lacks it."""
    try:
        headers, properties = envelope["headers"], envelope["properties"]
        published = _seconds(envelope.get(PUBLISHED)) or 0.0
        return Letter(
            id=str(headers["id"]),
            task=str(headers["task"]),
            tag=str(properties.get("delivery_tag", "")),
            published=published,
            entered=_seconds(envelope.get(ENTERED)) or published,
            eta=moment(headers.get("eta")),
            queue=str(properties["delivery_info"]["routing_key"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no message of a job: {one_line(error)}") from None


def read_body(envelope: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Return the arguments, keyword arguments and options of a message; raise :class:`ValueError` where it has none."""
    try:
        args, kwargs, embedded = loads(open_body(envelope["body"], envelope["properties"], envelope["headers"]))
    except NOT_JSON as error:
        raise ValueError(f"no body: {one_line(error)}") from None
    return args, kwargs, embedded or {}


def republication(envelope: Mapping[str, Any], entered: float) -> str:
    """Return the message as JSON to publish again: the same job under a new delivery tag, known for a redelivery.

    It bears no stamp; whoever puts it on its list adds that.
    """
    properties = envelope["properties"]
    again = {key: value for key, value in envelope.items() if key != PUBLISHED}
    again["headers"] = {**envelope["headers"], "redelivered": True}
    again["properties"] = {
        **properties,
        "delivery_tag": uuid(),
        "delivery_info": {**properties["delivery_info"], "redelivered": True},
    }
    again[ENTERED] = entered
    return dumps(again)


def _seconds(value: object) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None  # type: ignore[arg-type]
