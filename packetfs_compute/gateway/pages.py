"""The dashboard at ``/``: built files of ``remote/dashboard/``, open to all, since what they show needs the key."""

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from packetfs_compute.gateway.problems import Refusal
from packetfs_compute.validation import show

__all__ = ["FILES", "router"]

router: Final = APIRouter(include_in_schema=False)

_INDEX: Final = "index.html"
FILES: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot.LICENSE.txt": "text/plain; charset=utf-8",
}
"""What is served under ``/dashboard/``, and as what; nothing else of the folder is."""


@router.get("/")
async def index(request: Request) -> Response:
    """Return the page."""
    return _file(request, _INDEX, "text/html; charset=utf-8")


@router.get("/dashboard/{name}")
async def file(request: Request, name: str) -> Response:
    """Return one of the page's files."""
    if name not in FILES:
        raise Refusal("not_found", f"the dashboard has no file {show(name)}", {"hint": "GET / is the page"})
    return _file(request, name, FILES[name])


def _file(request: Request, name: str, media_type: str) -> Response:
    body, etag = _read(name)
    # The names stay when the bytes change, so each use asks whether they did.
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if _has(request.headers.get("if-none-match", ""), etag):
        return Response(None, 304, headers)
    return Response(body, 200, {**headers, "Content-Type": media_type})


@cache
def _read(name: str) -> tuple[bytes, str]:
    folder = resources.files(__package__ or "packetfs_compute.gateway").joinpath("static", "dashboard")
    body = folder.joinpath(name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _has(listed: str, etag: str) -> bool:
    """Whether an If-None-Match lists the tag; it compares weakly (RFC 9110, section 13.1.2)."""
    return any(one.strip().removeprefix("W/") in ("*", etag) for one in listed.split(","))
