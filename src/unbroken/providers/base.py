"""What a provider is: a value that says where it lives, how it is asked, and in which dialect.

A new provider is one file that binds `PROVIDER = Provider(...)`. Nothing else is edited: the
registry finds it by the file's name, or by the entry-point group `unbroken.providers`.
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from unbroken.errors import AuthenticationFailed, ConfigurationError, LocalProtocolError
from unbroken.messages import Request
from unbroken.transport.base import AsyncTransport, HttpRequest, Transport
from unbroken.wire.codec import Codec
from unbroken.wire.openai_chat.dialect import OpenAIChat


class Auth(Protocol):
    """How a key becomes headers. `env` names the variable that holds it, "" if none does."""

    @property
    def env(self) -> str: ...

    @property
    def required(self) -> bool: ...

    def headers(self, key: str, request: HttpRequest, /) -> dict[str, str]:
        """What shows the key, or signs `request`, which is complete but for these headers."""


class BearerKey(Struct, frozen=True):
    """`authorization: Bearer KEY` (RFC 6750). Without `required`, an absent key is no fault."""

    env: str
    required: bool = True

    def headers(self, key: str, _request: HttpRequest) -> dict[str, str]:
        """The header that shows the key; none without a key."""
        return {"authorization": f"Bearer {key}"} if key else {}


class HeaderKey(Struct, frozen=True):
    """The key in a header of its own."""

    env: str
    header: str
    required: bool = True

    def headers(self, key: str, _request: HttpRequest) -> dict[str, str]:
        """The header that shows the key; none without a key."""
        return {self.header: key} if key else {}


class Prefill(Struct, frozen=True):
    """How a provider goes on with an answer that a request already begins.

    `models` are shell patterns for the models that truly do: they take a trailing assistant
    message as the beginning of their own answer and return only the rest. `keeps_space` is false
    where white space at the end of a beginning is refused or trimmed. `echoes`: the answer says
    the beginning again before it goes on (Mistral). `path` replaces the provider's where such
    requests go elsewhere. What must be written into the request body is the dialect's.
    """

    models: tuple[str, ...] = ("*",)
    keeps_space: bool = True
    echoes: bool = False
    path: str = ""

    def takes(self, model: str) -> bool:
        """Whether this model goes on where it is told to."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class InProcess(Struct, frozen=True):
    """A provider without a network: how to make its transports."""

    sync: Callable[[], Transport]
    aio: Callable[[], AsyncTransport]


