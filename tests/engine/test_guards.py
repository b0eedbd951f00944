"""Circuits and limits: what all calls to one provider share."""

import pytest

from unbroken import Client
from unbroken.engine.circuit import CircuitBreaker
from unbroken.engine.guards import GuardRegistry
from unbroken.engine.limits import Limits, RateLimiter
from unbroken.errors import BadRequest, ConnectFailed, Overloaded, RateLimited, TimedOut
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import SimulatorTransport


def test_a_circuit_opens_after_three_failures_in_a_row():
    circuit = CircuitBreaker()
    for _ in range(2):
        circuit.on_failure(Overloaded(status=503), 10.0)
    assert circuit.allows(10.0)
    circuit.on_failure(Overloaded(status=503), 10.0)

    assert not circuit.allows(11.9)
    assert circuit.allows(12.0)


@pytest.mark.parametrize("error", [TimedOut(phase="first_event"), ConnectFailed()])
def test_silence_and_a_closed_door_open_it_at_once(error):
    circuit = CircuitBreaker()
    circuit.on_failure(error, 0.0)

    assert not circuit.allows(1.9)


@pytest.mark.parametrize("error", [BadRequest(status=400), RateLimited(status=429)])
def test_what_is_no_failure_of_the_provider_leaves_it_closed(error):
    circuit = CircuitBreaker()
    for _ in range(9):
        circuit.on_failure(error, 0.0)

    assert circuit.allows(0.0)


def test_one_probe_at_a_time_and_each_that_fails_waits_longer():
    circuit, now, pauses = CircuitBreaker(), 0.0, []
    circuit.on_failure(TimedOut(), now)
    for _ in range(5):
        begin = now
        while not circuit.allows(now):
            now += 0.5
        pauses.append(now - begin)
        circuit.on_start()
        assert not circuit.allows(now)  # somebody is probing
        circuit.on_failure(TimedOut(), now)

    assert pauses == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_probe_that_works_closes_it_and_one_that_is_left_frees_it():
    circuit = CircuitBreaker()
    circuit.on_failure(TimedOut(), 0.0)
    circuit.on_start()
    circuit.on_cancel()
    assert circuit.allows(5.0)
    circuit.on_start()
    circuit.on_success()

    assert circuit.allows(5.0)
    circuit.on_failure(Overloaded(status=503), 5.0)
    assert circuit.allows(5.0)  # the count begins anew


def test_requests_a_minute_are_waited_for():
    limiter = RateLimiter(Limits(rpm=60))
    waits = [limiter.acquire(100.0, 0) for _ in range(10)]

    assert waits[:6] == [0] * 6
    assert waits[6:] == [1.0, 2.0, 3.0, 4.0]


def test_no_minute_sees_much_more_than_the_limit():
    limiter, now, sent = RateLimiter(Limits(rpm=60)), 0.0, []
    for _ in range(200):
        now += limiter.acquire(now, 0)
        sent.append(now)
    counts = [sum(begin <= at < begin + 60 for at in sent) for begin in sent]

    assert max(counts) <= 66


def test_tokens_a_minute_are_waited_for_and_what_was_not_used_is_given_back():
    limiter = RateLimiter(Limits(tpm=6000))
    assert limiter.acquire(0.0, 600) == 0
    assert limiter.acquire(0.0, 100) == pytest.approx(1.0)
    limiter.settle(600, 100)

    assert limiter.acquire(0.0, 100) == 0


def test_headers_are_believed():
    limiter = RateLimiter()
    limiter.update(
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 10
    )
    assert limiter.wait(10, 0) == 60.0  # as long as is believed
    other = RateLimiter()
    other.update({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 10)
    other.update({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "1h"}, 10)

    assert other.wait(10, 0) == pytest.approx(0.12)


DATE = "Sat, 21 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("2026-11-21T10:00:07Z", 7.0), ("2026-11-21T09:00:00Z", 0.0), ("soon", 0.0), ("", 0.0)],
)
def test_a_moment_is_measured_against_the_answers_own_date(reset, seconds):
    limiter = RateLimiter()
    name = "anthropic-ratelimit-output-tokens"
    limiter.update({f"{name}-remaining": "0", f"{name}-reset": reset, "date": DATE}, 10)

    assert limiter.wait(10, 0) == seconds


@pytest.mark.parametrize("bad", [{"rpm": 0}, {"tpm": -1}])
def test_a_limit_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="a minute"):
        Limits(**bad)


def test_calls_of_one_client_share_a_limit_and_others_do_not():
    transport = SimulatorTransport(Scenario(ttft=0.0, tokens=2))
    client = Client(api_key="k", transport=transport, limits={"openai": Limits(rpm=6)})
    begin = transport.now()
    delays = [client.complete("openai/a", "hi").attempts[0].delay for _ in range(3)]
    free = Client(api_key="k", transport=transport).complete("openai/a", "hi")

    assert delays[0] == 0 < delays[1] < delays[2] + 10
    assert transport.now() - begin >= 20 - 1
    assert free.attempts[0].delay == 0


def test_names_that_nobody_asks_again_are_forgotten():
    guards = GuardRegistry({})
    made = [guards.of("sim", "", "", f"made-up-{number}")[1] for number in range(5000)]

    assert len(guards._circuits) == 1000
    assert guards.of("sim", "", "", "made-up-4000")[1] is made[4000]  # asking forgets nobody
