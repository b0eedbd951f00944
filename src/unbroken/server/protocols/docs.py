"""GET /openapi.json, and /docs: the same to be read. Plain HTML, nothing from elsewhere."""

from html import escape
from importlib.metadata import version

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from unbroken.server.openapi import OPERATIONS, Operation, description

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
}


async def _openapi(_http: HttpRequest) -> Response:
    body = msgspec.json.encode(description(version("unbroken")))
    return Response(body, media_type="application/json")


async def _docs(_http: HttpRequest) -> HTMLResponse:
    tags = dict.fromkeys(operation.tag for operation in OPERATIONS)
    parts = [_part(tag) for tag in tags]
    return HTMLResponse(_PAGE.format("".join(parts)), headers=_HEADERS)


def _part(tag: str) -> str:
    inner = "".join(_shown(operation) for operation in OPERATIONS if operation.tag == tag)
    return f"<h2>{escape(tag)}</h2>{inner}"


def _shown(operation: Operation) -> str:
    """One operation as a section."""
    rows = [("body", operation.body)] if operation.body else []
    rows += [(f"?{name}", said) for name, said in operation.query.items()]
    rows += [(f"{operation.status}", f"{k} {said}") for k, said in operation.answers.items()]
    table = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    name = f"<code>{operation.method.upper()} {escape(operation.path)}</code>"
    what = escape(operation.summary)
    return f"<section><h3>{name}</h3><p>{what}</p><table>{table}</table></section>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>unbroken: what this gateway offers</title>
<link rel="stylesheet" href="page/docs.css"></head>
<body><main><h1>What this gateway offers</h1>
<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1). For people:
<a href="./">the chat page</a>. A WebSocket at <code>/ws</code> starts, follows and cancels answers
as well. If there are keys, one is needed: <code>Authorization: Bearer</code> or
<code>x-api-key</code>.</p>{}</main></body></html>
"""

routes = [
    Route("/openapi.json", _openapi, methods=["GET"]),
    Route("/docs", _docs, methods=["GET"]),
]
