"""What the dashboard shows, over HTTP: once, or again each second for as long as somebody watches.

::

    event: overview        data: the same document that ``GET /v1/overview`` returns, at once and each second
    event: problem         data: {"error", "detail"}: in its stead, while Redis does not answer, or the gateway is too busy
    event: end             data: {"reason": "lifetime" | "shutdown"}

However many watch, a gateway reads what it shows once a second.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import redis
from fastapi import APIRouter, Request
from starlette.responses import Response

from packetfs_compute.errors import BrokerUnavailable, Busy
from packetfs_compute.gateway.context import OVERVIEW_S, Context, context_of, needs
from packetfs_compute.gateway.events import LIFETIME_S, RECONNECT_MS, EventStream, event
from packetfs_compute.gateway.gate import Caller
from packetfs_compute.gateway.openapi import described
from packetfs_compute.gateway.wellness import assess
from packetfs_compute.journal import overview_document

__all__ = ["feed", "router"]

router: Final = APIRouter(prefix="/v1", tags=["fleet"])

_Reader = Annotated[Caller, needs("read")]


@router.get("/overview", **described("overview"))
async def overview(request: Request, _: _Reader) -> Response:
    """Return what the dashboard shows: every substrate, the last five minutes, the last jobs."""
    return Response(await _document(context_of(request)), media_type="application/json")


@router.get("/overview/events", **described("overview_events"))
async def overview_events(request: Request, caller: _Reader) -> Response:
    """Watch it: server-sent events of the same document, at once and then each second.

    `event: problem` stands in its place while there is none to be had; `event: end` is the last. A stream lives for five
    minutes at most.
    """
    context = context_of(request)
    context.streams.take(caller.id)
    parts = feed(lambda: _document(context), lambda: context.stopping, request.is_disconnected)
    return EventStream(parts, context.streams, caller.id)


async def feed(
    read: Callable[[], Awaitable[str]],
    stopping: Callable[[], bool],
    left: Callable[[], Awaitable[bool]],
    lifetime_s: float = LIFETIME_S,
    every_s: float = OVERVIEW_S,
) -> AsyncIterator[str]:
    """Yield what ``read`` returns, a JSON document, every ``every_s`` until the client has ``left`` or it is time to end."""
    give_up = time.monotonic() + lifetime_s
    yield f"retry: {RECONNECT_MS}\n"
    while not stopping() and time.monotonic() < give_up:
        try:
            yield event("overview", await read())
        except (BrokerUnavailable, Busy) as error:
            yield event("problem", _problem(error))
        await asyncio.sleep(every_s)
        if await left():
            return
    yield event("end", json.dumps({"reason": "shutdown" if stopping() else "lifetime"}))


def _problem(error: BrokerUnavailable | Busy) -> str:
    if isinstance(error, Busy):
        return json.dumps({"error": error.type, "detail": error.message})
    return json.dumps({"error": "unavailable", "detail": "the broker does not answer"})


async def _document(context: Context) -> str:
    async def read() -> str:
        return await context.threads.call(_read, context, context.browsers())

    return await context.overview.get(read)


def _read(context: Context, browsers: Mapping[str, Any] | None) -> str:
    """Return the feed of now as JSON; raises :class:`BrokerUnavailable` where Redis does not answer."""
    now = time.time()
    members = context.fleet.snapshot(now).members
    consumers = context.fleet.consumers(now)
    reading = context.journal.read()
    try:
        ledger = context.ledger().ledger.stats()
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(f"the ledger's Redis does not answer: {error}") from error
    report = assess(members, consumers, ledger.overdue_s, now)
    flower = context.settings.flower_url
    document = overview_document(reading, members, consumers, ledger, report, now, browsers, flower)
    return json.dumps(document, allow_nan=False, separators=(",", ":"))
