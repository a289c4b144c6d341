"""Browsers that lend a hand: how they come in, and the endpoint that dispatchers post programs for them to.

::

    POST /v1/browsers/tickets        a ticket, for whoever may lend
    WS   /v1/browsers                where a browser shows it, and computes (remote/contract/browser.schema.json)
    POST /v1/browsers/compute        the wire of remote/contract/, signed, answered by the hub; so is …/compute/batch
    GET  /v1/browsers/health         whether a browser is there

The substrate ``browser`` is this endpoint. It needs a signing key (``PACKETFS_SIGNING_KEYS``): without one the gateway
serves no browser at all.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from packetfs_compute import __version__
from packetfs_compute.errors import BadProgram, Busy, Internal, JobError, TooLarge, Unauthorized, error_class
from packetfs_compute.gateway.bodies import MAX_BODY, parsed, read_body
from packetfs_compute.gateway.context import Context, context_of, needs
from packetfs_compute.gateway.gate import Caller, own_page
from packetfs_compute.gateway.lending import Lending
from packetfs_compute.gateway.openapi import described
from packetfs_compute.gateway.problems import Refusal, reply
from packetfs_compute.names import MAX_TIMEOUT_MS, OPS, PROTOCOL
from packetfs_compute.serving import batch_jobs
from packetfs_compute.signature import HEADER
from packetfs_compute.volunteers import Limits, network_of
from packetfs_compute.volunteers.tickets import TICKET_S
from packetfs_compute.wire import failure, job_id_of

__all__ = ["router"]

router: Final = APIRouter(prefix="/v1/browsers", tags=["browsers"])

_MAX_BATCH_BODY: Final = 1 << 20
_RETRY_AFTER_S: Final = 1
_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013
_T = TypeVar("_T")


_Lender = Annotated[Caller, needs("browser", unless=lambda settings: settings.browsers_open)]


@router.post("/tickets", status_code=201, **described("ticket"))
async def ticket(request: Request, caller: _Lender) -> Response:
    """Give a ticket: whoever shows it within a minute, from the same network, may lend a browser; once.

    Browsers that come with an API key are known by it; those that come without one, by their network.
    """
    lending = _lending(context_of(request))
    network = _network(request.client.host if request.client else "")
    account = caller.id if caller.id.startswith("key:") else f"network:{network.replace('/', '-')}"
    document = {"ticket": lending.tickets.issue(account, network), "account": account, "expires_in_s": TICKET_S}
    return reply(201, document)


@router.websocket("")
async def join(socket: WebSocket) -> None:
    """Speak with a browser that shows a ticket, until it leaves. A page of a foreign origin is refused unheard."""
    context: Context = socket.app.state.context
    origins = socket.headers.getlist("origin")
    known = len(origins) == 1 and (
        own_page(origins[0], socket.headers.get("host", "")) or origins[0] in context.settings.gateway_origins
    )
    if not known or context.lending is None or context.stopping:
        await socket.close(_POLICY_VIOLATION)  # before it is accepted: the handshake's answer is 403
        return
    network = _network(socket.client.host if socket.client else "")
    try:
        with context.sockets.place(network):
            await socket.accept()
            await context.lending.hub.serve(_Connection(socket), network)
    except Busy:
        await socket.close(_TRY_AGAIN_LATER)


@router.get("/health", include_in_schema=False)
async def health(request: Request) -> Response:
    """Say whether a browser is there, as ``GET /health`` of any substrate says that it is well."""
    browsers = _lending(context_of(request)).hub.stats().browsers
    document = {
        "status": "healthy" if browsers else "unhealthy",
        "version": __version__,
        "protocol": PROTOCOL,
        "region": "browser",
        "ops": list(OPS),
        "kernel": "wasm",
        "limits": {"maxRangeBytes": Limits().range_bytes, "maxTimeoutMs": MAX_TIMEOUT_MS},
        "browsers": browsers,
    }
    return reply(200 if browsers else 503, document)


@router.post("/compute", include_in_schema=False)
async def compute(request: Request) -> Response:
    """Have a browser compute, and answer as any substrate does."""
    started_s, job = time.perf_counter(), None
    try:
        lending = _lending_on_the_wire(context_of(request))
        job = await _signed(request, lending, MAX_BODY)
        answer = await _while_here(request, lending.hub.compute(job))
    except JobError as error:
        answer = failure(job_id_of(job), error, time.perf_counter() - started_s)
    return _answered(answer)


@router.post("/compute/batch", include_in_schema=False)
async def batch(request: Request) -> Response:
    """Have browsers compute many, each as good as it goes."""
    started_s = time.perf_counter()
    try:
        lending = _lending_on_the_wire(context_of(request))
        jobs: Sequence[Any] = batch_jobs(await _signed(request, lending, _MAX_BATCH_BODY))
        answers = await _while_here(request, asyncio.gather(*(lending.hub.compute(job) for job in jobs)))
    except JobError as error:
        return _answered(failure(None, error, time.perf_counter() - started_s))
    return reply(200, {"results": answers})


class _Connection:
    """A WebSocket as the hub knows one."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise ConnectionResetError
        return message.get("text") or ""  # bytes are no frame, and neither is nothing

    async def send(self, text: str) -> None:
        await _gone_is_gone(self._socket.send_text(text))

    async def close(self, code: int, reason: str) -> None:
        await _gone_is_gone(self._socket.close(code, reason))


async def _gone_is_gone(sending: Awaitable[None]) -> None:
    try:
        await sending
    except (WebSocketDisconnect, RuntimeError, OSError) as error:  # RuntimeError: it is closed already, says starlette
        raise ConnectionResetError from error


def _network(address: str) -> str:
    try:
        return network_of(address)
    except ValueError:  # a proxy on a Unix socket, or one that names no address
        return "unknown"


def _lending(context: Context) -> Lending:
    if context.lending is None:
        hint = "set PACKETFS_SIGNING_KEYS, with which dispatchers post programs for browsers"
        raise Refusal("not_implemented", "this gateway has no work for browsers", {"hint": hint})
    return context.lending


def _lending_on_the_wire(context: Context) -> Lending:
    try:
        return _lending(context)
    except Refusal as error:
        raise Unauthorized(error.message, error.details) from None


async def _signed(request: Request, lending: Lending, limit: int) -> object:
    """Return the JSON of a body, once it is all here and its signature is good."""
    signatures = request.headers.getlist(HEADER)
    if lending.verifier is not None and len(signatures) != 1:
        raise Unauthorized("the request is not signed", {"hint": f"send one {HEADER}"})
    try:
        body = await read_body(request, limit)
        if lending.verifier is not None:
            lending.verifier.verify(request.method, request.scope["path"], body, signatures[0])
        return parsed(body)
    except Refusal as error:
        raise (TooLarge if error.error == "too_large" else BadProgram)(error.message, error.details) from None


async def _while_here(request: Request, work: Awaitable[_T]) -> _T:
    """Return what ``work`` does; cancel it when the client leaves, so that browsers are free for others."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Internal("the client left")  # which nobody will read
    finally:
        leaving.cancel()
        working.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answered(answer: Mapping[str, Any]) -> Response:
    """Return the response that an answer of the wire is."""
    if answer["success"]:
        return reply(200, answer)
    error = answer["error"]
    status = error_class(error["type"]).status
    after_s = math.ceil(error.get("retry_after_s", _RETRY_AFTER_S))
    return reply(status, answer, {"Retry-After": str(after_s)} if status == Busy.status else None)
