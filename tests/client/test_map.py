"""Batches: many prompts, some at a time."""

import asyncio
import os
import pty
import subprocess
import sys
import threading

import pytest

from unbroken import (
    AsyncClient,
    Client,
    ConfigurationError,
    LocalProtocolError,
    RateLimited,
    RecoveryPolicy,
    Response,
)
from unbroken.client._map import Results
from unbroken.errors import ServerError, UnbrokenError
from unbroken.events import Usage
from unbroken.response import Attempt
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

WORDS = [f"about animal{n}" for n in range(20)]
BAD = [{"role": "user"}]  # says nothing


def mapped(prompts, transport=None, **settings):
    with Client(transport=transport or SimulatorTransport(), api_key="k") as client:
        return client.map(prompts, **{"model": "sim/demo", **settings})


def awaited(prompts, transport=None, **settings):
    async def run():
        async with AsyncClient(transport=transport or AsyncSimulatorTransport()) as client:
            return await client.map(prompts, **{"model": "sim/demo", **settings})

    return asyncio.run(run())


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_results_are_in_the_order_of_the_prompts(ask):
    with Client(transport=SimulatorTransport()) as client:
        expected = [client.complete("sim/demo", word).text for word in WORDS]

    for concurrency in (1, 3, 8, 100):
        results = ask(WORDS, concurrency=concurrency)

        assert [answer.text for answer in results] == expected
    assert len(set(expected)) > 10


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_a_failure_stays_in_its_place_and_the_others_go_on(ask):
    results = ask(["cats", BAD, "dogs"], concurrency=2)

    assert [type(item) for item in results] == [Response, LocalProtocolError, Response]
    assert results.failures == {1: results[1]}
    assert results.responses == [results[0], results[2]]


def test_a_providers_refusal_is_kept_too():
    model = "sim/m?fault=status:status=429"
    results = mapped(["cats", "dogs"], model=model, recovery=RecoveryPolicy(attempts=1))

    assert [type(error) for error in results.failures.values()] == [RateLimited, RateLimited]
    assert results.responses == []


@pytest.mark.parametrize("ask", [mapped, awaited])
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"model": "nobody/x"}, ConfigurationError),
        ({"temperatur": 0}, LocalProtocolError),
        ({"concurrency": 0}, ValueError),
    ],
)
def test_what_is_wrong_with_the_call_is_raised_at_once(ask, settings, error):
    def untouched():
        raise AssertionError("no prompt is needed")
        yield

    with pytest.raises(error):
        ask(untouched(), **settings)


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_one_prompt_is_not_several(ask):
    with pytest.raises(LocalProtocolError, match="a str is one"):
        ask("cats")


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_no_prompts_no_results(ask):
    results = ask([])

    assert results == []
    assert (results.usage, results.cost, results.failures) == (None, 0.0, {})


class Together(SimulatorTransport):
    """Opens nothing before `size` are asked for at once."""

    def __init__(self, size):
        super().__init__()
        self.barrier, self.lock = threading.Barrier(size), threading.Lock()
        self.open_now = self.most = 0

    def open(self, request, deadlines):
        with self.lock:
            self.open_now += 1
            self.most = max(self.most, self.open_now)
        self.barrier.wait(timeout=30)
        with self.lock:
            self.open_now -= 1
        return super().open(request, deadlines)


def test_as_many_are_asked_at_once_as_were_wished_and_no_more():
    transport = Together(4)
    mapped(WORDS, transport, concurrency=4)

    assert transport.most == 4


def test_as_many_tasks_as_were_wished_and_no_more():
    class Counting(AsyncSimulatorTransport):
        now_open = most = 0

        async def open(self, request, deadlines):
            self.now_open += 1
            self.most = max(self.most, self.now_open)
            await asyncio.sleep(0.001)
            self.now_open -= 1
            return await super().open(request, deadlines)

    transport = Counting()
    awaited(WORDS, transport, concurrency=4)

    assert transport.most == 4


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_prompts_are_taken_when_they_are_needed(ask):
    transport = SimulatorTransport() if ask is mapped else AsyncSimulatorTransport()
    ahead = []

    def prompts():
        for at, word in enumerate(WORDS):
            ended = sum(entry.ended != "open" for entry in transport.log)
            ahead.append(at - ended)
            yield word

    ask(prompts(), transport, concurrency=3)

    assert max(ahead) <= 3


def test_prompts_may_come_from_something_that_awaits():
    async def prompts():
        for word in WORDS[:3]:
            await asyncio.sleep(0)
            yield word

    assert awaited(prompts()) == awaited(WORDS[:3])


SLOW = Scenario(ttft=0, tps=20, tokens=400)


def begun(transport, count):
    return sum(entry.sent > 0 for entry in transport.log) == count


def test_control_c_closes_what_is_open():
    transport = SimulatorTransport(SLOW, real_time=True)

    def prompts():
        yield from ("cats", "dogs")
        while not begun(transport, 2):
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapped(prompts(), transport)

    assert [entry.ended for entry in transport.log] == ["client left"] * 2


