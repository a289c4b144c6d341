"""The browsers' runtime, served: the built files of ``remote/browser/`` and the page that lends a browser.

Their paths name their version, so that they are kept for ever; any page may load them, and ``manifest.json`` has the hashes
for its script tag. The lending page is told where this gateway gives tickets.
"""

import functools
import hashlib
import html
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from packetfs_compute import __version__
from packetfs_compute.gateway.context import Context, context_of
from packetfs_compute.gateway.exposure import is_loopback
from packetfs_compute.gateway.problems import Refusal

__all__ = ["router"]

router: Final = APIRouter(prefix="/browser", include_in_schema=False)

_PAGE: Final = "lend.html"
_MANIFEST: Final = "manifest.json"
_KEPT: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Access-Control-Allow-Origin": "*"}
_ASKED_FOR: Final = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src data:; "
    "connect-src http: https: ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""As the page's own: it reads whatever sources the hub names, and loads nothing but these files. A Worker goes by the policy
of the file that it was loaded from."""


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    etag: str


@router.get("/{name:path}")
async def file(request: Request, name: str) -> Response:
    """Return a file, by its version and name; a name alone leads to this version's."""
    version, slash, rest = name.partition("/")
    if not slash and version in _files():
        return RedirectResponse(f"/browser/{__version__}/{version}", 307, {"Cache-Control": "no-cache"})
    found = _files().get(rest) if version == __version__ else None
    if found is None:
        hint = f"{_MANIFEST} lists the files" if _files() else "build them: node remote/browser/build.mjs"
        raise Refusal("not_found", "there is no such file", {"hint": hint})
    if rest == _PAGE:
        return await _page(context_of(request), found)
    headers = {**(_ASKED_FOR if rest == _MANIFEST else _KEPT), "ETag": found.etag, "Content-Security-Policy": _POLICY}
    if request.headers.get("if-none-match") == found.etag:
        return Response(None, 304, headers)
    return Response(found.body, 200, headers, found.media_type)


async def _page(context: Context, found: _File) -> Response:
    """Return the lending page, told where tickets are to be had, where they are to be had without a key."""
    settings = context.settings
    is_open = settings.browsers_open
    if not is_open and is_loopback(settings.gateway_host):
        is_open = not (await context.threads.call(context.keys.find, None))[1]
    told = {
        "tickets": "/v1/browsers/tickets" if is_open and context.lending is not None else "",
        "allow-private-sources": ",".join(map(str, settings.allow_private_sources)),
    }
    text = found.body.decode("utf-8")
    for name, value in told.items():
        text = text.replace(
            f'<meta name="packetfs:{name}" content="">', f'<meta name="packetfs:{name}" content="{html.escape(value)}">'
        )
    return Response(text, 200, {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}, found.media_type)


@functools.cache
def _files() -> dict[str, _File]:
    """Return the built files by name; none where the package was installed without them."""
    folder = resources.files(__package__ or "packetfs_compute.gateway").joinpath("static", "browser", __version__)
    try:
        manifest: dict[str, Any] = json.loads(folder.joinpath(_MANIFEST).read_text("utf-8"))
    except OSError:
        return {}
    types = {_MANIFEST: "application/json", **{name: one["type"] for name, one in manifest["files"].items()}}
    return {name: _file(folder.joinpath(name).read_bytes(), media_type) for name, media_type in types.items()}


def _file(body: bytes, media_type: str) -> _File:
    return _File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
