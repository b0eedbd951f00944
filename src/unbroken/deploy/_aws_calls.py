"""The calls to AWS that the WebSocket pattern needs, through botocore, in threads.

botocore (extra `aws`) is loaded at the first call; AWS's own Python runtimes bring it along.
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
closes the connection with 1009, and each 32 KB are paid for as a message
(docs.aws.amazon.com/apigateway: apigateway-execution-service-websocket-limits-table.html)."""

ASYNC_PAYLOAD = 1_000_000
"""Bytes of an asynchronous invocation's event, a little under the limit of 1 MB
(docs.aws.amazon.com/lambda/latest/api: API_Invoke.html)."""

WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Seconds between the tries of one message: twelve in all, then the connection is given up."""


class Gone(Exception):
    """410: the connection is closed, nobody listens."""

    def __str__(self) -> str:
        return "the client has left"


class TooLarge(Exception):
    """413: the message is larger than the connection takes."""


class PushFailed(TransportError):
    """The management API did not take a message."""


# GoneException, PayloadTooLargeException (botocore's apigatewaymanagementapi model, 2018-11-29)
_FATES: Mapping[int, type[Exception]] = {410: Gone, 413: TooLarge}


def endpoint_of(request: Mapping[str, Any]) -> str:
    """Where a connection is pushed to, from an event's `requestContext`
    (docs.aws.amazon.com/apigateway: apigateway-how-to-call-websocket-api-connections.html). The
    API's own name, since a custom domain has no stage in its path.
    """
    override = os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI")  # as botocore reads it
    if override:
        return override
    own, region = request["domainName"], os.environ.get("AWS_REGION", "")
    if ".execute-api." not in own:
        own = f"{request['apiId']}.execute-api.{region}.amazonaws.com"
    return f"https://{own}/{request['stage']}"


class Pusher:
    """Sends messages to one connection, one after the other; by the loop's clock, no wait for
    another try goes past `until`.
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
        """Gone, TooLarge; PushFailed when it is not taken after all tries, or in time.

        429 is either the account's rate or a client that reads too slowly (its buffer at AWS is
        full); in both cases waiting helps, and what comes meanwhile gathers.
        """
        if len(data) > FRAME:
            raise TooLarge
        for wait in (*self._waits, None):
            status = await asyncio.to_thread(self._post, data)
            if 200 <= status < 300:
                return
            if fate := _FATES.get(status):
                raise fate
            if wait is None or status not in _AGAIN or self._late(wait):
                raise PushFailed(f"the connection took no message: {status or 'no answer'}")
            await asyncio.sleep(wait)

    def _late(self, wait: float) -> bool:
        return asyncio.get_running_loop().time() + wait > self._until

    def _post(self, data: bytes) -> int:
        """The status; 0 if there was no answer."""
        client, errors = _client("apigatewaymanagementapi", self._endpoint)
        try:
            client.post_to_connection(ConnectionId=self._connection, Data=data)
        except errors.ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        except (errors.HTTPClientError, errors.ConnectionError):
            return 0
        return 200


_AGAIN = frozenset({0, 429, 500, 502, 503, 504})


async def again(function: str, payload: bytes) -> None:
    """Invoke the function once more, without waiting for it."""
    await asyncio.to_thread(_invoke, function, payload)


def _invoke(function: str, payload: bytes) -> None:
    client, _ = _client("lambda", None)
    client.invoke(FunctionName=function, InvocationType="Event", Payload=payload)


@cache
def _client(service: str, endpoint: str | None) -> tuple[Any, Any]:
    """A client of botocore's, and its exceptions. It tries pushes once: we know what 429 means."""
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
