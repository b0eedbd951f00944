"""Answers from BentoML: the whole gateway under /llm, and two endpoints of one's own.

bentoml serve service:Chat
"""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import bentoml

from unbroken import AsyncClient
from unbroken.deploy.bentoml import texts
from unbroken.server import Gateway, sse
from unbroken.server.settings import load

gateway = Gateway(settings=load(os.environ, {}))  # unbroken.toml, UNBROKEN_STORE and so on
image = bentoml.images.Image(python_version="3.12").requirements_file("requirements.txt")


@bentoml.asgi_app(gateway, path="/llm")
@bentoml.service(
    image=image,
    traffic={"timeout": 300},  # seconds until the first piece, or the whole of a plain answer
    metrics={"enabled": False},  # they keep a series for each address, and each answer has its own
)
class Chat:
    """BentoML tells a mounted app neither of its start nor of its stop, so the hooks do."""

    @bentoml.on_startup
    async def start(self) -> None:
        self.open = AsyncExitStack()
        self.client = await self.open.enter_async_context(AsyncClient())
        await self.open.enter_async_context(gateway)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        await self.open.aclose()

    @bentoml.api
    async def ask(
        self, ctx: bentoml.Context, prompt: str, model: str | None = None
    ) -> AsyncGenerator[str, None]:
        """The answer's text as it comes; if it breaks, a mark says so. Without `model` it is
        UNBROKEN_MODEL, as everywhere; leave it out where a reader may not choose.
        """
        async for text in texts(self.client.stream(model, prompt), ctx):
            yield text

    @bentoml.api
    async def events(self, prompt: str, model: str | None = None) -> Any:
        """The same as server-sent events."""
        return sse(self.client.stream(model, prompt))