class Provider(Struct, frozen=True, kw_only=True):
    """One provider.

    `base_url` may hold `{VARIABLE}` or `{THIS|OR_THAT}`: the environment fills it in. `path` is
    appended to it; `{model}` in it is the model's name, and `whole_path` replaces it for answers
    that do not stream. `resume_path` continues a cut answer where the server keeps it, with the
    fields that the dialect's reader gave in its `cursor`. `prefixes` are the beginnings of model
    names that certainly are this provider's, so that they work without `name/`. `base_url_env`
    is the variable that moves it elsewhere; the official SDKs read the same ones. `host_env` is
    one that holds a host instead, as `server_at` reads it. `other_key_env` is a second name of the
    key's variable. `models_path` lists the models; "" where no such list is. `local`: a server on
    one's own machine, which is there when it listens.
    """

    name: str
    base_url: str
    path: str
    auth: Auth
    codec: Codec
    base_url_env: str = ""
    host_env: str = ""
    other_key_env: str = ""
    headers: dict[str, str] = {}
    prefixes: tuple[str, ...] = ()
    whole_path: str = ""
    resume_path: str = ""
    models_path: str = "/models"
    prefill: Prefill | None = None
    local: bool = False
    in_process: InProcess | None = None

    def with_implied_finish(self) -> "Provider":
        """The same provider, whose clean end counts as `stop`; others than chat always say more."""
        dialect = self.codec.dialect
        if not isinstance(dialect, OpenAIChat):
            return self
        implied = msgspec.structs.replace(dialect, implied_finish=True)
        codec = msgspec.structs.replace(self.codec, dialect=implied)
        return msgspec.structs.replace(self, codec=codec)

    def http_request(self, request: Request, key: str, base_url: str) -> HttpRequest:
        """The HTTP request that asks `request`; LocalProtocolError if it can't be asked here."""
        path = self.path if request.stream else self.whole_path or self.path
        if request.partial_turn and self.prefill is not None and self.prefill.path:
            path = self.prefill.path
        url = base_url.rstrip("/") + path.replace("{model}", quote(request.model, safe=""))
        body = _encoded(self.codec.dialect.encode_request, request)
        headers = {"content-type": "application/json", **self._accepting(stream=request.stream)}
        headers |= self._travelling(request) | _lower(request.headers)
        left_out = self.codec.dialect.omitted(request)
        return self._signed(HttpRequest("POST", url, headers, body, omitted=left_out), key)

    def resume_request(self, cursor: Mapping[str, str], key: str, base_url: str) -> HttpRequest:
        """The HTTP request that follows a cut answer from `cursor` on."""
        url = base_url.rstrip("/") + self.resume_path.format_map(cursor)
        return self._signed(HttpRequest("GET", url, self._accepting(stream=True)), key)

    def models_request(self, key: str, base_url: str) -> HttpRequest:
        """The HTTP request that asks which models there are."""
        url = base_url.rstrip("/") + self.models_path
        return self._signed(HttpRequest("GET", url, self._accepting(stream=False)), key)

    def key_in(self, env: Mapping[str, str]) -> str:
        """The key that the environment holds; "" without one."""
        names = (self.auth.env, self.other_key_env)
        return next((key for name in names if name and (key := env.get(name, "").strip())), "")

    def located(self, env: Mapping[str, str]) -> str:
        """`base_url` as the environment has it; ConfigurationError names what is missing."""
        if host := env.get(self.host_env):
            return self._moved(host)
        return _PLACE.sub(lambda place: self._place(place[1].split("|"), env), self.base_url)

    def _place(self, variables: list[str], env: Mapping[str, str]) -> str:
        found = next((env[name] for name in variables if env.get(name)), None)
        if found is None:
            raise ConfigurationError(
                f"{self.name} needs {' or '.join(variables)} to know where it is",
                hint="Set it in the environment or in .env, or give base_url.",
            )
        return found.rstrip("/")

    def _moved(self, host: str) -> str:
        try:
            return server_at(host, self.base_url)
        except ValueError as error:
            raise ConfigurationError(
                f"{self.host_env} is {host!r}: {error}",
                hint="It holds a host, a host and a port, or a URL: localhost:11434.",
            ) from error

    def _travelling(self, request: Request) -> dict[str, str]:
        """The caller's headers that belong to this provider's own dialect."""
        native = request.native
        if native is None or native.dialect != self.codec.dialect.name:
            return {}
        return native.headers

    def _accepting(self, *, stream: bool) -> dict[str, str]:
        # compression makes proxies collect what should flow
        accept = self.codec.content_type if stream else "application/json"
        return {"accept": accept, "accept-encoding": "identity", **self.headers}

    def _signed(self, request: HttpRequest, key: str) -> HttpRequest:
        shown = {**request.headers, **self.auth.headers(self._showable(key), request)}
        return msgspec.structs.replace(request, headers=shown)

    def _showable(self, key: str) -> str:
        """The key without the white space around it. AuthenticationFailed, which does not repeat
        it, if it can't stand in a header (RFC 9110, 5.5: ASCII that is to be seen).
        """
        plain = key.strip()
        if plain.isascii() and (not plain or plain.isprintable()):
            return plain
        unfit = AuthenticationFailed(f"the key for {self.name} holds characters that no key has")
        unfit.advice = "Line ends, other control characters and letters beyond ASCII can't be sent."
        raise unfit


def _encoded(encode: Callable[[Request], bytes], request: Request) -> bytes:
    """The body; LocalProtocolError names the field that no JSON can be made of."""
    try:
        return encode(request)
    except _NO_JSON as error:
        faults = ((name, _fault(getattr(request, name))) for name in request.__struct_fields__)
        name, said = next(((n, said) for n, said in faults if said), ("the request", str(error)))
        raise LocalProtocolError(f"{name} can't be sent: {said}") from error


_NO_JSON = (UnicodeEncodeError, TypeError, RecursionError)
"""What encoding raises: for half a surrogate pair, for objects that JSON has no word for, for what
holds itself."""


def _fault(value: object) -> str:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return "it holds half a surrogate pair, which is no character"
    except _NO_JSON as error:
        return str(error)
    return ""


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


_PLACE = re.compile(r"\{([A-Z][A-Z0-9_|]*)\}")

# Where a server listens that listens everywhere: nobody can connect to such an address.
_EVERYWHERE = {str(IPv4Address(0)): "127.0.0.1", str(IPv6Address(0)): "[::1]"}


def server_at(host: str, usual: str) -> str:
    """The address `usual`, moved to `host`, which may lack what it has in common with it.

    Ollama's rule for OLLAMA_HOST (ollama/ollama, envconfig/config.go): without a scheme it is
    http at the usual port; with one, its own port; a path comes before the usual one; an address
    that stands for all interfaces is this machine. Raises ValueError if it can't be read.
    """
    scheme, given, rest = host.strip().rpartition("://")
    there, here = urlsplit(f"{scheme or 'http'}://{rest}"), urlsplit(usual)
    name = there.hostname or here.hostname or ""
    name = _EVERYWHERE.get(name) or (f"[{name}]" if ":" in name else name)
    port = there.port or (None if given else here.port)
    place = f"{name}:{port}" if port else name
    return f"{there.scheme}://{place}{there.path.rstrip('/')}{here.path}"
