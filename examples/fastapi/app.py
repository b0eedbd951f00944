"""A cookbook that talks: answers that outlive a reload, and data that grows, in one's own app.

    uvicorn app:app

Users, prompts and pages are the app's; that answers arrive whole is unbroken's.
"""

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

from unbroken import ProviderError, UnbrokenError
from unbroken.server import Gateway, durable_sse

MODEL = os.environ.get("MODEL", "sim/demo")
COOK = "You are a patient cook. Answer in a few short paragraphs."
PAGE = Path(__file__).parent / "index.html"


class Recipe(BaseModel):
    """What the model is to fill in."""

    title: str
    minutes: int
    steps: list[str]


async def signed_in(http: HTTPConnection) -> str | None:
    """Whose request this is, for the gateway."""
    user: str | None = http.session.get("user")
    return user


gateway = Gateway(authenticate=signed_in)  # answers are kept in ./unbroken.db


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
    """The gateway starts and stops with the app: it takes over what a killed process left."""
    async with gateway:
        yield


app = FastAPI(title="Cookbook", lifespan=lifespan)
app.add_middleware(
    SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe()
)
app.mount("/llm", gateway)  # the OpenAI and Anthropic APIs, for those who are signed in


async def cook(request: Request) -> str:
    """Whoever is signed in; 401 for all others."""
    user = await signed_in(request)
    if user is None:
        raise HTTPException(401, "sign in first: POST /session?user=ada")
    return user


Cook = Annotated[str, Depends(cook)]


@app.exception_handler(UnbrokenError)
async def failed(_request: Request, error: UnbrokenError) -> Response:
    """What a provider refuses is told with its status; anything else is a bad gateway."""
    status = (isinstance(error, ProviderError) and error.status) or 502
    return JSONResponse({"detail": str(error)}, status)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Where people ask."""
    return FileResponse(PAGE)


@app.post("/session", status_code=204)
async def sign_in(request: Request, user: str) -> None:
    """In place of your own way to know people."""
    request.session["user"] = user


@app.get("/ask")
async def ask(request: Request, _cook: Cook, question: str = "") -> Response:
    """The answer as it comes; to a browser that comes back, the rest of the same one."""
    return await durable_sse(gateway, request, MODEL, question, system=COOK)


@app.get("/recipe", response_class=EventSourceResponse)
async def recipe(_cook: Cook, dish: str) -> AsyncGenerator[ServerSentEvent, None]:
    """A recipe, as far as it has come, again and again; then `done`, checked, or `failed`."""
    asked: Any = {"response_format": Recipe}
    async with gateway.client.stream(MODEL, f"A recipe for {dish}.", **asked) as stream:
        try:
            async for _ in stream.text:
                yield ServerSentEvent(data=stream.partial)
            yield ServerSentEvent(data=stream.parsed, event="done")
        except UnbrokenError as error:  # raised any further, it would look like a lost connection
            yield ServerSentEvent(data=str(error), event="failed")


@app.get("/title")
async def title(_cook: Cook, question: str) -> dict[str, Any]:
    """A whole answer, what it took and what it cost."""
    answer = await gateway.client.complete(MODEL, f"Four words for: {question}", max_tokens=12)
    return {"title": answer.text, "usd": answer.cost, "by": answer.model}
