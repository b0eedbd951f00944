"""The chunked transfer coding (RFC 9112, 7.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import ConnectionLost
from unbroken.transport.chunked import ChunkedDecoder


def chunked(parts, extension=b"", trailers=b""):
    chunks = (b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part)
    return b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


def read(wire, size):
    decoder = ChunkedDecoder()
    body = b"".join(decoder.feed(wire[at : at + size]) for at in range(0, len(wire), size))
    return body, decoder


@given(
    st.lists(st.binary(max_size=40)),
    st.integers(1, 30),
    st.sampled_from([b"", b";a=b"]),
    st.sampled_from([b"", b"x: y\r\n", b"x: y\r\nz: \r\n"]),
)
def test_any_slicing_gives_the_same_body(parts, size, extension, trailers):
    body, decoder = read(chunked(parts, extension, trailers), size)

    assert body == b"".join(parts)
    assert decoder.done
    assert decoder.clean


def test_what_follows_the_end_makes_the_connection_unclean():
    _, decoder = read(chunked([b"a"]) + b"HTTP/1.1", 1000)

    assert decoder.done
    assert not decoder.clean


@pytest.mark.parametrize("wire", [b"xyz\r\n", b"-5\r\nhello\r\n", b"\r\n\r\n", b"9" * 20_000])
def test_what_is_no_chunked_body_is_refused(wire):
    with pytest.raises(ConnectionLost):
        ChunkedDecoder().feed(wire)


@given(st.binary(max_size=200))
def test_garbage_never_hangs_nor_fails_otherwise(garbage):
    try:
        ChunkedDecoder().feed(garbage)
    except ConnectionLost as error:
        assert str(error)
