"""A task's message made without Celery: its protocol 2, in the envelope of kombu's Redis transport. Pure.

What a worker takes off its queue is to the byte what Celery puts there; a test compares the two, whichever Celery is
installed. (https://docs.celeryq.dev/en/stable/internals/protocol.html)
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["PERSISTENT", "SHOWN_CHARS", "Envelope"]

PERSISTENT: Final = 2
SHOWN_CHARS: Final = 1024
"""Of a job's arguments, in the header from which Flower and the logs show them."""
_EMBEDDED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message. ``origin`` says which process sent it; ``reply_to`` and ``tag`` are ids that nobody else uses."""

    task: str
    queue: str
    job_id: str
    arguments: Mapping[str, Any]
    headers: Mapping[str, Any]
    """Besides Celery's."""
    time_limit_s: int
    origin: str
    reply_to: str
    tag: str

    def text(self) -> str:
        """Return it as JSON; raise :class:`ValueError` where the arguments have none."""
        arguments = json.dumps(self.arguments, allow_nan=False)
        body = f"[[], {arguments}, {json.dumps(_EMBEDDED)}]"
        return json.dumps(
            {
                "body": b64encode(body.encode()).decode("ascii"),
                "content-encoding": "utf-8",
                "content-type": "application/json",
                "headers": {**self._of_celery(arguments), **self.headers},
                "properties": {
                    "correlation_id": self.job_id,
                    "reply_to": self.reply_to,
                    "delivery_mode": PERSISTENT,
                    "delivery_info": {"exchange": "", "routing_key": self.queue},
                    "priority": 0,
                    "body_encoding": "base64",
                    "delivery_tag": self.tag,
                },
            }
        )

    def _of_celery(self, arguments: str) -> dict[str, Any]:
        return {
            "lang": "py", "task": self.task, "id": self.job_id, "shadow": None, "eta": None, "expires": None,
            "group": None, "group_index": None, "retries": 0, "timelimit": [self.time_limit_s, None],
            "root_id": self.job_id, "parent_id": None, "argsrepr": "()", "kwargsrepr": arguments[:SHOWN_CHARS],
            "origin": self.origin, "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None,
            "stamps": {},
        }  # fmt: skip
