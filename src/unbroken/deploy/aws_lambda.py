"""AWS Lambda with streamed responses, in Python.

AWS's own Python runtime can't stream (docs.aws.amazon.com/lambda/latest/dg:
configuration-response-streaming.html names Node.js), so this module is a runtime of its own. In a
function of a managed Python runtime it takes the place of AWS's by a wrapper script,
AWS_LAMBDA_EXEC_WRAPPER=/var/task/bootstrap (`runtimes-modify.html`), and in an OS-only runtime or
an image the same script is the `bootstrap`:

    #!/bin/sh
    exec "${1:-python3}" -m unbroken.deploy.aws_lambda

The function is what it always was, `app.handler` with `event` and `context`; one that yields is
streamed, with a `Head` first where a function URL or a REST API asks:

    async def handler(event, context):
        yield Head(headers={"content-type": "text/plain; charset=utf-8"})
        async with AsyncClient() as client, client.stream("bedrock/...", event["body"]) as stream:
            async for text in stream.text:
                yield text

`asgi(app)` makes such a function of any ASGI app, the whole gateway among them.
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
    """The function that `_HANDLER` names: `file.function`, or `folder/file.function`."""
    module, _, function = name.replace("/", ".").rpartition(".")
    found: Handler = getattr(importlib.import_module(module), function)
    return found


async def run(env: Mapping[str, str]) -> None:
    """Load the function and serve it. What goes wrong at the start is told, and ends the process
    (`runtimes-custom.html`, initialization tasks). On Managed Instances as many events are served
    at a time as the platform allows (the same page, concurrent requests).
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
    """The entry point. The function's own folder comes first, as in AWS's runtime."""
    if "AWS_LAMBDA_RUNTIME_API" not in os.environ:
        raise SystemExit("AWS_LAMBDA_RUNTIME_API is not set: this runs in Lambda or its emulator")
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "."))
    asyncio.run(run(os.environ))


if __name__ == "__main__":
    main()
