"""What the OpenAPI document says of each operation, as data: bodies, answers, examples, the scope that it needs."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from packetfs_compute import __version__
from packetfs_compute.gateway.samples import (
    EXPLAINED,
    FLEET,
    JOB,
    KEY,
    METRICS,
    OVERVIEW,
    PROGRAM,
    SCAN,
    SCANNED,
    SCANNING,
    STATUS,
)
from packetfs_compute.gateway.schemas import JOB_ID, SCHEMAS, ref

__all__ = ["described", "install"]

_NOT_FOUND: Final = {"error": "not_found", "detail": "no job 'j2' is known"}
_EVENTS: Final = (
    'retry: 2000\nevent: status\ndata: {"job_id":"j1","status":"done",…}\n\nevent: end\ndata: {"reason":"ended"}\n\n'
)
_OVERVIEW_EVENTS: Final = 'retry: 2000\nevent: overview\ndata: {"at":1764000060.5,…}\n\n'

_Answers = Mapping[int, tuple[str, str, Any]]
"""Of a status: what it means, the schema or media type, an example."""
_OPERATIONS: Final[Mapping[str, tuple[str, tuple[str, Any] | None, _Answers]]] = {
    "submit": (
        "submit",
        ("JobRequest", {"program": PROGRAM, "policy": {"goal": "cheapest"}, "job_id": "j1"}),
        {202: ("The job is accepted.", "JobStatus", JOB), 200: ("It was already.", "JobStatus", STATUS)},
    ),
    "job": ("read or submit", None, {200: ("How the job stands.", "JobStatus", STATUS)}),
    "cancel": ("submit", None, {200: ("How it stands now.", "JobStatus", {**JOB, "status": "cancelled"})}),
    "events": ("read or submit", None, {200: ("Events, until the job ends.", "text/event-stream", _EVENTS)}),
    "scan": (
        "submit",
        ("ScanRequest", {"program": SCANNED, "window": 8388608, "policy": {"max_cost_usd": 0.5}, "job_id": "s1"}),
        {202: ("The scan is accepted.", "JobStatus", SCAN), 200: ("It was already.", "JobStatus", SCANNING)},
    ),
    "explain": (
        "read or submit",
        ("ExplainRequest", {"program": PROGRAM, "policy": {"goal": "cheapest"}}),
        {200: ("The decision.", "Explained", EXPLAINED)},
    ),
    "fleet": ("read", None, {200: ("The fleet.", "Fleet", FLEET)}),
    "overview": ("read", None, {200: ("What the dashboard shows.", "Overview", OVERVIEW)}),
    "overview_events": ("read", None, {200: ("Events, one each second.", "text/event-stream", _OVERVIEW_EVENTS)}),
    "metrics": ("read", None, {200: ("Prometheus' text format.", "text/plain", METRICS)}),
    "health": (
        "",
        None,
        {
            200: ("Healthy or degraded.", "Health", {"status": "healthy", "version": __version__, "unwell": []}),
            503: ("No job could run.", "Health", {"status": "unhealthy", "version": __version__, "unwell": [
                {"what": "queue", "name": "local", "message": "nobody consumes packetfs.local"}]}),
        },
    ),
    "ticket": (
        "browser",
        None,
        {201: ("The ticket.", "Ticket", {"ticket": "v1.…", "account": "key:9f86d081884c", "expires_in_s": 60})},
    ),
    "add_key": (
        "admin",
        ("KeyRequest", {"scopes": ["submit", "read"], "name": "ci"}),
        {201: ("The key, shown once.", "Key", {"key": "pfs_…", **KEY})},
    ),
    "keys": ("admin", None, {200: ("All keys.", "Keys", {"keys": [KEY]})}),
    "revoke_key": ("admin", None, {200: ("What was known of the key.", "Key", KEY)}),
}  # fmt: skip


def described(name: str) -> dict[str, Any]:
    """Return what the route decorator of an operation is told besides its path."""
    scope, body, _ = _OPERATIONS[name]
    extra: dict[str, Any] = {"x-scope": scope, "security": [{"key": []}, {}] if scope else []}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _content(*body)}
    if name in ("submit", "scan"):
        about = "The job's id, so that asking again asks for the same job."
        header = {"name": "Idempotency-Key", "in": "header", "schema": JOB_ID, "description": about, "example": "j1"}
        extra["parameters"] = [header]
    return {"operation_id": name, "responses": _responses(name), "openapi_extra": extra}


def _responses(name: str) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": _content(kind, example)}
        for status, (text, kind, example) in _OPERATIONS[name][2].items()
    }
    responses["default"] = {
        "description": "A problem; `error` is its type.",
        "content": {"application/problem+json": {"schema": ref("Problem"), "example": _problem()}},
    }
    return responses


def install(app: FastAPI) -> None:
    """Have ``app`` give the document, with the schemas that it refers to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            key = {"type": "http", "scheme": "bearer", "description": "An API key, `pfs_…`: `packetfs keys add`."}
            for operation in (one for item in made["paths"].values() for one in item.values()):
                # FastAPI leaves out what is null, which in an example is a value.
                responses = _responses(operation["operationId"])
                operation["responses"] = {str(status): answer for status, answer in responses.items()}
            made["components"] = {"schemas": dict(SCHEMAS), "securitySchemes": {"key": key}}
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _content(kind: str, example: Any) -> dict[str, Any]:
    if "/" in kind:
        return {kind: {"schema": {"type": "string"}, "example": example}}
    return {"application/json": {"schema": ref(kind), "example": example}}


def _problem() -> dict[str, Any]:
    about = {"type": "/docs#problem-not_found", "title": "Not found", "status": 404}
    return {**about, **_NOT_FOUND, "field": "job_id"}
