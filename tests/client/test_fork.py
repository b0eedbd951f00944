"""Clients and processes: what is open before a fork is the parent's, and loops don't share."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from unbroken import AsyncClient, Client
from unbroken.errors import LocalProtocolError
from unbroken.simulator.app import running

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

EACH_ITS_OWN = """
import os, sys, unbroken
client = unbroken.Client(base_url=sys.argv[1], api_key="k")

def ask(who, number):
    text = f"this is the answer {number} for {who}"
    with client.stream(f"openai/demo?ttft=0&tps=400&text={text}", "Hi") as stream:
        got = "".join(stream.text)
    assert (got, len(stream.response.attempts)) == (text, 1), (text, got)

ask("both", 0)  # leaves a connection that can serve again
child = os.fork()
for number in range(20):
    ask("parent" if child else "child", number)
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
LEFT_ALONE = """
import os, sys, unbroken
client = unbroken.Client(base_url=sys.argv[1], api_key="k")
with client.stream("openai/demo?ttft=0&tps=200&tokens=100", "Hi") as stream:
    words = iter(stream.text)
    next(words)
    child = os.fork()
    if not child:
        stream.close()
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    list(words)
assert (stream.response.end, len(stream.response.attempts)) == ("complete", 1), stream.response
"""


@pytest.fixture(scope="module")
def url():
    with running() as url:
        yield f"{url}/v1"


@pytest.mark.parametrize("program", [EACH_ITS_OWN, LEFT_ALONE], ids=["each its own", "left alone"])
def test_a_process_that_is_forked_off_has_connections_of_its_own(url, program):
    for _ in range(5):
        command = [sys.executable, "-c", program, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_async_client_belongs_to_one_loop(url):
    client = AsyncClient(base_url=url, api_key="k")

    async def ask():
        return (await client.complete("openai/demo?ttft=0&tps=0&tokens=5", "Hi")).end

    with asyncio.Runner() as first:
        assert first.run(ask()) == "complete"
        with pytest.raises(LocalProtocolError, match="another event loop"):
            asyncio.run(ask())
        assert first.run(ask()) == "complete"
        first.run(client.close())


def test_threads_that_ask_first_at_once_share_their_connections():
    client, made = Client(), []

    def slowly():
        time.sleep(0.05)
        return object()

    threads = [
        threading.Thread(target=lambda: made.append(client._kind("", slowly))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(map(id, made))) == 1
