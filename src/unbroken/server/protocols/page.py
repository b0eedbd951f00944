"""The chat page at `/`: plain files, no build step, nothing from elsewhere.

A model's text is shown as Markdown from an allow-list of tags and attributes (`page/markdown.js`).
The Content-Security-Policy is the second line: only the scripts here run, no HTML is made from text
but by the sanitizer (Trusted Types), and no request goes to another server.
"""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse
from starlette.routing import Route

FOLDER = Path(__file__).parents[1] / "page"

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_FILES = {
    path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in _TYPES
}
"""By name: a requested path is looked up here, and never joined to a directory."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "cache-control": "no-cache",  # kept, but asked about each time: the files carry an ETag
    "referrer-policy": "no-referrer",  # a shared link holds its token
    "x-content-type-options": "nosniff",
}


async def _index(_http: HttpRequest) -> FileResponse:
    return _file("index.html")


async def _part(http: HttpRequest) -> FileResponse:
    return _file(http.path_params["path"])


def _file(name: str) -> FileResponse:
    """A file of the page, and nothing else."""
    path = _FILES.get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, headers=_HEADERS, media_type=_TYPES[path.suffix])


routes = [Route("/", _index, methods=["GET"]), Route("/page/{path:path}", _part, methods=["GET"])]