def test_cancelling_closes_what_is_open():
    transport = AsyncSimulatorTransport(SLOW, real_time=True)

    async def run():
        async with AsyncClient(transport=transport) as client:
            task = asyncio.create_task(client.map(WORDS, model="sim/m", concurrency=2))
            while not begun(transport, 2):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())

    assert [entry.ended for entry in transport.log] == ["client left"] * 2


def closed_in_mid_map(world):
    """Two of three answers are open when another thread closes the client."""
    client = Client(api_key="k", **world(SimulatorTransport))

    def close():
        while not began(client):
            pass
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    results = client.map(WORDS[:3], model="openai/m", concurrency=2)
    closing.join()
    return results


def closed_in_mid_map_async(world):
    async def run():
        client = AsyncClient(api_key="k", **world(AsyncSimulatorTransport))
        mapping = asyncio.create_task(client.map(WORDS[:3], model="openai/m", concurrency=2))
        while not began(client):
            await asyncio.sleep(0.01)
        await client.close()
        return await mapping

    return asyncio.run(run())


def began(client):
    """Whether two answers of a client have begun."""
    drivers = [driver for ref in client._open.valuerefs() if (driver := ref())]
    return sum(driver.delivery.has_content for driver in drivers) >= 2


@pytest.mark.parametrize("ask", [closed_in_mid_map, closed_in_mid_map_async])
@pytest.mark.parametrize("kind", ["http", "simulator"])
def test_an_answer_that_is_cut_by_closing_the_client_is_a_failure(ask, kind):
    with running({"*": SLOW}) as url:
        http, simulated = {"base_url": f"{url}/v1"}, {"scenarios": SLOW, "real_time": True}
        results = ask(lambda make: http if kind == "http" else {"transport": make(**simulated)})

    assert results.responses == []
    assert [str(error).split(".")[0] for error in results] == ["the client is closed"] * 3
    assert [bool(error.response.text) for error in results] == [True, True, False]


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_a_fault_that_is_no_answer_is_raised(ask):
    class Broken(SimulatorTransport if ask is mapped else AsyncSimulatorTransport):
        def open(self, request, deadlines):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(WORDS, Broken())


def priced(cost, usage):
    attempt = Attempt("p", "m", usage=usage, quote=lambda *_: cost)
    return Response(end="complete", usage=usage, attempts=(attempt,))


def failed(response):
    error = ServerError("broken", status=500)
    error.response = response
    return error


def test_the_sums_count_what_failures_cost_too():
    used = Usage(input_tokens=3, output_tokens=2)
    results = Results([priced(0.5, used), failed(priced(0.25, used)), failed(Response())])

    assert results.cost == 0.75
    assert results.usage == Usage(input_tokens=6, output_tokens=4)


@pytest.mark.parametrize("unknown", [priced(None, Usage()), Response(end="complete")])
def test_a_price_that_is_not_known_is_not_guessed(unknown):
    assert Results([priced(0.5, Usage()), unknown]).cost is None


@pytest.mark.parametrize("ask", [mapped, awaited])
def test_a_bar_tells_how_many_are_done_and_how_many_failed(ask, capsys):
    ask(["cats", BAD, "dogs"], progress=True)
    shown = capsys.readouterr()

    assert "3/3" in shown.err
    assert "1 failed" in shown.err
    assert shown.out == ""


def test_without_a_terminal_there_is_no_bar(capsys):
    mapped(["cats"])

    assert capsys.readouterr().err == ""


SCRIPT = """
import sys
from unbroken import Client
Client().map(iter("abc"), model="sim/demo?ttft=0&tps=0", progress={progress})
"""


def shown_on_a_terminal(progress, first=""):
    screen, inside = pty.openpty()
    command = [sys.executable, "-c", first + SCRIPT.format(progress=progress)]
    done = subprocess.run(command, stderr=inside, env={**os.environ, "TERM": "xterm"})
    os.write(inside, b"end")
    os.close(inside)
    shown = b""
    while not shown.endswith(b"end"):
        shown += os.read(screen, 1 << 16)
    os.close(screen)
    assert done.returncode in (0, 1)
    return shown.decode()


def test_on_a_terminal_there_is_a_bar_unless_it_is_not_wanted():
    assert "3/3" in shown_on_a_terminal(progress=None)
    assert shown_on_a_terminal(progress=False) == "end"


def test_without_rich_a_bar_that_is_wished_for_is_an_error_that_helps():
    without = "import sys; sys.modules['rich'] = None\n"

    assert shown_on_a_terminal(None, without) == "end"
    assert "pip install 'unbroken[cli]'" in shown_on_a_terminal(True, without)


def test_errors_are_kept_by_their_common_root():
    assert all(isinstance(item, UnbrokenError) for item in mapped([BAD, BAD]))
