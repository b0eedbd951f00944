"""Valkey is Redis by another name."""

from unbroken.stores.redis import from_url

__all__ = ["from_url"]
