"""Content codings: what arrives compressed is read as it comes (RFC 9110, section 8.4).

We ask for none (`accept-encoding: identity`), since proxies that compress also collect what should
flow. Some compress all the same. gzip and deflate are in the standard library; Brotli and
Zstandard need a package, and an error names it. A coding that nobody knows (`none`, `utf-8`, both
seen) means plain bytes.
"""

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from unbroken.errors import ConnectionLost

_AT_ONCE = 1024 * 1024
"""Bytes that one step gives: a few bytes may expand to more than the memory holds."""


class Decompressor(Protocol):
    """One coding. `feed(b"")` goes on with what is pending."""

    pending: bool  # more output is there without more input
    done: bool  # the compressed data has ended

    def feed(self, data: bytes, /) -> bytes: ...


class _Zlib:
    """gzip (any number of members, RFC 1952) and deflate (with and without zlib's wrapper)."""

    def __init__(self, *, gzip: bool) -> None:
        self.pending = self.done = False
        self._bits = (zlib.MAX_WBITS | 16) if gzip else zlib.MAX_WBITS
        self._gzip, self._raw = gzip, zlib.decompressobj(self._bits)
        self._held = b""
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        if not self._begun and data:
            if not self._gzip and len(data) < 2:
                self._held = data
                return b""
            self._begin(data)
        out = self._raw.decompress(data, _AT_ONCE)
        self._held, self.done = self._raw.unconsumed_tail, self._raw.eof
        if self._gzip and self.done and self._raw.unused_data.startswith(b"\x1f"):
            self._held, self.done = self._raw.unused_data, False  # another member follows
            self._raw = zlib.decompressobj(self._bits)
        self.pending = bool(self._held) or len(out) >= _AT_ONCE
        return out

    def _begin(self, data: bytes) -> None:
        """Some servers send deflate without its wrapper; that is seen by the first two bytes."""
        self._begun = True
        wrapped = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0 if data[1:] else True
        if not self._gzip and not wrapped:
            self._raw = zlib.decompressobj(-zlib.MAX_WBITS)


class _Brotli:
    """RFC 7932."""

    def __init__(self, brotli: Any) -> None:
        self.pending = self.done = False
        self._raw = brotli.Decompressor()

    def feed(self, data: bytes) -> bytes:
        out: bytes = self._raw.process(data, output_buffer_limit=_AT_ONCE)
        self.done = self._raw.is_finished()
        self.pending = not self.done and not self._raw.can_accept_more_data()
        return out


class _Zstandard:
    """RFC 8878."""

    def __init__(self, zstd: Any) -> None:
        self.pending = self.done = False
        self._raw = zstd.ZstdDecompressor()

    def feed(self, data: bytes) -> bytes:
        if self.done:
            return b""
        out: bytes = self._raw.decompress(data, _AT_ONCE)
        self.done = self._raw.eof
        self.pending = not self.done and not self._raw.needs_input
        return out


def _brotli() -> Decompressor:
    return _Brotli(_package("br", "brotli", "brotli"))


def _zstandard() -> Decompressor:
    return _Zstandard(_package("zstd", "backports.zstd", "compression.zstd", "backports.zstd"))


def _package(coding: str, install: str, *names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ConnectionLost(
        f"the answer came with content-encoding {coding!r}, though no compression was asked for; "
        f"to read it: pip install {install}"
    )


_MAKE: dict[str, Callable[[], Decompressor]] = {
    "gzip": lambda: _Zlib(gzip=True),
    "x-gzip": lambda: _Zlib(gzip=True),
    "deflate": lambda: _Zlib(gzip=False),
    "br": _brotli,
    "zstd": _zstandard,
}
_AT_MOST = 4
"""Codings on top of each other; more are an attack."""


class Decompression:
    """All codings of one body, the last one first. Raises ConnectionLost for damaged data."""

    def __init__(self, codings: list[str]) -> None:
        known = [coding for coding in codings if coding in _MAKE]
        if len(known) > _AT_MOST:
            raise ConnectionLost(f"content-encoding names {len(known)} codings")
        self._steps = [_MAKE[coding]() for coding in reversed(known)]
        self._names = ", ".join(known)
        self._begun = False

    def __bool__(self) -> bool:
        return bool(self._steps)

    @property
    def pending(self) -> bool:
        """More output is there without more input."""
        return any(step.pending for step in self._steps)

    def feed(self, data: bytes) -> bytes:
        """Return what these bytes decompress to, at most about a megabyte; see `pending`."""
        self._begun = self._begun or bool(data)
        try:
            for step in self._steps:
                data = step.feed(data)
        except ConnectionLost:
            raise
        except Exception as error:  # zlib.error, brotli.error, ZstdError
            raise ConnectionLost(f"malformed content-encoding {self._names}: {error}") from error
        return data

    def eof(self) -> None:
        """The body has ended. Raises ConnectionLost if the compressed data has not."""
        if self._begun and not all(step.done for step in self._steps):
            raise ConnectionLost(f"the body ended in the middle of its {self._names} data")
