"""What all routes share, and how they get at it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from fastapi import Request
from fastapi.params import Depends
from prometheus_client import CollectorRegistry

from packetfs_compute.fleet import Fleet
from packetfs_compute.gateway.gate import Asked, Caller, Gate
from packetfs_compute.gateway.keys import KeyStore, Scope
from packetfs_compute.gateway.lending import Lending
from packetfs_compute.gateway.pool import Fresh, Streams, Threads, Turns
from packetfs_compute.gateway.watching import Jobs
from packetfs_compute.journal import JournalReader
from packetfs_compute.settings import Settings

__all__ = ["MOST_SOCKETS_EACH", "OVERVIEW_S", "Context", "Jobs", "context_of", "needs"]

MOST_SOCKETS: Final = 6000
MOST_SOCKETS_EACH: Final = 256
OVERVIEW_S: Final = 1.0
"""How old what a dashboard is shown may be, and how often it is shown."""


@dataclass
class Context:
    """One application's parts."""

    settings: Settings
    jobs: Jobs
    fleet: Fleet
    ledger: Callable[[], Any]
    """The :class:`packetfs_compute.broker.results.ResultBackend`, made when it is first needed."""
    journal: JournalReader
    keys: KeyStore
    gate: Gate
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    threads: Threads = field(default_factory=Threads)
    streams: Streams = field(default_factory=Streams)
    sockets: Streams = field(default_factory=lambda: Streams(MOST_SOCKETS, MOST_SOCKETS_EACH))
    """WebSockets by the network at their other end, those that have not said hello included."""
    turns: Turns = field(default_factory=Turns)
    lending: Lending | None = None
    """The hub for browsers; ``None`` where nothing says who may post programs for them."""
    overview: Fresh[str] = field(default_factory=lambda: Fresh(OVERVIEW_S))
    """The dashboard's feed, as JSON: one reading for all who watch."""
    browsers: Callable[[], Mapping[str, Any] | None] = lambda: None
    """What the hub of this gateway's browsers says of itself in the feed; ``None`` where it serves none. Asked in the event
    loop, so it must not wait."""
    stopping: bool = False
    """Set when the server is to end: answers that are kept open end as well."""


def context_of(request: Request) -> Context:
    """Return the parts of the application that serves ``request``."""
    return cast("Context", request.app.state.context)


def needs(*any_of: Scope, unless: Callable[[Settings], bool] = lambda _: False) -> Any:
    """Return the dependency that lets a request in whose caller has one of these scopes, and gives the :class:`Caller`.

    Where ``unless`` says so of the settings, who comes without a key is let in as well.
    """

    async def admitted(request: Request) -> Caller:
        context = context_of(request)
        asked = Asked(
            request.headers.get("authorization"),
            request.headers.get("host", ""),
            "" if request.client is None else request.client.host,
        )
        return await context.threads.call(context.gate.admit, asked, *any_of, anyone=unless(context.settings))

    dependency: Callable[..., Awaitable[Caller]] = admitted
    return Depends(dependency)
