"""AWS Lambda with streamed responses, in Python.

AWS's own Python runtime can't stream responses (docs.aws.amazon.com/lambda/latest/dg:
configuration-response-streaming.html names Node.js), so this module is a custom runtime. In a
managed Python runtime it replaces AWS's by a wrapper script,
AWS_LAMBDA_EXEC_WRAPPER=/var/task/bootstrap (`runtimes-modify.html`), and in an OS-only runtime or
an image the same script is the `bootstrap`:

    #!/bin/sh
    exec "${1:-python3}" -m unbroken.deploy.aws_lambda

The function is an ordinary `app.handler` with `event` and `context`. A generator is streamed, with
a `Head` first for function URLs and REST APIs:

    async def handler(event, context):
        yield Head(headers={"content-type": "text/plain; charset=utf-8"})
        async with AsyncClient() as client, client.stream("bedrock/...", event["body"]) as stream:
            async for text in stream.text:
                yield text

`asgi(app)` turns any ASGI app into such a function, the gateway included.
"""

import asyncio
import importlib
import os
import sys
from collections.abc import Mapping

from unbroken.deploy._lambda_api import RuntimeApi, failure_of
from unbroken.deploy._lambda_asgi import asgi
from unbroken.deploy._lambda_loop import Context, Handler, Head, serve

__all__ = ["Context", "Handler", "Head", "asgi", "main"]


def loaded(name: str) -> Handler:
    """Import the function that `_HANDLER` names: `file.function`, or `folder/file.function`."""
    module, _, function = name.replace("/", ".").rpartition(".")
    found: Handler = getattr(importlib.import_module(module), function)
    return found


async def run(env: Mapping[str, str]) -> None:
    """Load the function and serve it. An initialization error is reported and ends the process
    (`runtimes-custom.html`, initialization tasks). On Managed Instances, as many events are served
    concurrently as the platform allows (the same page, concurrent requests).
    """
    api = RuntimeApi(env["AWS_LAMBDA_RUNTIME_API"])
    try:
        handler = loaded(env["_HANDLER"])
    except BaseException as error:
        await api.fail(failure_of(error, "Init"))
        raise
    at_once = int(env.get("AWS_LAMBDA_MAX_CONCURRENCY") or 1)
    await asyncio.gather(*(serve(api, handler) for _ in range(at_once)))


def main() -> None:
    """Run the runtime. The function's own folder comes first on the path, as in AWS's runtime."""
    if "AWS_LAMBDA_RUNTIME_API" not in os.environ:
        raise SystemExit("AWS_LAMBDA_RUNTIME_API is not set: this runs in Lambda or its emulator")
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "."))
    asyncio.run(run(os.environ))


if __name__ == "__main__":
    main()
