"""Redis over TLS: `rediss://host:6379?ssl_ca_certs=ca.pem`."""

from unbroken.stores.redis import from_url

__all__ = ["from_url"]
