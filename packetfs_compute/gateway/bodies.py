"""What is read of a request's body: JSON in UTF-8, of bounded length, within a bounded time.

A framework's own reading answers 500 to nesting without end, integers of 5,000 digits and bytes that are no UTF-8, takes
NaN for a number, and reads for as long as somebody sends.
"""

import asyncio
import json
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from packetfs_compute.gateway.problems import Refusal
from packetfs_compute.validation import show

__all__ = ["BODY_TIMEOUT_S", "MAX_BODY", "json_body", "parsed", "read_body"]

MAX_BODY: Final = 1 << 16
BODY_TIMEOUT_S: Final = 10.0


async def json_body(request: Request) -> Any:
    """Return what the body holds; a dependency of routes that take one. Raises the :class:`Refusal` of what is wrong."""
    _check_type(request)
    return parsed(await read_body(request, MAX_BODY))


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, of at most ``limit`` bytes; raise the :class:`Refusal` of what is wrong."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(request, limit)
    except TimeoutError:
        raise Refusal("timeout", f"the body did not come within {BODY_TIMEOUT_S:g} s") from None
    except ClientDisconnect:
        raise Refusal("bad_request", "the client left in the middle of the body") from None


def parsed(body: bytes) -> Any:
    """Return the JSON of a body; raise the :class:`Refusal` of what is none."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else show(str(error))
        raise Refusal(
            "bad_request", f"the body is no JSON: {why}", {"field": "body", "hint": "send a JSON object in UTF-8"}
        ) from None


def _check_type(request: Request) -> None:
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        given = show(request.headers.get("content-type"))
        details = {"field": "Content-Type", "hint": "send application/json, in UTF-8"}
        raise Refusal("unsupported_media_type", f"Content-Type is {given}", details)


async def _read(request: Request, limit: int) -> bytes:
    too_large = Refusal("too_large", f"the body is longer than {limit} bytes", {"field": "body"})
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limit):
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise too_large
        body += chunk
    request.state.whole = True
    return bytes(body)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
