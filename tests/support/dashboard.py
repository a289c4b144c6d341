"""The dashboard's page before a gateway that says what a test tells it to: states that a real one is seldom in."""

import asyncio
import copy
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from starlette.responses import Response, StreamingResponse

from packetfs_compute.gateway import docs, openapi, pages, problems
from packetfs_compute.gateway.problems import Refusal, reply
from packetfs_compute.gateway.rim import RequestMetrics, Rim
from packetfs_compute.settings import load_settings
from support.gateway import Client, serving

NOW: Final = 1_764_193_000.0
STEPS: Final = 150
_STEP_S: Final = 2
_PAUSE_S: Final = 0.02

Overview = dict[str, Any]


def substrate(name: str, **more: Any) -> dict[str, Any]:
    """Return a substrate that is well and does something."""
    return {
        "name": name, "kind": name, "provider": None if name == "local" else name, "region": "iad", "trust": "own",
        "breaker": {"state": "closed", "since": None, "until": None, "times": 0, "cause": None},
        "depth": 3, "in_flight": 2, "slots": 16, "consumers": 1,
        "jobs": {"done_per_s": 4.2, "failed_per_s": 0.1, "done": 120034, "cached": 9,
                 "failed": {"source_not_found": 31, "busy": 4}},
        "attempts": {"ok": 120100, "failed": {"busy": 12}},
        "latency_s": {"count": 252, "p50": 0.0213, "p95": 0.0934, "p99": 0.312},
        "bytes_per_s": 1.05e6, "bytes": 123_456_789_012, "usd_per_hour": 0.0123, "usd": 1.2345,
        **more,
    }  # fmt: skip


def opened(
    error: str = "timeout", message: str = "9 of the last 10 attempts failed: no answer in 30 s"
) -> dict[str, Any]:
    """Return a breaker that is open, and why."""
    cause = {"at": NOW - 12, "error": error, "message": message}
    return {"state": "open", "since": NOW - 12, "until": NOW + 18, "times": 2, "cause": cause}


def candidate(name: str, **more: Any) -> dict[str, Any]:
    """Return a row of a routing table."""
    return {
        "substrate": name, "wait_s": 0.004, "run_s": 0.021, "seconds": 0.025, "usd": 2.1e-7, "egress_usd": 0.0,
        "success": 0.9931, "score": 3.1e-7, "veto": None, "by_health": False, "share": 1.0, "severity": 0,
        **more,
    }  # fmt: skip


def job(number: int, **more: Any) -> dict[str, Any]:
    """Return a job that is done, with its decision."""
    rows = [
        candidate("local"),
        candidate("cloudflare", usd=4.4e-6, score=5.2e-6, seconds=0.08),
        candidate("fly", veto="breaker open for 18 s more", by_health=True),
    ]
    return {
        "job_id": f"0b5c9a7e-41d2-4c55-9d0e-{number:012d}", "at": NOW - 1.5 * number, "op": "crc32c",
        "data_url": f"https://data.example.org/archive/2026/part-{number:05d}.parquet", "length": 8 << 20,
        "status": "done", "error": None, "substrate": "local", "cost_usd": 2.1e-7, "cached": False, "total_s": 0.0312,
        "attempts": [{"substrate": "local", "ok": True, "error": None, "seconds": 0.0213}],
        "decision": {"substrate": "local", "panic": False, "at": NOW - 1.5 * number, "candidates": rows},
        "window_of": None, "scan": None, **more,
    }  # fmt: skip


def scanning(number: int, **more: Any) -> dict[str, Any]:
    """Return a scan that runs."""
    progress = {
        "bytes_done": 37_580_963_840, "bytes_total": 107_374_182_400, "windows_done": 140, "windows": 400,
        "rate_bytes_per_s": 412_000_000.0, "cost_usd": 0.0123, "eta_s": 169.4,
    }  # fmt: skip
    return {
        "job_id": f"5ca9a7e0-41d2-4c55-9d0e-{number:012d}", "since": NOW - 93.0, "op": "crc32c",
        "data_url": f"https://data.example.org/archive/2026/images/disk-{number:05d}.img", "length": None,
        "progress": {**progress, **more},
    }  # fmt: skip


