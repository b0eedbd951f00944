"""What holds for every stream, whatever is in it and however it is cut.

The streams are the golden files and what our encoders write of drawn events.
"""

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unbroken.errors import BadRequest, ProviderError, RemoteProtocolError
from unbroken.events import (
    Boundary,
    ChoiceEnd,
    Citation,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.messages import Message, Request, Text
from unbroken.wire import anthropic_messages, openai_chat
from unbroken.wire.anthropic_messages import vocabulary as anthropic_words
from unbroken.wire.openai_chat import vocabulary as openai_chat_words

DATA = Path(__file__).parent.parent / "data/wire"
WHOLE = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.sse"))}
BROKEN = {f"{p.stem}-broken": p.read_bytes() for p in sorted((DATA / "broken").glob("*.sse"))}
GOLDEN = WHOLE | BROKEN
CODECS = {"openai": openai_chat.CODEC, "anthropic": anthropic_messages.CODEC}
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines are busy
each_dialect = pytest.mark.parametrize("name", CODECS)


def codec_of(name):
    return CODECS[name.split("-")[0]]


def question(choices=1):
    return Request(model="m", messages=(Message("user", (Text("hi"),)),), n=choices)


def heard(codec, *reads, choices=1):
    """The events, and what the decoder knows besides."""
    decoder = codec.decoder(question(choices))
    events = [event for read in reads for event in decoder.feed(read)]
    return [*events, *decoder.eof()], decoder.skipped, repr(decoder.error)


def said(codec, events, choices=1):
    writer = codec.dialect.writer(question(choices))
    return b"".join(codec.encode(writer, event) for event in events)


def content(events):
    """Without counts of tokens and boundaries, which each dialect reports in its own places."""
    return [event for event in events if not isinstance(event, UsageReport | Boundary)]


def by_block(events):
    """The same, with each call behind the text: some clients take one block at a time."""
    calls = [e for e in content(events) if isinstance(e, ToolCallStart | ToolCallDelta)]
    others = [e for e in content(events) if e not in calls]
    return others, sorted(calls, key=lambda event: event.index)


def cut(body, places):
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in zip(edges, edges[1:], strict=False)]


# Slicing and framing

PLACES = st.lists(st.integers(0, 1 << 20), max_size=12)


@pytest.mark.parametrize("name", GOLDEN)
@calm
@given(places=PLACES)
def test_golden_bytes_may_be_cut_anywhere(name, places):
    body = GOLDEN[name]

    assert heard(codec_of(name), *cut(body, places)) == heard(codec_of(name), body)


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
@pytest.mark.parametrize("name", GOLDEN)
@calm
@given(places=PLACES)
def test_the_line_ends_make_no_difference(name, end, places):
    body = b"\xef\xbb\xbf" + GOLDEN[name].replace(b"\n", end)

    assert heard(codec_of(name), *cut(body, places)) == heard(codec_of(name), GOLDEN[name])


@pytest.mark.parametrize("name", GOLDEN)
def test_comments_and_pings_make_no_difference(name):
    noise = b'\n\n: keep-alive\n\nretry: 3\n\nevent: ping\ndata: {"type": "ping"}\n\n'
    noisy = GOLDEN[name].replace(b"\n\n", noise)

    assert heard(codec_of(name), noisy) == heard(codec_of(name), GOLDEN[name])


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("anthropic")])
def test_event_lines_may_be_left_out(name):
    lines = GOLDEN[name].splitlines(keepends=True)
    bare = b"".join(line for line in lines if not line.startswith(b"event:"))

    assert heard(codec_of(name), bare) == heard(codec_of(name), GOLDEN[name])


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_becomes_complete_once_and_stays_so(name):
    body = WHOLE[name]
    cuts = [body[:at] for at in (*range(0, len(body), 7), len(body))]

    seen = [any(isinstance(e, MessageEnd) for e in heard(codec_of(name), cut)[0]) for cut in cuts]

    assert (seen[0], seen[-1]) == (False, True)
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_never_complete(name):
    events, _, error = heard(codec_of(name), BROKEN[name])

    assert not any(isinstance(event, ChoiceEnd | MessageEnd) for event in events)
    assert error != "None"


