"""Stops the open answers of keys that were revoked or have expired."""

from unbroken.server.answers import Answers
from unbroken.server.auth import CACHE_TTL, Keys
from unbroken.server.log import log_event

INTERVAL = CACHE_TTL / 2
"""Seconds between two checks."""


async def stop_revoked(keys: Keys, answers: Answers) -> None:
    """Check the key of every answer that this process produces."""
    for stream, producer in [*answers.producers.items()]:
        if not await keys.is_valid(producer.request.owner):
            log_event("key_invalid", stream=stream)
            await answers.stop(stream)
