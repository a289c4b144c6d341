"""API keys over HTTP, for keys with the scope ``admin``."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from packetfs_compute.gateway.bodies import json_body
from packetfs_compute.gateway.context import context_of, needs
from packetfs_compute.gateway.gate import Caller
from packetfs_compute.gateway.keys import MAX_NAME_CHARS, SCOPES
from packetfs_compute.gateway.openapi import described
from packetfs_compute.gateway.problems import Refusal, reply
from packetfs_compute.validation import require_object, show

__all__ = ["router"]

router: Final = APIRouter(prefix="/v1", tags=["keys"])

_Admin = Annotated[Caller, needs("admin")]


@router.post("/keys", status_code=201, **described("add_key"))
async def add_key(request: Request, _: _Admin, body: Annotated[Any, Depends(json_body)]) -> Response:
    """Make an API key. The answer is the only place where it is ever shown."""
    context = context_of(request)
    given = require_object(body, "request", frozenset({"scopes", "name"}))
    scopes, name = given.get("scopes"), given.get("name") or ""
    if not isinstance(scopes, list) or not 1 <= len(scopes) <= len(SCOPES) or any(one not in SCOPES for one in scopes):
        hint = f"give a list of {', '.join(SCOPES)}"
        raise Refusal("bad_request", f"request.scopes is {show(scopes)}", {"field": "request.scopes", "hint": hint})
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not name.isprintable():
        hint = f"give at most {MAX_NAME_CHARS} printable characters"
        raise Refusal("bad_request", f"request.name is {show(name)}", {"field": "request.name", "hint": hint})
    secret, key = await context.threads.call(context.keys.add, scopes, name)
    return reply(201, {"key": secret, **asdict(key)}, {"Location": f"/v1/keys/{key.id}"})


@router.get("/keys", **described("keys"))
async def keys(request: Request, _: _Admin) -> Response:
    """List the API keys: all that is known of them, which is not the keys."""
    context = context_of(request)
    return reply(200, {"keys": [asdict(key) for key in await context.threads.call(context.keys.all)]})


@router.delete("/keys/{key_id}", **described("revoke_key"))
async def revoke_key(
    request: Request,
    _: _Admin,
    key_id: Annotated[str, Path(max_length=64, description="The key's id, as listed.", examples=["9f86d081884c"])],
) -> Response:
    """Revoke an API key: no request is let in with it any more."""
    context = context_of(request)
    key = await context.threads.call(context.keys.revoke, key_id)
    if key is None:
        raise Refusal("not_found", f"no key {show(key_id)} is known", {"field": "key_id", "hint": "GET /v1/keys"})
    return reply(200, asdict(key))