# Saying and hearing


def _own(words):
    """The words that clients of a dialect read, with their meaning."""
    return {(word, words.FINISH[word]) for word in words.OWN}


WORDS = st.text(min_size=1, max_size=12)
JSON = st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=5), st.lists, max_leaves=3)
CITED = st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=2)
SHARED = [
    st.builds(TextDelta, WORDS),
    st.builds(ReasoningDelta, WORDS),
    st.just("call"),
    st.tuples(st.just("arguments"), st.integers(0, 3), WORDS),
]
OWN = {
    "openai": [st.builds(RefusalDelta, WORDS)],
    "anthropic": [
        st.builds(lambda proof: ReasoningDelta("", signature=proof), WORDS),
        CITED.map(lambda found: Citation(msgspec.json.encode(found).decode())),
    ],
}
TOKENS = st.integers(0, 1 << 40)
ENDINGS = {
    "openai": st.sampled_from(sorted(_own(openai_chat_words))),
    "anthropic": st.sampled_from(sorted(_own(anthropic_words))),
}


@st.composite
def answers(draw, name):
    """A whole answer in the words of one dialect; calls may grow in any order."""
    events, calls = [MessageStart(draw(WORDS), draw(WORDS))], 0
    for piece in draw(st.lists(st.one_of(*SHARED, *OWN[name]), max_size=12)):
        if piece == "call":
            events.append(ToolCallStart(calls, f"id-{calls}", f"f{calls}"))
            calls += 1
        elif not isinstance(piece, tuple):
            events.append(piece)
        elif calls:
            events.append(ToolCallDelta(piece[1] % calls, piece[2]))
    raw, reason = draw(ENDINGS[name].filter(lambda ending: ending[1] != "error"))
    usage = draw(usages(name))
    return [*events, ChoiceEnd(reason, raw), UsageReport(usage), MessageEnd(reason, usage, raw)]


@st.composite
def usages(draw, name):
    cached, written = draw(TOKENS), draw(TOKENS) if name == "anthropic" else 0
    return Usage(
        input_tokens=1 + draw(TOKENS) + cached + written,
        output_tokens=draw(TOKENS),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=draw(TOKENS),
    )


@each_dialect
@calm
@given(data=st.data())
def test_what_is_said_is_heard(name, data):
    events = data.draw(answers(name))

    got, skipped, error = heard(CODECS[name], said(CODECS[name], events))

    assert by_block(got) == by_block(events)
    assert (skipped, error) == (0, "None")


@each_dialect
@calm
@given(data=st.data(), places=PLACES)
def test_what_is_said_may_be_cut_anywhere(name, data, places):
    body = said(CODECS[name], data.draw(answers(name)))

    assert heard(CODECS[name], *cut(body, places)) == heard(CODECS[name], body)


@calm
@given(st.lists(st.tuples(st.integers(0, 2), WORDS), max_size=12))
def test_several_choices_are_heard_apart(pieces):
    ends = [ChoiceEnd("stop", "stop", at) for at in range(3)]
    texts = [TextDelta(text, choice) for choice, text in pieces]
    events = [MessageStart("id", "m"), *texts, *ends, MessageEnd("stop", None, "stop")]

    got, *_ = heard(openai_chat.CODEC, said(openai_chat.CODEC, events, 3), choices=3)

    assert got == events


@each_dialect
@calm
@given(error=st.builds(ProviderError, WORDS, status=st.sampled_from([401, 404, 429, 500, 529])))
def test_an_error_keeps_its_status_in_its_own_words(name, error):
    dialect = CODECS[name].dialect

    got = dialect.decode_error(error.status, {}, dialect.encode_error(error))

    assert (got.status, got.message) == (error.status, error.message)


