"""Streams in Redis or Valkey; see `store`."""

from unbroken.stores.redis.store import RedisStore, from_url

__all__ = ["RedisStore", "from_url"]
