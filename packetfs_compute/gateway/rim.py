"""The outermost layer: what every answer carries, who may call from a browser, and what is counted of each request.

CORS does not keep a page from *sending* a simple POST across origins, only from reading the answer. So a request that
changes something and comes from a foreign origin is refused here, whatever it is; browsers always name the origin of such
a one (Fetch, section 3.2.1).
"""

import logging
import time
from collections.abc import Collection, MutableMapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from packetfs_compute.gateway.gate import own_page
from packetfs_compute.gateway.problems import problem
from packetfs_compute.validation import show

__all__ = ["RequestMetrics", "Rim"]

_log = logging.getLogger(__name__)

_ALWAYS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = frozenset({*_SAFE, "POST", "DELETE", "PUT", "PATCH"})
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}


class RequestMetrics:
    """What Prometheus is told of the gateway's requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "packetfs_gateway_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "packetfs_gateway_request_seconds",
            "Until the answer began.",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one; strangers' paths and methods make no labels of their own."""
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class Rim:
    """The layer around ``app``; ``origins`` are those whose pages may call."""

    def __init__(self, app: ASGIApp, origins: Collection[str], metrics: RequestMetrics) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        listed = origin in self._origins
        started_s, begun = time.perf_counter(), False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _complete(message, origin if listed else None, bool(self._origins), leave_body=_left(scope, headers))
                self._metrics.answered(scope, message["status"], time.perf_counter() - started_s)
            await send(message)

        refused = self._refusal(scope["method"], origin, headers)
        try:
            await (refused or self._app)(scope, receive, sending)
        except Exception:
            _log.exception("a request failed in a way that has no type")
            if begun:
                raise
            await problem("internal", "the gateway failed in a way that has no type")(scope, receive, sending)

    def _refusal(self, method: str, origin: str | None, headers: Headers) -> Response | None:
        """Return the answer to what needs no route: a foreign page's request, a preflight."""
        if origin is None:
            return None
        own = own_page(origin, headers.get("host", ""))
        if method == "OPTIONS" and "access-control-request-method" in headers and origin in self._origins:
            return Response(None, 204, _PREFLIGHT)
        if method in _SAFE or own or origin in self._origins:
            return None
        return problem(
            "forbidden",
            f"pages of {show(origin)} may not do this",
            {"field": "Origin", "hint": "PACKETFS_GATEWAY_ORIGINS lists the origins that may"},
        )


def _left(scope: Scope, headers: Headers) -> bool:
    """Whether a body was announced that nobody has read to its end: it would have to be, were the connection kept."""
    announced = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    state: MutableMapping[str, Any] = scope.get("state", {})
    return announced and not state.get("whole", False)


def _complete(message: Message, origin: str | None, varies: bool, *, leave_body: bool) -> None:
    fields = MutableHeaders(scope=message)
    for name, value in {**_ALWAYS, "Cache-Control": "no-store"}.items():
        fields.setdefault(name, value)
    if varies:
        fields.add_vary_header("Origin")
    if origin is not None:
        fields["Access-Control-Allow-Origin"] = origin
        fields["Access-Control-Expose-Headers"] = "Location, Retry-After"
    if leave_body:
        fields["Connection"] = "close"