def scanned(number: int, **more: Any) -> dict[str, Any]:
    """Return a scan that is done."""
    scan = {
        "bytes_processed": 107_374_182_400, "windows": 400, "window": 256 << 20, "cached_bytes": 0, "appended_to": None,
        "hedges": 2, **more.pop("scan", {}),
    }  # fmt: skip
    attempts = [{"substrate": name, "ok": True, "error": None, "seconds": 512.5} for name in ("local", "fly")]
    about = {
        "job_id": f"5ca9a7e0-41d2-4c55-9d0e-{number:012d}",
        "length": None, "decision": None, "attempts": attempts, "scan": scan,
    }  # fmt: skip
    return {**job(number), **about, **more}


def failed_job(number: int, **more: Any) -> dict[str, Any]:
    """Return a job that failed after two attempts."""
    error = {"type": "source_failed", "message": "data.example.org closed the connection after 4194304 bytes"}
    attempts = [
        {
            "substrate": "fly",
            "ok": False,
            "error": {"type": "timeout", "message": "no answer in 30 s"},
            "seconds": 30.0,
        },
        {"substrate": "local", "ok": False, "error": error, "seconds": 1.204},
    ]
    return job(number, status="failed", error=error, attempts=attempts, total_s=31.4, **more)


def series(*names: str) -> dict[str, Any]:
    """Return five minutes in which each of these does its share."""
    steps = range(STEPS)

    def wave(place: int, most: int) -> list[int]:
        return [
            max(0, round(most * (1.2 + math.sin(step / 11 + place) + 0.3 * math.sin(step * 1.7)) / 2.5))
            for step in steps
        ]

    return {
        "step_s": _STEP_S, "from": NOW - STEPS * _STEP_S,
        "done": {name: wave(place, 24 // (place + 1)) for place, name in enumerate(names)},
        "failed": {name: [1 if step % (17 + place) == 3 else 0 for step in steps] for place, name in enumerate(names)},
        "usd": [2.1e-6 * (1 + math.sin(step / 20) ** 2) for step in steps],
        "p50_s": [0.02 + 0.004 * math.sin(step / 9) for step in steps],
        "p95_s": [None if step < 5 else 0.09 + 0.03 * math.sin(step / 13) for step in steps],
    }  # fmt: skip


def overview(**more: Any) -> Overview:
    """Return a document in which all is well."""
    names = ("local", "fly", "aws_lambda", "cloudflare", "browser")
    return {
        "at": NOW, "window_s": 60,
        "ledger": {"open": 12, "overdue_s": 0.0, "resubmitted": 2, "given_up": 0},
        "unwell": [], "status": "healthy",
        "substrates": [substrate(name) for name in names],
        "series": series(*names),
        "scans": [],
        "recent": [failed_job(n) if n % 7 == 2 else job(n) for n in range(20)],
        "browsers": {"connected": 3, "idle": 2, "running": 1, "under_way": 1, "checked": 10, "agreed": 5,
                     "tie_breaks": 0, "banned": 0, "rehanded": 0, "busy": 0},
        "links": {"flower": "http://127.0.0.1:5555/", "docs": "/docs", "metrics": "/metrics"},
        **more,
    }  # fmt: skip


def empty() -> Overview:
    """Return a document of a system that has nothing and did nothing."""
    return overview(
        substrates=[], recent=[], browsers=None, status="unhealthy",
        links={"flower": None, "docs": "/docs", "metrics": None},
        unwell=[{"what": "queue", "name": "local", "message": "nobody consumes packetfs.local"}],
        series={**series(), "usd": [0] * STEPS, "p50_s": [None] * STEPS, "p95_s": [None] * STEPS},
    )  # fmt: skip


def degraded() -> Overview:
    """Return a document in which fly's breaker is open."""
    document = overview(status="degraded")
    document["substrates"][1].update(breaker=opened(), latency_s=None, depth=41)
    document["unwell"] = [{"what": "breaker", "name": "fly", "message": "open for 18 s more"}]
    return document


class Gateway:
    """What the page asks: tell it what to say. Use :func:`telling` to serve it."""

    def __init__(self) -> None:
        self.hang_up = threading.Event()
        self.streams = 0
        """How many feeds are open."""
        self._version = 0
        self.forget()

    def forget(self) -> None:
        """Be as new: all is well, and no key is asked for."""
        self.key: str | None = None
        """Asked for where it is set."""
        self.problem: dict[str, Any] | None = None
        """Told in the stream, in the document's stead."""
        self.refusal: Refusal | None = None
        """The answer to whatever is submitted or explained."""
        self.statuses: list[dict[str, Any]] = []
        """How the job stands, one after the other."""
        self.asked: list[tuple[str, Any]] = []
        self.say(overview())

    def say(self, document: Overview) -> None:
        """Have every feed send this document, and each new one begin with it."""
        self._document = copy.deepcopy(document)
        self._version += 1

    def admit(self, request: Request) -> None:
        """Raise where the key is missing or another."""
        given = request.headers.get("authorization")
        if self.key is not None and given != f"Bearer {self.key}":
            said = "no API key is given" if given is None else "the API key given is none of this gateway's"
            raise Refusal("unauthorized", said, {"field": "Authorization", "hint": "packetfs keys add"})

    async def feed(self) -> AsyncIterator[str]:
        """Yield the documents."""
        self.streams += 1
        try:
            said: Any = None
            while not self.hang_up.is_set():
                now = (self._version, self.problem)
                if now != said:
                    said = now
                    name, data = ("problem", self.problem) if self.problem is not None else ("overview", self._document)
                    yield f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
                await asyncio.sleep(_PAUSE_S)
        finally:
            self.streams -= 1

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI(title="PacketFS gateway", version="0", description="A test's.", docs_url=None, openapi_url=None)
        app.state.context = SimpleNamespace(stopping=False, settings=load_settings({}, None))
        problems.install(app)
        openapi.install(app)
        app.include_router(pages.router)
        app.include_router(docs.router)
        app.add_middleware(Rim, origins=(), metrics=RequestMetrics(CollectorRegistry()))

        @app.get("/v1/overview/events", include_in_schema=False)
        async def events(request: Request) -> Response:
            self.admit(request)
            return StreamingResponse(self.feed(), media_type="text/event-stream")

        @app.post("/v1/{what}", include_in_schema=False)
        async def post(request: Request, what: str) -> Response:
            self.admit(request)
            self.asked.append((what, await request.json()))
            request.state.whole = True
            if self.refusal is not None:
                raise self.refusal
            if what == "jobs":
                return reply(202, self.statuses[0])
            rows = [candidate("local"), candidate("fly", veto="would cost $1, policy.max_cost_usd leaves $0.5")]
            return reply(
                200, {"substrate": "local", "panic": False, "measured": True, "byte_count": 1024, "candidates": rows}
            )

        @app.get("/v1/jobs/{job_id}/events", include_in_schema=False)
        async def job_events(job_id: str) -> Response:
            async def told() -> AsyncIterator[str]:
                sent, ended = 0, False
                while not (ended or self.hang_up.is_set()):
                    if sent < len(self.statuses):
                        yield f"event: status\ndata: {json.dumps(self.statuses[sent])}\n\n"
                        ended = self.statuses[sent]["status"] not in ("queued", "running")
                        sent += 1
                    await asyncio.sleep(_PAUSE_S)
                yield 'event: end\ndata: {"reason": "ended"}\n\n'

            return StreamingResponse(told(), media_type="text/event-stream")

        @app.delete("/v1/jobs/{job_id}", include_in_schema=False)
        async def cancel(job_id: str) -> Response:
            self.asked.append(("cancel", job_id))
            ended = {"job_id": job_id, "status": "cancelled", "result": None, "error": None}
            self.statuses.append(ended)
            return reply(200, ended)

        return app


@contextmanager
def telling(gateway: Gateway, port: int = 0) -> Iterator[Client]:
    """Serve a gateway; its streams end when this does."""
    gateway.hang_up.clear()
    with serving(gateway.app(), port) as client:
        try:
            yield client
        finally:
            gateway.hang_up.set()
