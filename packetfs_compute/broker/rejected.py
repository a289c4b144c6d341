"""Where messages go that nobody can use: a list beside their queue, with the reason, so that nothing vanishes in silence."""

import json
import time
from typing import Any, Final

from packetfs_compute.names import rejected_of

__all__ = ["set_aside"]

_MAX_KEPT: Final = 10_000
_MAX_CHARS: Final = 1 << 14
"""Of one message; with the bound above the list never takes more than some 160 MB."""


def set_aside(client: Any, queue: str, message: bytes, reason: str) -> None:
    """Put ``message`` on the list of what was rejected from ``queue``, whose oldest entries go when it is full.

    An entry is a JSON object of ``reason``, ``message`` (as text, with backslash escapes for bytes that are no UTF-8),
    ``bytes`` (its whole length), ``queue`` and ``at`` (Unix seconds).
    """
    text = message[: 4 * _MAX_CHARS].decode("utf-8", "backslashreplace")[:_MAX_CHARS]
    entry = {"reason": reason, "message": text, "bytes": len(message), "queue": queue, "at": time.time()}
    with client.pipeline(transaction=True) as pipe:
        pipe.lpush(rejected_of(queue), json.dumps(entry))
        pipe.ltrim(rejected_of(queue), 0, _MAX_KEPT - 1)
        pipe.execute()
