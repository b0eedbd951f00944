"""The proxy that the environment names for an address, for both transports.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in capitals or not, or what the system says, as
the standard library reads them. Looked up once for each host, since that takes longer than a
request. Neither HTTP library is asked: urllib3 knows no such variables and no password in an
address, and aiohttp sends every request through a thread for them.
"""

from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from unbroken.errors import ConnectFailed


class Proxy(NamedTuple):
    """Where it is, and what it wants to know of us."""

    url: str
    headers: dict[str, str]


class Proxies:
    """What has been looked up."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Proxy | None] = {}

    def of(self, url: str) -> Proxy | None:
        """The proxy for an address. ConnectFailed if it is none that we can talk to."""
        target = urlsplit(url)
        place = (target.scheme, target.netloc.rpartition("@")[2])
        if place not in self._found:
            self._found[place] = _looked_up(*place)
        return self._found[place]


def _looked_up(scheme: str, host: str) -> Proxy | None:
    named = getproxies()
    address = named.get(scheme) or named.get("all")
    if not address or proxy_bypass(host):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ConnectFailed(
            f"the proxy for {scheme}://{host} is {proxy.scheme}://{proxy.hostname or ''}, and only "
            f"http:// and https:// will do: change {scheme.upper()}_PROXY, or name the host in "
            f"NO_PROXY"
        )
    where = proxy._replace(netloc=proxy.netloc.rpartition("@")[2]).geturl()
    return Proxy(where, _credentials(proxy.username, proxy.password))


def _credentials(name: str | None, password: str | None) -> dict[str, str]:
    if name is None:
        return {}
    pair = f"{unquote(name)}:{unquote(password or '')}"
    return {"proxy-authorization": f"Basic {b64encode(pair.encode()).decode()}"}
