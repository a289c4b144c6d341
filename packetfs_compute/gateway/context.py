"""What all routes share, and how they get at it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fastapi import Request
from fastapi.params import Depends
from prometheus_client import CollectorRegistry

from packetfs_compute.fleet import Fleet
from packetfs_compute.gateway.gate import Asked, Caller, Gate
from packetfs_compute.gateway.keys import KeyStore, Scope
from packetfs_compute.gateway.pool import Streams, Threads, Turns
from packetfs_compute.gateway.watching import Status
from packetfs_compute.settings import Settings

__all__ = ["Context", "Jobs", "context_of", "needs"]


class Jobs(Protocol):
    """The way into the system that the gateway needs: what :class:`packetfs_compute.desk.Desk` is. Its calls block."""

    def submit(self, job_id: str, program: object, policy: object = None, priority: int = 0) -> Status:
        """Submit a job, or return the status of the same one that is known already."""

    def status(self, job_id: str) -> Status | None:
        """Return a job's status; ``None`` where nobody knows of one."""

    def cancel(self, job_id: str) -> Status | None:
        """Cancel a job that has not ended, and return its status."""


@dataclass
class Context:
    """One application's parts."""

    settings: Settings
    jobs: Jobs
    fleet: Fleet
    ledger: Callable[[], Any]
    """The :class:`packetfs_compute.broker.results.ResultBackend`, made when it is first needed."""
    keys: KeyStore
    gate: Gate
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    threads: Threads = field(default_factory=Threads)
    streams: Streams = field(default_factory=Streams)
    turns: Turns = field(default_factory=Turns)
    stopping: bool = False
    """Set when the server is to end: answers that are kept open end as well."""


def context_of(request: Request) -> Context:
    """Return the parts of the application that serves ``request``."""
    return cast("Context", request.app.state.context)


def needs(*any_of: Scope) -> Any:
    """Return the dependency that lets a request in whose caller has one of these scopes, and gives the :class:`Caller`."""

    async def admitted(request: Request) -> Caller:
        context = context_of(request)
        asked = Asked(
            request.headers.get("authorization"),
            request.headers.get("host", ""),
            "" if request.client is None else request.client.host,
        )
        return await context.threads.call(context.gate.admit, asked, *any_of)

    dependency: Callable[..., Awaitable[Caller]] = admitted
    return Depends(dependency)
