"""Server-sent events of one job (WHATWG HTML, section 9.2): its status at once and at each change, until it has ended.

::

    event: status          data: the JobStatus
    : a comment            every few seconds in which nothing changes, so that proxies keep the connection
    event: end             data: {"reason": "ended" | "forgotten" | "lifetime" | "shutdown"}

A stream has a bounded life; a client that still wants to know asks again, as ``EventSource`` does by itself.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from packetfs_compute.gateway.pool import Streams
from packetfs_compute.gateway.watching import ENDED, Status, Watch

__all__ = ["LIFETIME_S", "RECONNECT_MS", "EventStream", "event", "events"]

_HEARTBEAT_S: Final = 10.0
LIFETIME_S: Final = 300.0
RECONNECT_MS: Final = 2000


class EventStream(StreamingResponse):
    """The answer that holds a place among ``streams``, which is given back however it ends."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str], streams: Streams, caller: str) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._streams = streams
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.give(self._caller)


async def events(
    first: Status,
    watch: Watch,
    stopping: Callable[[], bool],
    left: Callable[[], Awaitable[bool]],
    lifetime_s: float = LIFETIME_S,
    heartbeat_s: float = _HEARTBEAT_S,
) -> AsyncIterator[str]:
    """Yield the events of a job whose status is ``first``, until it ends, or the client has ``left``."""
    give_up = time.monotonic() + lifetime_s
    yield f"retry: {RECONNECT_MS}\n"
    yield _event("status", first)
    now: Status | None = first
    reason = "ended"
    while now is not None and now["status"] not in ENDED:
        left_s = give_up - time.monotonic()
        if stopping() or left_s <= 0:
            reason = "shutdown" if stopping() else "lifetime"
            break
        before, now = now, await watch.changed(now, min(heartbeat_s, left_s))
        if await left():
            return
        yield ":\n\n" if now == before else _event("status", now) if now is not None else ""
    yield _event("end", {"reason": "forgotten" if now is None else reason})


def event(name: str, line: str) -> str:
    """Return the event ``name`` whose data is ``line``, JSON without a line break."""
    return f"event: {name}\ndata: {line}\n\n"


def _event(name: str, data: Any) -> str:
    return event(name, json.dumps(data, allow_nan=False, separators=(",", ":")))
