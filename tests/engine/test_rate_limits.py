"""Rate limits beside `total`, fallbacks, cancelled calls and pictures."""

import asyncio

import pytest

from unbroken import AsyncClient, Client, Limits, RecoveryPolicy, Timeouts
from unbroken.engine.circuit import CircuitBreaker
from unbroken.engine.limits import RateLimiter, estimate_tokens
from unbroken.engine.policy import is_retryable
from unbroken.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionLost,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    RemoteProtocolError,
    ResumeMismatch,
    StreamTruncated,
    TimedOut,
)
from unbroken.events import FellBack, TextDelta
from unbroken.messages import Image, Message, Request, Text
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

HI = Scenario(text="hi")


def test_waiting_for_a_turn_counts_against_total():
    transport = SimulatorTransport(HI)
    client = Client(transport=transport, limits={"sim": Limits(rpm=1)}, timeouts=Timeouts(total=5))
    client.complete("sim/demo", "hi")
    begin = transport.now()
    with pytest.raises(TimedOut) as caught:
        client.complete("sim/demo", "hi")

    assert caught.value.phase == "total"
    assert transport.now() - begin == pytest.approx(5.0)
    assert len(transport.log) == 1


def test_a_free_fallback_is_preferred_to_waiting():
    transport = SimulatorTransport(HI)
    client = Client(transport=transport, api_key="k", limits={"sim": Limits(rpm=1)})
    client.complete("sim/demo", "hi")
    begin = transport.now()

    assert client.complete(["sim/demo", "openai/gpt"], "hi").provider == "openai"
    assert transport.now() - begin < 5


def test_a_call_that_is_cancelled_while_it_waits_gives_its_turn_back():
    async def main():
        transport = AsyncSimulatorTransport(HI, real_time=True)
        client = AsyncClient(transport=transport, limits={"sim": Limits(rpm=6)})
        await client.complete("sim/demo", "hi")
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.complete("sim/demo", "hi"), 0.01)
        limiter, _ = client._settings.guards.of("sim", "http://simulator.invalid/v1", "", "demo")
        return limiter.wait(transport.now(), 0)

    assert asyncio.run(main()) < 11  # one turn of ten seconds, not twenty of them


def test_a_turn_that_is_given_back_is_free():
    limiter = RateLimiter(Limits(rpm=6, tpm=600))
    limiter.acquire(0.0, 60)
    limiter.release(60)

    assert limiter.wait(0.0, 60) == 0


def test_a_picture_does_not_count_by_its_bytes():
    picture = Image("data:image/png;base64," + "A" * 2_000_000)
    request = Request(
        model="m", messages=(Message("user", (Text("what is it?"), picture)),), max_tokens=100
    )

    assert estimate_tokens(request) < 1500


TORN = [ConnectionLost(), StreamTruncated(), RemoteProtocolError()]


@pytest.mark.parametrize("error", TORN, ids=lambda error: type(error).__name__)
def test_resets_torn_streams_and_garbage_open_a_circuit(error):
    circuit = CircuitBreaker()
    for _ in range(3):
        circuit.on_failure(error, 0.0)

    assert not circuit.allows(0.0)


@pytest.mark.parametrize("error", [BadRequest(status=400), RateLimited(status=429)])
def test_a_probe_that_is_answered_closes_the_circuit(error):
    circuit = CircuitBreaker()
    for _ in range(3):
        circuit.on_failure(Overloaded(status=503), 0.0)
    circuit.on_start()
    circuit.on_failure(error, 5.0)
    circuit.on_start()

    assert circuit.allows(5.0)


def test_retry_after_zero_is_no_busy_loop():
    waits = [
        RecoveryPolicy(attempts=9).delay(
            RateLimited(status=429, retry_after=0.0), tries, 0.0, 0.5, begun=False
        )
        for tries in (1, 2, 3)
    ]

    assert waits == [0.25, 0.5, 1.0]


def test_the_providers_word_about_retrying_wins():
    stop, again = Overloaded(status=503), BadRequest(status=400)
    stop.should_retry, again.should_retry = False, True

    assert not is_retryable(stop)
    assert is_retryable(again)


NOT_HERE = {401: AuthenticationFailed, 403: PermissionDenied, 404: NotFound, 402: QuotaExhausted}


@pytest.mark.parametrize("status", NOT_HERE)
def test_what_concerns_one_model_is_left_to_the_next_and_reported(status):
    bad = Scenario(faults=(Fault(kind="status", status=status, type="insufficient_quota"),))
    if status != 402:
        bad = Scenario(faults=(Fault(kind="status", status=status, type="error"),))
    transport = SimulatorTransport({"bad": bad, "well": HI})
    client = Client(api_key="k", transport=transport)
    with client.stream(["openai/bad", "openai/well"], "hi") as stream:
        events = list(stream)

    assert stream.response.text == "hi"
    assert [entry.model for entry in transport.log] == ["bad", "well"]
    assert isinstance(stream.response.attempts[0].error, NOT_HERE[status])
    assert any(isinstance(event, FellBack) for event in events)


def test_a_server_that_restarts_in_mid_answer_is_waited_for():
    """Away for longer than the tries of one model would take."""

    class Restarting(SimulatorTransport):
        def open(self, request, deadlines):
            cut = (Fault(kind="cut", words=3),) if not self.log else ()
            if 0 < len(self.log) < 9:
                cut = (Fault(kind="status", status=503),)
            self.server._scenarios["*"] = Scenario(text="one two three four five", faults=cut)
            return super().open(request, deadlines)

    client = Client(api_key="k", transport=Restarting(HI))
    with client.stream("sim/a", "hi") as stream:
        text = "".join(stream.text)

    assert text == "one two three four five"
    assert len(stream.response.attempts) == 10


def test_a_loop_that_is_left_is_taken_up_and_after_close_nothing_comes():
    client = Client(transport=SimulatorTransport(Scenario(text="one two three four")))
    with client.stream("sim/a", "hi") as stream:
        first = next(event for event in stream if isinstance(event, TextDelta))
        rest = "".join(stream.text)
    assert first.text + rest == stream.response.text == "one two three four"

    pieces = []
    with client.stream("sim/a", "hi") as stream:
        for piece in stream.text:
            pieces.append(piece)
            stream.close()
    assert len(pieces) == 1


def test_text_alone_is_never_restarted():
    class Changing(SimulatorTransport):
        def open(self, request, deadlines):
            if self.log:
                self.server._scenarios["*"] = Scenario(text="Quite another answer.")
            return super().open(request, deadlines)

    cut = Scenario(tokens=40, faults=(Fault(kind="cut", words=20, times=1),))
    policy = RecoveryPolicy(on_cut="replay", allow_restart=True)
    client, seen = Client(api_key="k", transport=Changing(cut), recovery=policy), ""
    with client.stream("openai/x", "hi") as stream, pytest.raises(ResumeMismatch):
        for text in stream.text:
            seen += text

    assert seen == stream.response.text != ""
