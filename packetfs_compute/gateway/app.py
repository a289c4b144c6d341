"""The application: every route, and the layers that each request goes through."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client.registry import Collector
from starlette.responses import Response

from packetfs_compute import __version__
from packetfs_compute.fleet.redis import open_fleet
from packetfs_compute.gateway import admin, browsers, docs, jobs, live, openapi, pages, places, problems, runtime
from packetfs_compute.gateway.context import Context
from packetfs_compute.gateway.gate import Gate, Limiter
from packetfs_compute.gateway.keys import open_keys
from packetfs_compute.gateway.lending import HubMetrics, open_lending
from packetfs_compute.gateway.problems import reply
from packetfs_compute.gateway.rim import RequestMetrics, Rim
from packetfs_compute.gateway.watching import Jobs
from packetfs_compute.journal import open_reader
from packetfs_compute.metrics import SharedState
from packetfs_compute.settings import Settings
from packetfs_compute.substrates import load_fleet

__all__ = ["create_app"]

_ABOUT: Final = "Compute on bytes without downloading them: submit jobs, watch them, ask where they would run."


def create_app(settings: Settings, desk: Jobs, backend: Callable[[], Any]) -> FastAPI:
    """Return the application of ``settings``, built without I/O.

    ``desk`` is the way into the system (:class:`packetfs_compute.desk.Desk`), ``backend`` returns Celery's result backend,
    whose ledger ``/health`` and ``/metrics`` read. Where it listens is ``settings.gateway_host``: anywhere but on loopback
    every request needs a key, and :func:`packetfs_compute.gateway.exposure.check_exposure` says beforehand whether there
    is one.
    """
    keys = open_keys(settings)
    context = Context(
        settings=settings,
        jobs=desk,
        fleet=open_fleet(settings, [one.capabilities for one in load_fleet(settings)]),
        ledger=backend,
        journal=open_reader(settings),
        keys=keys,
        gate=Gate(settings, keys, Limiter(settings)),
    )
    context.registry.register(_Shared(context))
    lending = context.lending = open_lending(settings, desk, context.threads)
    if lending is not None:
        context.registry.register(HubMetrics(lending.hub.stats))
        context.browsers = lending.stats

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if lending is not None:
            await lending.aclose()
        context.threads.close()

    app = FastAPI(
        title="PacketFS gateway", version=__version__, description=_ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.state.context = context
    problems.install(app)
    openapi.install(app)
    for module in (jobs, places, live, browsers, admin, docs, pages, runtime):
        app.include_router(module.router)

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return reply(200, app.openapi())

    app.add_middleware(Rim, origins=settings.gateway_origins, metrics=RequestMetrics(context.registry))
    return app


class _Shared(Collector):
    """What the shared state says at each scrape; Celery's backend is made when the first one comes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Any:
        """Return the samples of now."""
        return SharedState(self._context.fleet, self._context.ledger()).collect()

    def describe(self) -> list[Any]:
        """Return nothing: to be asked at registration would mean I/O."""
        return []
