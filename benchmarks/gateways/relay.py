"""The relay that the tutorials write: FastAPI, httpx, a generator in a StreamingResponse."""

import os
import sys

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI()
client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))
UPSTREAM = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    body = await request.json()

    async def stream():
        async with client.stream("POST", UPSTREAM, json=body) as answer:
            async for line in answer.aiter_lines():
                if line:
                    yield f"{line}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
