"""What goes wrong, as ``application/problem+json`` (RFC 9457), and how each error of the package becomes one."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from packetfs_compute.errors import BrokerUnavailable, JobError, PacketFSError
from packetfs_compute.validation import show

__all__ = ["PROBLEMS", "Refusal", "install", "problem", "reply"]

PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "bad_request": (400, "The request cannot be read as what it should be."),
    "bad_program": (400, "The program is none; `field` names the part."),
    "bad_policy": (400, "The policy is none; `field` names the part."),
    "no_substrate": (400, "The policy leaves no place to run."),
    "unauthorized": (401, "A key is needed, and the one given is none of ours."),
    "forbidden": (403, "The key lacks the scope, or the page may not call from where it is."),
    "forbidden_source": (403, "The source is one that may not be read."),
    "not_found": (404, "There is no such path, job or key, or it is forgotten."),
    "method_not_allowed": (405, "The path takes other methods; `Allow` lists them."),
    "timeout": (408, "The body did not come in time."),
    "conflict": (409, "The id belongs to a job with another program or policy."),
    "too_large": (413, "The body is too long."),
    "unsupported_media_type": (415, "The body is not declared as JSON in UTF-8."),
    "busy": (429, "Too many requests of this caller, or of all; `Retry-After` says when to ask again."),
    "internal": (500, "The gateway failed in a way that has no type."),
    "not_implemented": (501, "This gateway does not serve it."),
    "unavailable": (503, "The broker does not answer; nothing that was accepted is lost."),
}
"""Every type of problem: its status, and what it means."""

_RETRY_AFTER_S: Final = 1
_SHOWN: Final = ("field", "hint", "vetoes", "job_id")
"""What of an error's details is told."""


class Refusal(PacketFSError):
    """A request that is answered with the problem ``error``, a key of :data:`PROBLEMS`, and with more ``headers``."""

    def __init__(
        self,
        error: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, details)
        self.error = error
        self.headers = dict(headers or {})


def reply(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(_text(document), status, headers, "application/json")


def problem(
    error: str, message: str, details: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer that the problem ``error`` is, with ``message`` for a person."""
    status = PROBLEMS[error][0]
    document = {
        "type": f"/docs#problem-{error}",
        "title": error.replace("_", " ").capitalize(),
        "status": status,
        "detail": message,
        "error": error,
        **{name: details[name] for name in _SHOWN if details and details.get(name) is not None},
    }
    return Response(_text(document), status, headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Have ``app`` answer errors with problems."""
    app.add_exception_handler(PacketFSError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(HTTPException, _of_routing)


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"), default=str)


async def _of_ours(request: Request, error: Exception) -> Response:
    del request
    if isinstance(error, Refusal):
        return problem(error.error, error.message, error.details, error.headers)
    if isinstance(error, JobError) and error.type in PROBLEMS:
        headers = {}
        if error.type == "busy":
            headers["Retry-After"] = str(math.ceil(error.details.get("retry_after_s", _RETRY_AFTER_S)))
        return problem(error.type, error.message, error.details, headers)
    if isinstance(error, BrokerUnavailable):
        # What the client library says of it may name hosts, which are no stranger's business.
        return problem("unavailable", "the broker does not answer", None, {"Retry-After": str(_RETRY_AFTER_S)})
    raise error


async def _of_parameters(request: Request, error: Exception) -> Response:
    del request
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return problem("bad_request", f"{field} is {show(first.get('input'))}", {"field": field, "hint": first["msg"]})


async def _of_routing(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return problem("method_not_allowed", f"{show(request.method)} is not served there", None, error.headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem("not_found", "there is no such path", {"hint": "GET /docs lists them"}, error.headers)
    return problem("bad_request", str(error.detail), None, error.headers)
