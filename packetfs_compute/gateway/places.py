"""Where jobs run, over HTTP: the decision for a job, the fleet, its health, and metrics."""

import time
from typing import Annotated, Any, Final

import redis
from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from packetfs_compute.errors import BrokerUnavailable
from packetfs_compute.gateway.bodies import json_body
from packetfs_compute.gateway.context import Context, context_of, needs
from packetfs_compute.gateway.gate import Caller
from packetfs_compute.gateway.openapi import described
from packetfs_compute.gateway.problems import reply
from packetfs_compute.gateway.wellness import Report, assess, no_redis
from packetfs_compute.overview import explained, fleet_document
from packetfs_compute.validation import require_object

__all__ = ["router"]

router: Final = APIRouter()

_EXPLAIN: Final = frozenset({"program", "policy"})
_Reader = Annotated[Caller, needs("read")]


@router.post("/v1/explain", tags=["fleet"], **described("explain"))
async def explain(
    request: Request, _: Annotated[Caller, needs("read", "submit")], body: Annotated[Any, Depends(json_body)]
) -> Response:
    """Say where a job would run and why, with every candidate and its price; nothing is run."""
    context = context_of(request)
    given = require_object(body, "request", _EXPLAIN)
    told = await context.threads.call(explained, given.get("program"), given.get("policy"), context.settings)
    return reply(200, told.document())


@router.get("/v1/fleet", tags=["fleet"], **described("fleet"))
async def fleet(request: Request, _: _Reader) -> Response:
    """Return every substrate: health, load, prices."""
    context = context_of(request)

    def read() -> dict[str, Any]:
        now = time.time()
        return fleet_document(context.fleet.snapshot(now).members, now)

    return reply(200, await context.threads.call(read))


@router.get("/metrics", tags=["health"], **described("metrics"))
async def metrics(request: Request, _: _Reader) -> Response:
    """Return Prometheus' metrics: the fleet, the ledger, and the gateway's own requests."""
    context = context_of(request)
    return Response(await context.threads.call(generate_latest, context.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/health", tags=["health"], **described("health"))
async def health(request: Request) -> Response:
    """Say what is unwell. 503: no job could run now. No key is needed."""
    context = context_of(request)
    report = await context.threads.call(_report, context)
    return reply(503 if report["status"] == "unhealthy" else 200, report)


def _report(context: Context) -> Report:
    now = time.time()
    try:
        members = context.fleet.snapshot(now).members
        consumers = context.fleet.consumers(now)
        overdue_s = context.ledger().ledger.stats().overdue_s
    except (BrokerUnavailable, redis.RedisError, OSError):
        return no_redis()
    return assess(members, consumers, overdue_s, now)
