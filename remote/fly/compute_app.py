"""The compute server as an ASGI app: ``remote/contract/`` over HTTP, on :func:`packetfs_compute.executor.execute`.

Nothing in here knows a platform; ``server.py`` beside it does. What a stranger may send is bounded before it is looked at:

- A body is read up to its bound and for ten seconds, and all bodies under way together up to 32 MiB. Then its signature
  is verified, and only what is signed is parsed.
- ``max_concurrency`` attempts run at once, each in a thread of its own. One more is answered with 429 at once: there is
  no queue. A batch takes the slots that are free, at least one, and runs its jobs on these.
- A slot is given back when its attempt has ended. Its timeout sees to that; and where the client leaves, nobody waits for
  the answer, and the attempt ends within half a second or so.
- What jobs from elsewhere may not open, :mod:`packetfs_compute.serving` keeps from them.
"""

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from packetfs_compute.deadline import Token, cancelled_by
from packetfs_compute.errors import (
    AttemptTimeout,
    BadProgram,
    Busy,
    ConfigurationError,
    Internal,
    JobError,
    TooLarge,
    Unauthorized,
    error_class,
)
from packetfs_compute.executor import health
from packetfs_compute.serving import attempt, batch_jobs, for_others
from packetfs_compute.settings import Settings
from packetfs_compute.signature import HEADER, Verifier
from packetfs_compute.validation import show
from packetfs_compute.wire import failure, job_id_of

__all__ = ["create_app"]

_MAX_BODY: Final = 1 << 16
_MAX_BATCH_BODY: Final = 1 << 20
_MAX_BODIES: Final = 32 << 20
"""Most bytes of bodies under way at once: they come before their signatures do."""
_BODY_TIMEOUT_S: Final = 10.0
_RETRY_AFTER_S: Final = 1


