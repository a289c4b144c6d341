"""What the OpenAPI document says of each operation, as data: bodies, answers, examples, the scope that it needs.

The rules of a program and a policy are kept by their parsers; the schemas here are for readers and for tools, and a test
holds them to the parsers.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from packetfs_compute import __version__
from packetfs_compute.gateway.keys import MAX_NAME_CHARS, SCOPES
from packetfs_compute.gateway.problems import PROBLEMS
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
from packetfs_compute.names import (
    MAX_ETAG_CHARS,
    MAX_INTEGER,
    MAX_JOB_ID_CHARS,
    MAX_OPS,
    MAX_RANGE_BYTES,
    MAX_TIMEOUT_MS,
    MAX_URL_CHARS,
    OPS,
    OPS_WITH_IMM,
    OPS_WITH_SEED,
)

__all__ = ["SCHEMAS", "described", "install"]

_Schema = Mapping[str, Any]


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: _Schema, *required: str, closed: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        document["required"] = list(required)
    if closed:
        document["additionalProperties"] = False
    return document


def _maybe(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"], **more}


def _list_of(*kinds: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": list(kinds)}}


def _names(text: str) -> dict[str, Any]:
    return _maybe("array", items={"type": "string", "maxLength": 64}, maxItems=64, description=text)


_JOB_ID: Final = {"type": "string", "pattern": f"^[A-Za-z0-9._:-]{{1,{MAX_JOB_ID_CHARS}}}$"}
_STATUS: Final = {"enum": ["healthy", "degraded", "unhealthy"]}
_AMOUNT: Final = {"minimum": 0, "maximum": 1_000_000}
_RANGE: Final = {
    "data_url": {"type": "string", "minLength": 1, "maxLength": MAX_URL_CHARS, "description": "http, https, s3."},
    "offset": _maybe("integer", minimum=0, maximum=MAX_INTEGER, description="First byte; 0."),
    "length": _maybe("integer", minimum=0, maximum=MAX_RANGE_BYTES, description="Bytes; the rest of the object."),
    "etag": _maybe(
        "string",
        pattern='^"[!#-~]*"$',
        maxLength=MAX_ETAG_CHARS,
        description="A strong entity tag in its quotes: compute on this version only.",
    ),
}
_OPS: Final[tuple[tuple[dict[str, Any], tuple[str, ...]], ...]] = (
    (
        {
            "op": {"enum": [op for op in OPS if op in OPS_WITH_IMM]},
            "imm": {"type": "integer", "minimum": 0, "maximum": 255},
        },
        ("op", "imm"),
    ),
    (
        {
            "op": {"enum": [op for op in OPS if op in OPS_WITH_SEED]},
            "seed": _maybe("string", pattern="^[0-9a-f]{16}$", description="The value to go on from."),
        },
        ("op",),
    ),
    ({"op": {"enum": [op for op in OPS if op not in OPS_WITH_IMM | OPS_WITH_SEED]}}, ("op",)),
)
"""What an operation is made of, and what of it is required; each stands in ``ops``, or straight in a program."""

SCHEMAS: Final[Mapping[str, _Schema]] = {
    "Op": {"anyOf": [_object(properties, *required, closed=True) for properties, required in _OPS]},
    "Program": {
        "description": "A byte range of the object at `data_url`, and `ops` to run over it in one pass, or one `op`.",
        "anyOf": [
            _object(
                {**_RANGE, "ops": {"type": "array", "items": _ref("Op"), "minItems": 1, "maxItems": MAX_OPS}},
                *("data_url", "ops"),
                closed=True,
            ),
            *(_object({**_RANGE, **one}, "data_url", *required, closed=True) for one, required in _OPS),
        ],
    },
    "Policy": _object(
        {
            "goal": {"enum": ["balanced", "cheapest", "fastest", None]},
            "value_of_time_usd_per_hour": _maybe("number", **_AMOUNT),
            "max_cost_usd": _maybe("number", **_AMOUNT),
            "deadline_s": _maybe("number", minimum=0.001, maximum=MAX_TIMEOUT_MS / 1000),
            "substrates": _names("Only these."),
            "exclude": _names("Not these."),
            "min_memory_mb": _maybe("integer", minimum=0, maximum=1 << 20),
            "trust": {"enum": ["any", "verified", "own", None]},
            "cache": _maybe("boolean", description="Whether values that are known already will do; true."),
            "append_only": _maybe(
                "boolean",
                description="Of a scan: the object only ever grows at its end, so that an earlier version's values are "
                "those of its head, once two windows are seen to be the same; false.",
            ),
        },
        closed=True,
    ),
    "JobRequest": _object(
        {
            "program": _ref("Program"),
            "policy": {"anyOf": [_ref("Policy"), {"type": "null"}]},
            "priority": _maybe("integer", minimum=0, maximum=9, description="0 is the first, and the default."),
            "job_id": {**_JOB_ID, "type": ["string", "null"]},
        },
        "program",
        closed=True,
    ),
    "ScanRequest": _object(
        {
            "program": _ref("Program"),
            "window": _maybe("integer", minimum=1, maximum=MAX_RANGE_BYTES, description="Bytes; chosen if left out."),
            "policy": {"anyOf": [_ref("Policy"), {"type": "null"}], "description": "Of the whole scan."},
            "priority": _maybe("integer", minimum=0, maximum=9, description="0 is the first, and the default."),
            "job_id": {**_JOB_ID, "type": ["string", "null"]},
        },
        "program",
        closed=True,
    ),
    "ExplainRequest": _object(
        {"program": _ref("Program"), "policy": {"anyOf": [_ref("Policy"), {"type": "null"}]}}, "program", closed=True
    ),
    "JobStatus": _object(
        {
            "job_id": {"type": "string"},
            "status": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
            "submitted_at": _maybe("number", description="Unix seconds."),
            "program": _maybe("object"),
            "policy": _maybe("object"),
            "result": _maybe(
                "object",
                description="Of a job that is done: values, attempts, cost, timing, whether they were known (`cached`). "
                "Of a scan besides: how many bytes were (`cached_bytes`), and of which earlier version (`appended_to`).",
            ),
            "error": _maybe("object", description="Of one that is not: its type, message and attempts."),
            "progress": _ref("Progress"),
        },
        "job_id", "status", "submitted_at", "program", "policy", "result", "error",
    ),
    "Progress": {
        **_object(
            {
                "bytes_done": {"type": "integer"},
                "bytes_total": {"type": "integer"},
                "windows_done": {"type": "integer"},
                "windows": {"type": "integer"},
                "rate_bytes_per_s": _maybe("number", description="Over the last ten seconds."),
                "cost_usd": {"type": "number"},
                "eta_s": _maybe("number"),
            },
            "bytes_done", "bytes_total", "windows_done", "windows", "rate_bytes_per_s", "cost_usd", "eta_s",
        ),
        "description": "How far a scan is, while it runs.",
    },
    "Explained": _object(
        {
            "substrate": _maybe("string", description="Where it would run; null: the policy leaves no place."),
            "panic": {"type": "boolean", "description": "Every place is unwell, and the least bad is used."},
            "measured": {"type": "boolean", "description": "By the fleet's health; else by what places declare."},
            "byte_count": _maybe("integer"),
            "candidates": {"type": "array", "items": {"type": "object"}},
        },
        "substrate", "panic", "measured", "byte_count", "candidates",
    ),
    "Fleet": _object({"substrates": {"type": "array", "items": {"type": "object"}}}, "substrates"),
    "Overview": _object(
        {
            "at": {"type": "number", "description": "Unix seconds, as all times here."},
            "window_s": {"type": "number", "description": "What rates and percentiles are over."},
            "ledger": {"type": "object"},
            "unwell": {"type": "array", "items": _ref("Unwell")},
            "status": _STATUS,
            "substrates": {
                "type": "array",
                "items": {"type": "object"},
                "description": "Health, load, and what ended: in the window, and in the last 24 hours and this one.",
            },
            "series": _object(
                {
                    "step_s": {"type": "number"},
                    "from": {"type": "number"},
                    **{name: {"type": "object", "additionalProperties": _list_of("integer")} for name in ("done", "failed")},
                    "usd": _list_of("number"),
                    **{name: _list_of("number", "null") for name in ("p50_s", "p95_s")},
                },
                "step_s", "from", "done", "failed", "usd", "p50_s", "p95_s",
            ),
            "recent": {"type": "array", "items": {"type": "object"}, "maxItems": 50, "description": "Newest first."},
            "browsers": _maybe("object", description="Of this gateway's hub; null: it serves none."),
            "links": {"type": "object"},
        },
        "at", "window_s", "ledger", "unwell", "status", "substrates", "series", "recent", "browsers", "links",
    ),
    "Unwell": _object(
        {
            "what": {"enum": ["redis", "queue", "breaker", "upkeep"]},
            "name": {"type": "string"},
            "message": {"type": "string"},
        },
        "what", "message",
    ),
    "Health": _object(
        {
            "status": _STATUS,
            "version": {"type": "string"},
            "unwell": {"type": "array", "items": _ref("Unwell")},
        },
        "status", "version", "unwell",
    ),
    "KeyRequest": _object(
        {
            "scopes": {"type": "array", "items": {"enum": list(SCOPES)}, "minItems": 1, "maxItems": len(SCOPES)},
            "name": _maybe("string", maxLength=MAX_NAME_CHARS),
        },
        "scopes",
        closed=True,
    ),
    "Key": _object(
        {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "scopes": {"type": "array", "items": {"enum": list(SCOPES)}},
            "created_at": {"type": "number"},
            "key": {"type": "string", "description": "The key itself, in the answer that makes it and nowhere else."},
        },
        "id", "name", "scopes", "created_at",
    ),
    "Ticket": _object(
        {
            "ticket": {"type": "string", "description": "To be shown in the hello of `WS /v1/browsers`."},
            "account": {"type": "string", "description": "Whose credit its results are."},
            "expires_in_s": {"type": "integer"},
        },
        "ticket", "account", "expires_in_s",
    ),
    "Keys": _object({"keys": {"type": "array", "items": _ref("Key")}}, "keys"),
    "Problem": {
        **_object(
            {
                "type": {"type": "string", "format": "uri-reference"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "error": {"enum": list(PROBLEMS)},
                "field": {"type": "string"},
                "hint": {"type": "string"},
            },
            "type", "title", "status", "detail", "error",
        ),
        "description": "RFC 9457. `error` is the problem's type in one word, `field` what was wrong, `hint` what to do.",
    },
}  # fmt: skip

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
        header = {"name": "Idempotency-Key", "in": "header", "schema": _JOB_ID, "description": about, "example": "j1"}
        extra["parameters"] = [header]
    return {"operation_id": name, "responses": _responses(name), "openapi_extra": extra}


def _responses(name: str) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": _content(kind, example)}
        for status, (text, kind, example) in _OPERATIONS[name][2].items()
    }
    responses["default"] = {
        "description": "A problem; `error` is its type.",
        "content": {"application/problem+json": {"schema": _ref("Problem"), "example": _problem()}},
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
    return {"application/json": {"schema": _ref(kind), "example": example}}


def _problem() -> dict[str, Any]:
    about = {"type": "/docs#problem-not_found", "title": "Not found", "status": 404}
    return {**about, **_NOT_FOUND, "field": "job_id"}
