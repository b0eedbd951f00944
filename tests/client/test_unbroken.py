"""Promise 1 on real sockets: every request cut at a random byte, thousands of answers.

And that leaving closes the connection at once, in every way there is to leave.
"""

import asyncio
import gc
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from unbroken import AsyncClient, Client, RecoveryPolicy, UnbrokenError
from unbroken.simulator.app import running
from unbroken.simulator.scenario import Scenario

ANSWERS = 600
POLICY = RecoveryPolicy(attempts=4, backoff=0.001)
PROVIDERS = ["openai", "anthropic"]


def plans(provider):
    """Model names whose answers are cut up to three times, each at a byte of its own."""
    dice = random.Random(f"cuts {provider}")
    for number in range(ANSWERS):
        how = dice.choice(["reset", "close", "eof"])
        cuts = [f"fault=cut:bytes={dice.randint(0, 5000)},times={n},how={how}" for n in (1, 2, 3)]
        yield f"{provider}/claude-sonnet-4-5-{number}?ttft=0&tps=0&tokens=30&" + "&".join(
            cuts[: dice.randint(1, 3)]
        )


def whole(client, model):
    """What the same model says when nobody cuts it."""
    return client.complete(model.partition("&fault")[0], "Tell me about cats.").text


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_cut_answer_is_recovered_sync(provider):
    def one(model):
        with client.stream(model, "Tell me about cats.") as stream:
            text = "".join(stream.text)
        return text == whole(client, model), len(stream.response.attempts)

    with running() as url:
        base = f"{url}/v1" if provider == "openai" else url
        with Client(api_key="k", base_url=base, recovery=POLICY) as client:
            with ThreadPoolExecutor(4) as pool:
                told = list(pool.map(one, plans(provider)))

    assert [same for same, _ in told] == [True] * ANSWERS
    assert sum(attempts for _, attempts in told) > ANSWERS * 1.5


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_cut_answer_is_recovered_async(provider):
    async def one(client, model, limit):
        async with limit, client.stream(model, "Tell me about cats.") as stream:
            text = "".join([piece async for piece in stream.text])
        calm = await client.complete(model.partition("&fault")[0], "Tell me about cats.")
        return text == calm.text

    async def everything(base):
        limit = asyncio.Semaphore(8)
        async with AsyncClient(api_key="k", base_url=base, recovery=POLICY) as client:
            return await asyncio.gather(*(one(client, m, limit) for m in plans(provider)))

    with running() as url:
        told = asyncio.run(everything(f"{url}/v1" if provider == "openai" else url))

    assert told == [True] * ANSWERS


# Leaving

SLOW = {"slow": Scenario(ttft=0.0, tps=20, tokens=600), "late": Scenario(ttft=30.0)}


@pytest.fixture
def url():
    with running(SLOW) as address:
        yield address


def ended(url):
    """How the first request ended, once it has; the whole answer would take half a minute."""
    for _ in range(200):
        with urllib.request.urlopen(f"{url}/log") as answer:
            log = json.load(answer)
        if log and log[0]["ended"] != "open":
            return log[0]["ended"]
        time.sleep(0.02)
    return "open"


def opened(url):
    with urllib.request.urlopen(f"{url}/log") as answer:
        return any(entry["sent"] or entry["status"] for entry in json.load(answer))


def test_leaving_the_block_closes_the_connection(url):
    with Client(api_key="k", base_url=f"{url}/v1") as client:
        with client.stream("openai/slow", "hi") as stream:
            next(iter(stream.text))
        assert ended(url) == "client left"


def test_breaking_the_loop_and_forgetting_the_stream_closes_it(url):
    with Client(api_key="k", base_url=f"{url}/v1") as client:
        for _ in client.stream("openai/slow", "hi"):
            break
        gc.collect()
        assert ended(url) == "client left"


def test_an_exception_in_the_block_closes_it(url):
    with Client(api_key="k", base_url=f"{url}/v1") as client:
        with pytest.raises(ZeroDivisionError), client.stream("openai/slow", "hi") as stream:
            for _ in stream:
                1 / 0  # noqa: B018  # what callers do
        assert ended(url) == "client left"


@pytest.mark.parametrize("model", ["openai/slow", "openai/late"])
def test_cancelling_the_task_closes_it_also_before_the_first_token(url, model):
    async def main():
        async with AsyncClient(api_key="k", base_url=f"{url}/v1") as client:

            async def follow():
                async with client.stream(model, "hi") as stream:
                    async for _ in stream:
                        pass

            task = asyncio.create_task(follow())
            while not await asyncio.to_thread(opened, url):
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return await asyncio.to_thread(ended, url)

    assert asyncio.run(main()) == "client left"


def test_forgetting_an_async_stream_closes_it(url):
    async def main():
        async with AsyncClient(api_key="k", base_url=f"{url}/v1") as client:
            async for _ in client.stream("openai/slow", "hi"):
                break
            gc.collect()
            await asyncio.sleep(0.1)
            return await asyncio.to_thread(ended, url)

    assert asyncio.run(main()) == "client left"


def test_ctrl_c_closes_it(url):
    code = (
        "from unbroken import Client\n"
        f"with Client(api_key='k', base_url='{url}/v1') as client:\n"
        "    with client.stream('openai/slow', 'hi') as stream:\n"
        "        for text in stream.text: print(text, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert ended(url) == "client left"


def test_nobody_asks_again_after_the_caller_has_left(url):
    """A retry without a listener would be paid for by nobody's wish."""
    model = "openai/slow?fault=cut:events=1"
    with Client(api_key="k", base_url=f"{url}/v1") as client:
        try:
            with client.stream(model, "hi", recovery=RecoveryPolicy(backoff=5.0)) as stream:
                for _ in stream:
                    break
        except UnbrokenError:
            pytest.fail("leaving is no error")
    time.sleep(0.2)
    with urllib.request.urlopen(f"{url}/log") as answer:
        assert len(json.load(answer)) == 1
