"""Reading server-sent events off a real socket, as they come."""

from unbroken.wire.sse import SseDecoder


def frames_of(answer, stop=None):
    """The frames of an open answer that have data; leaves it after `stop` of them."""
    frames, decoder = [], SseDecoder()
    with answer:
        while data := answer.read1(65536):
            frames += decoder.feed(data)
            if stop is not None and len(frames) >= stop:
                return frames[:stop]
    return frames
