"""Valkey over TLS."""

from unbroken.stores.redis import from_url

__all__ = ["from_url"]
