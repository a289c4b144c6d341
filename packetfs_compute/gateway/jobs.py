"""Jobs over HTTP: submit, look, wait, watch, cancel."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from packetfs_compute.desk import check_job_id
from packetfs_compute.errors import BadProgram
from packetfs_compute.gateway.bodies import json_body
from packetfs_compute.gateway.context import Context, context_of, needs
from packetfs_compute.gateway.events import EventStream, events
from packetfs_compute.gateway.gate import Caller
from packetfs_compute.gateway.openapi import described
from packetfs_compute.gateway.problems import Refusal, reply
from packetfs_compute.gateway.watching import ENDED, Status, Watch
from packetfs_compute.names import MAX_JOB_ID_CHARS
from packetfs_compute.validation import integer, require_object, show

__all__ = ["router"]

router: Final = APIRouter(prefix="/v1", tags=["jobs"])

_MAX_WAIT_S: Final = 30.0
_REQUEST: Final = frozenset({"program", "policy", "priority", "job_id"})
_LOWEST_PRIORITY: Final = 9

_Submitter = Annotated[Caller, needs("submit")]
_Reader = Annotated[Caller, needs("read", "submit")]
_Body = Annotated[Any, Depends(json_body)]
_JobId = Annotated[str, Path(min_length=1, max_length=MAX_JOB_ID_CHARS, description="The job's id.", examples=["j1"])]


@router.post("/jobs", status_code=202, **described("submit"))
async def submit(request: Request, _: _Submitter, body: _Body) -> Response:
    """Submit a job.

    The job's id is the `Idempotency-Key` header or `job_id`, else a new one. The same job again is not run again: the
    answer is 200 with its status. The same id with another program or policy is a conflict.
    """
    return await _accepted(request, require_object(body, "request", _REQUEST))


@router.post("/scans", status_code=202, **described("scan"))
async def scan(request: Request, _: _Submitter, body: _Body) -> Response:
    """Scan a whole object: a job whose range is split into windows, which run on all places at once.

    While it runs, its status has a `progress`. All else is as for `POST /v1/jobs`, under whose paths it is found.
    """
    return await _accepted(request, require_object(body, "request", _REQUEST | {"window"}), scan=True)


async def _accepted(request: Request, given: Mapping[str, Any], *, scan: bool = False) -> Response:
    context = context_of(request)
    priority = integer(given.get("priority") or 0, "request.priority", 0, _LOWEST_PRIORITY)
    job_id = _id_of(request.headers.get("idempotency-key"), given.get("job_id")) or str(uuid.uuid4())
    # The desk publishes twice what two submit at the very same moment, before either is in the ledger; clients that ask
    # again because an answer is late do just that.
    async with context.turns.of(job_id):
        known = await context.threads.call(context.jobs.status, job_id)
        status = await _submit(context, job_id, given, priority, scan=scan)
    return reply(202 if known is None else 200, status, {"Location": f"/v1/jobs/{job_id}"})


async def _submit(context: Context, job_id: str, given: Mapping[str, Any], priority: int, *, scan: bool) -> Status:
    program, policy = given.get("program"), given.get("policy")
    try:
        if scan:
            asked = (job_id, program, given.get("window"), policy, priority)
            return await context.threads.call(context.jobs.submit_scan, *asked)
        return await context.threads.call(context.jobs.submit, job_id, program, policy, priority)
    except BadProgram as error:
        if error.details.get("field") != "job_id":
            raise
        details = {"field": "job_id", "job_id": job_id, "hint": "choose another id, or submit the very same job"}
        raise Refusal("conflict", error.message, details) from error


@router.get("/jobs/{job_id}", **described("job"))
async def job(
    request: Request,
    caller: _Reader,
    job_id: _JobId,
    wait_s: Annotated[
        float,
        Query(
            ge=0,
            le=_MAX_WAIT_S,
            allow_inf_nan=False,
            description="Wait so many seconds for the job's end.",
            examples=[10],
        ),
    ] = 0,
) -> Response:
    """Return a job's status, at once or when it has ended."""
    context = context_of(request)
    status = await _status(context, job_id)
    if wait_s and status["status"] not in ENDED:
        with context.streams.place(caller.id):
            now = await _watch(request, context, job_id).ended(status, wait_s)
        status = _found(now, job_id)
    return reply(200, status)


@router.delete("/jobs/{job_id}", **described("cancel"))
async def cancel(request: Request, _: _Submitter, job_id: _JobId) -> Response:
    """Cancel a job. One that has ended stays as it is; one that runs is stopped, where its place can do that."""
    context = context_of(request)
    return reply(200, _found(await context.threads.call(context.jobs.cancel, job_id), job_id))


@router.get("/jobs/{job_id}/events", **described("events"))
async def job_events(request: Request, caller: _Reader, job_id: _JobId) -> Response:
    """Watch a job: server-sent events of its status, at once and at each change, until it has ended.

    `event: status` holds a JobStatus; `event: end` is the last. A stream lives for five minutes at most.
    """
    context = context_of(request)
    first = await _status(context, job_id)
    watch = _watch(request, context, job_id)
    context.streams.take(caller.id)
    feed = events(first, watch, lambda: context.stopping, request.is_disconnected)
    return EventStream(feed, context.streams, caller.id)


def _watch(request: Request, context: Context, job_id: str) -> Watch:
    async def over() -> bool:
        return context.stopping or await request.is_disconnected()

    return Watch(lambda: context.threads.call(context.jobs.status, job_id), over)


async def _status(context: Context, job_id: str) -> Status:
    return _found(await context.threads.call(context.jobs.status, job_id), job_id)


def _found(status: Status | None, job_id: str) -> Status:
    if status is None:
        details = {"field": "job_id", "hint": "results are kept for PACKETFS_RESULT_TTL_S; see that the id is right"}
        raise Refusal("not_found", f"no job {show(job_id)} is known", details)
    return status


def _id_of(header: str | None, given: object) -> str | None:
    """Return the id that the caller chose, by header or body."""
    if header is None:
        return None if given is None else _checked(given, "request.job_id")
    # The header is a structured field, a string in quotes (draft-ietf-httpapi-idempotency-key-header); most send it bare.
    quoted = len(header) > 1 and header[0] == header[-1] == '"'
    job_id = _checked(header[1:-1] if quoted else header, "Idempotency-Key")
    if given is not None and given != job_id:
        details = {"field": "Idempotency-Key", "hint": "send one of them, or both alike"}
        raise Refusal("bad_request", "Idempotency-Key and job_id differ", details)
    return job_id


def _checked(raw: object, field: str) -> str:
    try:
        return check_job_id(raw)
    except BadProgram as error:
        raise Refusal("bad_request", f"{field} is {show(raw)}", {"field": field, "hint": error.hint}) from None