def create_app(settings: Settings) -> Starlette:
    """Return the app; raise :class:`ConfigurationError` where it would serve anyone and was not told that it may."""
    if not settings.signing_keys and not settings.allow_unsigned:
        raise ConfigurationError(
            "there is no signing key: anyone could have this server compute",
            {"field": "PACKETFS_SIGNING_KEYS", "hint": "set it to keyid:secret, or PACKETFS_ALLOW_UNSIGNED=1"},
        )
    server = _Server(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        server.threads.shutdown(wait=False, cancel_futures=True)

    app = Starlette(
        routes=[
            Route("/compute", server.compute, methods=["POST"]),
            Route("/compute/batch", server.batch, methods=["POST"]),
            Route("/health", server.health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _no_route, Exception: _unforeseen},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # such a redirect would lead to wherever the Host field says
    app.state.running, app.state.threads = server.running, server.threads
    return app


class _Slots:
    """Room for ``free`` attempts. Used by the event loop alone."""

    def __init__(self, free: int) -> None:
        self.all = self.free = free

    def take(self, wanted: int) -> int:
        """Take up to ``wanted`` slots; raise :class:`Busy` when there is none."""
        if self.free == 0:
            raise _busy(f"all {self.all} slots are taken")
        taken = min(wanted, self.free)
        self.free -= taken
        return taken

    def give(self) -> None:
        self.free += 1


class _Server:
    """The three endpoints."""

    def __init__(self, settings: Settings) -> None:
        self._settings = for_others(settings)
        self._verifier = Verifier(settings.signing_keys) if settings.signing_keys else None
        self._buffered = 0
        self.running: set[int] = set()
        """The threads in which attempts run, which outlast the tasks that wait for them."""
        self.slots = _Slots(settings.max_concurrency)
        self.threads = ThreadPoolExecutor(settings.max_concurrency, thread_name_prefix="attempt")

    async def health(self, _: Request) -> Response:
        return _reply(200, health(self._settings))

    async def compute(self, request: Request) -> Response:
        started_s, job = time.perf_counter(), None
        try:
            job = _parse(await self._body(request, _MAX_BODY))
            (answer,) = await self._attempts(request, [job])
        except JobError as error:
            answer = failure(job_id_of(job), error, time.perf_counter() - started_s)
        return _answer(request, answer)

    async def batch(self, request: Request) -> Response:
        started_s = time.perf_counter()
        try:
            jobs = batch_jobs(_parse(await self._body(request, _MAX_BATCH_BODY)))
            return _reply(200, {"results": await self._attempts(request, jobs)})
        except JobError as error:
            return _answer(request, failure(None, error, time.perf_counter() - started_s))

    async def _attempts(self, request: Request, jobs: Sequence[object]) -> list[dict[str, Any]]:
        """Run the jobs on as many slots as are free, and return their answers in order; no slot free is ``Busy``."""
        loop, waiting, token = asyncio.get_running_loop(), iter(enumerate(jobs)), Token()
        answers: dict[int, dict[str, Any]] = {}

        async def work() -> None:
            try:
                for at, job in waiting:
                    answers[at] = await loop.run_in_executor(self.threads, self._attempt, job, token)
            finally:
                self.slots.give()

        workers = [work() for _ in range(self.slots.take(len(jobs)) if jobs else 0)]
        leaving = asyncio.create_task(_until_the_client_leaves(request))
        leaving.add_done_callback(lambda _: token.cancel())
        try:
            # Tasks of their own: if this one is cancelled, they still end, and give their slots back when they do.
            await asyncio.shield(asyncio.gather(*workers))
        finally:
            leaving.cancel()
        return [answers[at] for at in range(len(jobs))]

    def _attempt(self, job: object, token: Token) -> dict[str, Any]:
        thread = threading.get_ident()
        self.running.add(thread)
        try:
            with cancelled_by(token):
                return attempt(job, self._settings)
        finally:
            self.running.discard(thread)

    async def _body(self, request: Request, limit: int) -> bytes:
        """Return the request's body, once it is all here and its signature is good."""
        signatures = request.headers.getlist(HEADER)
        signature = signatures[0] if len(signatures) == 1 else None
        if self._verifier is not None and signature is None:
            raise Unauthorized("the request is not signed", {"hint": f"send one {HEADER}"})
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                body = await self._read(request, limit)
        except TimeoutError:
            raise AttemptTimeout(f"the request's body did not come within {_BODY_TIMEOUT_S:g} s") from None
        except ClientDisconnect:
            raise Internal("the client left") from None  # which nobody will read
        request.state.whole = True
        if self._verifier is not None:
            self._verifier.verify(request.method, request.scope["path"], body, signature)
        return body

    async def _read(self, request: Request, limit: int) -> bytes:
        too_large = TooLarge(f"the request is longer than {limit} bytes")
        if int(request.headers.get("Content-Length", 0)) > limit:
            raise too_large
        body = bytearray()
        try:
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                if self._buffered + len(chunk) > _MAX_BODIES:
                    raise _busy("too many requests are being received")
                body += chunk
                self._buffered += len(chunk)
        finally:
            self._buffered -= len(body)
        return bytes(body)


async def _until_the_client_leaves(request: Request) -> None:
    """Return once the connection is closed; of a request whose body is read, nothing else is left to receive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parse(body: bytes) -> object:
    """Return the JSON of a body. Other encodings, NaN, nesting without end and numbers without end are none."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else show(str(error))
        details = {"field": "request", "hint": "send a JSON object in UTF-8"}
        raise BadProgram(f"the request is no JSON: {why}", details) from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _busy(message: str) -> Busy:
    return Busy(message, {"retry_after_s": _RETRY_AFTER_S})


def _answer(request: Request, answer: Mapping[str, Any]) -> Response:
    """Return the response that an answer of the wire is."""
    status, fields = 200, {}
    if not answer["success"]:
        error = answer["error"]
        status = error_class(error["type"]).status
        if status == Busy.status:
            fields["Retry-After"] = str(math.ceil(error.get("retry_after_s", _RETRY_AFTER_S)))
    if not getattr(request.state, "whole", False):
        fields["Connection"] = "close"  # or the rest of the body would have to be read
    return _reply(status, answer, fields)


def _reply(status: int, document: Mapping[str, Any], fields: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return Response(text, status, {**(fields or {}), "Cache-Control": "no-store"}, "application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    """Answer what no route takes: 404, or 405 with what is allowed there."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    fields = dict((error.headers if isinstance(error, HTTPException) else None) or {})
    if request.method not in ("GET", "HEAD"):
        fields["Connection"] = "close"
    hint = "POST /compute, POST /compute/batch and GET /health are served"
    message = "there is no such path" if status == 404 else f"{show(request.method)} is not served there"
    return _reply(status, failure(None, BadProgram(message, {"field": "request", "hint": hint}), 0), fields)


async def _unforeseen(request: Request, _: Exception) -> Response:
    return _answer(request, failure(None, Internal("the server failed in a way that has no type"), 0))