# What can't be read

UNREADABLE = {
    "half": b'{"bro',
    "text": b"<html>",
    "number": b"7",
    "list": b"[[]]",
    "other types": b'{"type": 5, "choices": 5, "id": 5}',
    "no utf-8": b'{"type": "\xff", "id": "\xff"}',
    "nested without end": b'{"type": "ping", "x":' + b"[" * 100_000,
}
MENDED = {"other types", "no utf-8"}  # they are read, and say nothing


@pytest.mark.parametrize("bad", UNREADABLE)
@pytest.mark.parametrize("name", WHOLE)
def test_one_unreadable_event_is_skipped_wherever_it_stands(name, bad):
    blocks = WHOLE[name].split(b"\n\n")
    end = max(at for at, block in enumerate(blocks) if b"data:" in block)
    events, _, error = heard(codec_of(name), WHOLE[name])

    for at in range(end + 1):  # behind the end nothing is read
        with_bad = [*blocks[:at], b"data: " + UNREADABLE[bad], *blocks[at:]]
        got, skipped, said = heard(codec_of(name), b"\n\n".join(with_bad))
        odd = [event for event in got if isinstance(event, OtherEvent) and event not in events]
        assert [event for event in got if event not in odd] == events
        assert (skipped, said) == (int(bad not in MENDED), error)


@pytest.mark.parametrize("name", GOLDEN)
@calm
@given(place=st.integers(0, 1 << 20), lost=st.integers(0, 9), dirt=st.binary(max_size=9))
def test_dirt_in_golden_bytes_raises_nothing_else(name, place, lost, dirt):
    body = GOLDEN[name]
    at = place % len(body)

    with contextlib.suppress(RemoteProtocolError):
        heard(codec_of(name), body[:at] + dirt + body[at + lost :])


KEYS = st.sampled_from(
    "type index message content_block delta usage error id model choices finish_reason text "
    "content thinking reasoning tool_calls function arguments name partial_json stop_reason "
    "citation citations input messages max_tokens role stop tools tool_choice code detail".split()
)
NAMES = st.sampled_from(
    "text thinking tool_use message_start content_block_start content_block_delta message_delta "
    "message_stop text_delta input_json_delta citations_delta signature_delta error user tool "
    "assistant system image tool_result auto any stop 429".split()
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES | st.text()
NEARLY = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=12
    ),
).map(msgspec.json.encode)


@each_dialect
@calm
@given(bodies=st.lists(NEARLY, max_size=4))
def test_nearly_right_events_raise_nothing_else(name, bodies):
    with contextlib.suppress(RemoteProtocolError):
        heard(CODECS[name], b"".join(b"data: %b\n\n" % body for body in bodies))


@each_dialect
@calm
@given(body=st.binary(max_size=80) | NEARLY)
def test_a_whole_answer_of_garbage_raises_only_what_it_may(name, body):
    decoder = CODECS[name].decoder(question())
    decoder.feed(body)

    with contextlib.suppress(RemoteProtocolError):
        decoder.eof()


@each_dialect
@calm
@given(body=NEARLY)
def test_a_nearly_right_request_is_read_or_refused(name, body):
    with contextlib.suppress(BadRequest):
        CODECS[name].dialect.decode_request(body)


@each_dialect
@calm
@given(
    body=st.binary(max_size=80) | NEARLY,
    status=st.integers(400, 599),
    wait=st.text(max_size=5) | st.sampled_from(["inf", "nan", "-1", "1e999", "²"]),
)
def test_any_refusal_is_an_error_with_its_status(name, body, status, wait):
    headers = {"retry-after": wait, "retry-after-ms": wait}

    error = CODECS[name].dialect.decode_error(status, headers, body)

    assert isinstance(error, ProviderError)
    assert error.status == status
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")
