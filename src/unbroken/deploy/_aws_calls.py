"""AWS calls of the WebSocket pattern, through botocore, in threads.

botocore (extra `aws`) is imported at the first call; AWS's own Python runtimes include it.
"""

import asyncio
import math
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from unbroken.errors import ConfigurationError, TransportError

FRAME = 32 * 1024
"""Bytes of a message. A message may have 128 KB, but in frames of 32 KB at most; a larger one
closes the connection with 1009, and each 32 KB are billed as a message
(docs.aws.amazon.com/apigateway: apigateway-execution-service-websocket-limits-table.html)."""

ASYNC_PAYLOAD = 1_000_000
"""Bytes of an asynchronous invocation's event, a little under the limit of 1 MB
(docs.aws.amazon.com/lambda/latest/api: API_Invoke.html)."""

WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds between attempts to send one message, twelve in all; then the connection is abandoned."""


class ConnectionGone(Exception):
    """410: the connection is closed."""

    def __str__(self) -> str:
        return "client closed the connection"


class TooLarge(Exception):
    """413: the message is larger than the connection takes."""


class PushFailed(TransportError):
    """The management API did not take a message."""


# GoneException, PayloadTooLargeException (botocore's apigatewaymanagementapi model, 2018-11-29)
_STATUS_ERRORS: Mapping[int, type[Exception]] = {410: ConnectionGone, 413: TooLarge}


def endpoint_of(request: Mapping[str, Any]) -> str:
    """Return the URL for pushes to a connection, from an event's `requestContext`
    (docs.aws.amazon.com/apigateway: apigateway-how-to-call-websocket-api-connections.html). Uses
    the API's own host name, since a custom domain has no stage in its path.
    """
    override = os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI")  # as botocore reads it
    if override:
        return override
    own, region = request["domainName"], os.environ.get("AWS_REGION", "")
    if ".execute-api." not in own:
        own = f"{request['apiId']}.execute-api.{region}.amazonaws.com"
    return f"https://{own}/{request['stage']}"


class ConnectionSender:
    """Sends messages to one connection, one at a time. No retry waits past `until`, in seconds of
    the event loop's clock.
    """

    def __init__(
        self,
        endpoint: str,
        connection: str,
        until: float = math.inf,
        waits: tuple[float, ...] = WAITS,
    ) -> None:
        self._endpoint, self._connection = endpoint, connection
        self._until, self._waits = until, waits

    async def __call__(self, data: bytes) -> None:
        """Send a message. Raises ConnectionGone, TooLarge, or PushFailed after the last attempt.

        429 means either the account's rate limit or a client that reads too slowly (its buffer at
        AWS is full). Waiting helps in both cases; text that arrives meanwhile is coalesced.
        """
        if len(data) > FRAME:
            raise TooLarge
        for wait in (*self._waits, None):
            status = await asyncio.to_thread(self._post, data)
            if 200 <= status < 300:
                return
            if error := _STATUS_ERRORS.get(status):
                raise error
            if wait is None or status not in _AGAIN or self._late(wait):
                raise PushFailed(f"the connection accepted no message: {status or 'no response'}")
            await asyncio.sleep(wait)

    def _late(self, wait: float) -> bool:
        return asyncio.get_running_loop().time() + wait > self._until

    def _post(self, data: bytes) -> int:
        """Return the HTTP status, or 0 without a response."""
        client, errors = _client("apigatewaymanagementapi", self._endpoint)
        try:
            client.post_to_connection(ConnectionId=self._connection, Data=data)
        except errors.ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        except (errors.HTTPClientError, errors.ConnectionError):
            return 0
        return 200


_AGAIN = frozenset({0, 429, 500, 502, 503, 504})


async def invoke_async(function: str, payload: bytes) -> None:
    """Invoke the function asynchronously (InvocationType=Event)."""
    await asyncio.to_thread(_invoke, function, payload)


def _invoke(function: str, payload: bytes) -> None:
    client, _ = _client("lambda", None)
    client.invoke(FunctionName=function, InvocationType="Event", Payload=payload)


@cache
def _client(service: str, endpoint: str | None) -> tuple[Any, Any]:
    """Return a botocore client and its exceptions. Pushes are retried by ConnectionSender."""
    try:
        import botocore.config
        import botocore.exceptions
        import botocore.session
    except ImportError as error:
        raise ConfigurationError(
            "the WebSocket pattern needs botocore", hint="pip install 'unbroken[aws]'"
        ) from error
    tries = 1 if endpoint else 3
    config = botocore.config.Config(
        retries={"total_max_attempts": tries}, connect_timeout=3, read_timeout=5
    )
    session = botocore.session.Session()
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    made = session.create_client(service, region_name=region, endpoint_url=endpoint, config=config)
    return made, botocore.exceptions
