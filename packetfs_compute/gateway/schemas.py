"""The schemas of the OpenAPI document: what bodies and answers are made of.

The rules of a program and a policy are kept by their parsers; these are for readers and for tools, and a test holds them to
the parsers.
"""

from collections.abc import Mapping
from typing import Any, Final

from packetfs_compute.gateway.keys import MAX_NAME_CHARS, SCOPES
from packetfs_compute.gateway.problems import PROBLEMS
from packetfs_compute.journal.scans import MOST_SCANS
from packetfs_compute.journal.writer import MOST_JOBS
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

__all__ = ["JOB_ID", "SCHEMAS", "ref"]

_Schema = Mapping[str, Any]


def ref(name: str) -> dict[str, Any]:
    """Return a reference to one of the schemas."""
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


JOB_ID: Final = {"type": "string", "pattern": f"^[A-Za-z0-9._:-]{{1,{MAX_JOB_ID_CHARS}}}$"}
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
                {**_RANGE, "ops": {"type": "array", "items": ref("Op"), "minItems": 1, "maxItems": MAX_OPS}},
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
            "program": ref("Program"),
            "policy": {"anyOf": [ref("Policy"), {"type": "null"}]},
            "priority": _maybe("integer", minimum=0, maximum=9, description="0 is the first, and the default."),
            "job_id": {**JOB_ID, "type": ["string", "null"]},
        },
        "program",
        closed=True,
    ),
    "ScanRequest": _object(
        {
            "program": ref("Program"),
            "window": _maybe("integer", minimum=1, maximum=MAX_RANGE_BYTES, description="Bytes; chosen if left out."),
            "policy": {"anyOf": [ref("Policy"), {"type": "null"}], "description": "Of the whole scan."},
            "priority": _maybe("integer", minimum=0, maximum=9, description="0 is the first, and the default."),
            "job_id": {**JOB_ID, "type": ["string", "null"]},
        },
        "program",
        closed=True,
    ),
    "ExplainRequest": _object(
        {"program": ref("Program"), "policy": {"anyOf": [ref("Policy"), {"type": "null"}]}}, "program", closed=True
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
            "progress": ref("Progress"),
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
            "unwell": {"type": "array", "items": ref("Unwell")},
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
            "scans": {
                "type": "array",
                "items": _object({"job_id": {"type": "string"}, "progress": ref("Progress")}, "job_id", "progress"),
                "maxItems": MOST_SCANS,
                "description": "Those that run, the latest first.",
            },
            "recent": {
                "type": "array",
                "items": {"type": "object"},
                "maxItems": MOST_JOBS,
                "description": "Jobs and scans that ended, newest first. A scan has `scan`; of its windows only those that "
                "failed are here, with its id in `window_of`. `cached`: the values were known, so there was no attempt.",
            },
            "browsers": _maybe("object", description="Of this gateway's hub; null: it serves none."),
            "links": {"type": "object"},
        },
        "at", "window_s", "ledger", "unwell", "status", "substrates", "series", "scans", "recent",
        "browsers", "links",
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
            "unwell": {"type": "array", "items": ref("Unwell")},
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
    "Keys": _object({"keys": {"type": "array", "items": ref("Key")}}, "keys"),
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
