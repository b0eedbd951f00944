"""text/event-stream by the rules of WHATWG HTML 9.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import RemoteProtocolError
from unbroken.wire.codec import Frame
from unbroken.wire.sse import SseDecoder, encode


def frames(*reads):
    decoder = SseDecoder()
    return [frame for read in reads for frame in decoder.feed(read)]


def data(*reads):
    return [frame.data for frame in frames(*reads)]


def test_a_plain_block_is_one_frame():
    assert frames(b"data: hello\n\n") == [Frame(b"hello")]


def test_several_events_in_one_read_come_together():
    assert data(b"data: a\n\ndata: b\n\ndata: c\n\n") == [b"a", b"b", b"c"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_three_line_ends_end_lines(end):
    assert data(b"data: a" + end + end + b"data: b" + end + end) == [b"a", b"b"]


def test_a_cr_at_the_end_of_a_read_is_remembered():
    assert data(b"data: a\r", b"\n\r", b"\ndata: b\r\n\r\n") == [b"a", b"b"]


def test_several_data_lines_are_joined_by_a_line_feed():
    assert data(b"data: a\ndata: b\n\n") == [b"a\nb"]


def test_only_one_leading_space_is_taken_away():
    assert data(b"data:a\n\ndata:  b\n\n") == [b"a", b" b"]


def test_comments_are_no_events():
    assert data(b": keep-alive\n\n", b"data: a\n\n", b":\n\n") == [b"a"]


def test_an_event_without_data_is_not_dispatched():
    assert data(b"event: ping\n\ndata: a\n\n") == [b"a"]
    assert frames(b"event: x\n\n", b"data: a\n\n") == [Frame(b"a")]


def test_data_without_a_colon_is_an_empty_line():
    assert data(b"data\n\n", b"data\ndata\n\n") == [b"", b"\n"]


def test_the_event_name_belongs_to_one_event():
    assert frames(b"event: x\ndata: a\n\ndata: b\n\n") == [Frame(b"a", "x"), Frame(b"b")]


def test_the_id_stays_until_another_one_comes():
    reads = b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"

    assert frames(reads) == [Frame(b"a", "", "1"), Frame(b"b", "", "1"), Frame(b"c")]


def test_an_id_with_a_nul_is_ignored():
    assert frames(b"id: a\0b\ndata: x\n\n") == [Frame(b"x")]


def test_a_byte_order_mark_is_dropped_even_in_pieces():
    assert data(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]
    assert data(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [b"a"]


def test_a_second_byte_order_mark_is_content():
    assert data(b"\xef\xbb\xbfdata: \xef\xbb\xbf\n\n") == [b"\xef\xbb\xbf"]


def test_a_character_cut_in_two_is_whole_again():
    whole = "data: é中🙂\n\n".encode()

    assert data(*(whole[at : at + 1] for at in range(len(whole)))) == ["é中🙂".encode()]


def test_an_event_cut_by_the_end_is_dropped():
    decoder = SseDecoder()

    assert decoder.feed(b"data: a\n\ndata: b\n") == [Frame(b"a")]
    decoder.eof()
    assert decoder.feed(b"\n") == []


def test_an_event_without_end_is_stopped_at_the_limit():
    decoder = SseDecoder(limit=100)

    with pytest.raises(RemoteProtocolError, match="larger than 100 bytes"):
        for _ in range(50):
            decoder.feed(b"data: xyz")


def test_many_small_events_never_reach_the_limit():
    decoder = SseDecoder(limit=100)

    assert sum(len(decoder.feed(b"data: xyz\n\n")) for _ in range(1000)) == 1000


@pytest.mark.parametrize("line", [b"data: xyz\n", b"data: xyz\r\n"])
def test_the_limit_counts_all_data_lines_of_one_event(line):
    decoder = SseDecoder(limit=100)

    with pytest.raises(RemoteProtocolError):
        for _ in range(50):
            decoder.feed(line)


def test_comments_without_end_are_not_held():
    decoder = SseDecoder(limit=100)

    assert [decoder.feed(b": still here\n") for _ in range(1000)] == [[]] * 1000


def test_a_retry_alone_is_no_event():
    assert data(b"retry: 3000\n\n", b"data: a\n\n") == [b"a"]


def test_a_read_of_plain_and_odd_blocks_keeps_their_order():
    reads = b"data: a\n\n: hi\n\nevent: x\ndata: b\n\ndata:c\ndata: d\n\ndata: e\n\n"

    assert frames(reads) == [Frame(b"a"), Frame(b"b", "x"), Frame(b"c\nd"), Frame(b"e")]


def test_a_long_line_in_pieces_is_joined_once():
    """Linear by construction: while a line is open, no piece is touched again."""
    decoder, pieces = SseDecoder(), [b"data: ", *(b"%d" % n for n in range(1000))]

    for piece in pieces:
        decoder.feed(piece)

    assert all(held is piece for held, piece in zip(decoder._tail, pieces, strict=True))
    assert decoder.feed(b"\n\n") == [Frame(b"".join(pieces)[6:])]


LINES = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data:b",
            b"data:  c",
            b"event: x",
            b"id: 7",
            b": hi",
            b"retry: 3",
            b"",
            b"",
            b"data",
        ]
    ),
    max_size=30,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(LINES, ENDS, st.lists(st.integers(1, 9), min_size=1))
def test_any_slicing_gives_the_same_frames(lines, end, sizes):
    whole = b"".join(line + end for line in lines) + b"data: last\n\n"
    reads, at = [], 0
    while at < len(whole):
        size = sizes[len(reads) % len(sizes)]
        reads.append(whole[at : at + size])
        at += size

    assert frames(*reads) == frames(whole)


NAMES = st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), max_size=8)
FRAMES = st.lists(st.builds(Frame, st.text(max_size=20).map(str.encode), NAMES.map(str.strip)))


@given(FRAMES)
def test_what_is_encoded_is_decoded_again(original):
    wire = b"".join(map(encode, original))
    normal = [
        Frame(f.data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), f.event) for f in original
    ]

    assert frames(wire) == normal


@given(st.lists(st.binary(max_size=40)))
def test_garbage_is_no_reason_to_fail(reads):
    frames(*reads)


def test_blocks_with_ids_and_events_are_read_in_any_order_and_slicing():
    wire = (
        b'id: 1\nevent: a\ndata: {"x": "data: y"}\n\n'
        b"event: b\nid: 2\ndata: two\n\n"
        b"id: 3\ndata: three\n\n"
        b"data: four\n\n"
        b"id: 5\nid: 6\ndata: six\n\n"
    )
    expected = [
        Frame(b'{"x": "data: y"}', "a", "1"),
        Frame(b"two", "b", "2"),
        Frame(b"three", "", "3"),
        Frame(b"four", "", "3"),
        Frame(b"six", "", "6"),
    ]
    for size in (1, 7, 64, len(wire)):
        decoder = SseDecoder()
        frames = [f for at in range(0, len(wire), size) for f in decoder.feed(wire[at : at + size])]
        assert frames == expected
