"""The API's page at ``/docs``: what ``/openapi.json`` says, as plain HTML without a script, from no other host."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from packetfs_compute.gateway.problems import PROBLEMS

__all__ = ["render", "router"]

router: Final = APIRouter(include_in_schema=False)

_CURL_BODY: Final = " \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"
_CODE: Final = re.compile("`([^`]+)`")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Return the page."""
    return HTMLResponse(render(request.app.openapi()))


@router.get("/docs.css")
async def style() -> Response:
    """Return the page's style."""
    text = resources.files(__package__ or "packetfs_compute.gateway").joinpath("static", "docs.css").read_text("utf-8")
    return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def render(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    links = "".join(
        f'<li><a href="#{one["operationId"]}"><b>{method.upper()}</b> {html.escape(path)}</a></li>'
        for path, method, one in operations
    )
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/docs.css">',
        '<link rel="icon" href="/dashboard/icon.svg" type="image/svg+xml"></head><body><main>',
        f'<p class="name"><a href="/">Dashboard</a></p><h1>{title}</h1><p>{_prose(document["info"]["description"])} ',
        f'For tools: <a href="/openapi.json">openapi.json</a>.</p><nav aria-label="Operations"><ul>{links}</ul></nav>',
        *(part for one in operations for part in _operation(*one)),
        "<section><h2>Problems</h2><p>Errors are <code>application/problem+json</code> (RFC 9457).</p><dl>",
        *(
            f'<dt id="problem-{name}"><code>{name}</code> {status}</dt><dd>{_prose(meaning)}</dd>'
            for name, (status, meaning) in PROBLEMS.items()
        ),
        "</dl></section></main></body></html>",
    ]
    return "".join(parts)


def _operation(path: str, method: str, one: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section id="{one["operationId"]}"><h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>'
    for paragraph in one.get("description", "").split("\n\n"):
        yield f"<p>{_prose(paragraph)}</p>"
    scope = one.get("x-scope")
    yield f"<p>{f'Needs the scope <code>{scope}</code>.' if scope else 'No key is needed.'}</p>"
    for parameter in one.get("parameters", ()):
        about = _prose(parameter.get("description", ""))
        yield f"<p><code>{html.escape(parameter['name'])}</code> ({parameter['in']}) {about}</p>"
    body = _example(one.get("requestBody", {}).get("content", {}))
    yield f"<pre><code>{html.escape(_curl(path, method, body))}</code></pre>"
    for status, answer in one["responses"].items():
        if status == "default":
            continue
        yield f"<h3>{status} {_prose(answer['description'])}</h3>"
        yield f"<pre><code>{html.escape(_shown(_example(answer.get('content', {}))))}</code></pre>"
    yield "</section>"


def _prose(text: str) -> str:
    """Return text as HTML; what stands in backticks is code."""
    return _CODE.sub(r"<code>\1</code>", html.escape(text))


def _curl(path: str, method: str, body: Any) -> str:
    concrete = path.replace("{job_id}", "j1").replace("{key_id}", "9f86d081884c")
    verb = "" if method == "get" else f" -X {method.upper()}"
    sent = "" if body is None else _CURL_BODY.format(body=json.dumps(body))
    return f'curl{verb} "$GATEWAY{concrete}" \\\n  -H "Authorization: Bearer $KEY"{sent}'


def _example(content: Mapping[str, Any]) -> Any:
    return next((one.get("example") for one in content.values()), None)


def _shown(example: Any) -> str:
    return example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
