"""Clients that are not ours, in two languages, against a gateway: all of them get the same answer.

Each runs as a process of its own. The JavaScript packages are installed once into `.node-peers`;
Python's live in `.venv-peers` (scripts/dev.py makes both places for `./dev test`).
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from unbroken import AsyncClient, Client
from unbroken.server.gateway import Gateway
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport
from unbroken.stores.memory import MemoryStore

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = ROOT / ".venv-peers/bin/python"
NODE = shutil.which("node", path=f"{os.environ.get('PATH', '')}:{PYTHON.parent}")
MODULES = ROOT / ".node-peers"
SCENARIOS = {
    "*": Scenario(ttft=0.01, tps=1000, tokens=40),
    "down": Scenario(faults=(Fault(kind="status", status=429, retry_after=1.0),)),
}
PROVIDERS = ["openai/gpt-x", "anthropic/claude-haiku-5-5", "bedrock/amazon.nova-lite-v1:0"]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
def gateway(serve, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    client = AsyncClient(api_key="k", transport=AsyncSimulatorTransport(SCENARIOS, real_time=True))
    return serve(Gateway(MemoryStore(), client=client))


def expected(model):
    """What our own client gets: the text, and the call if there is a tool."""
    tool = {"name": "cats", "parameters": CITY}
    with Client(api_key="k", transport=SimulatorTransport(SCENARIOS)) as client:
        text = client.complete(model, "Tell me about cats.").text
        call = client.complete(model, "Tell me about cats.", tools=[tool]).tool_calls[0]
    return text, {"name": call.name, "arguments": call.arguments}


def run(*command, cwd=None):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=280, cwd=cwd
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def alone():
    """One installation at a time."""
    MODULES.mkdir(exist_ok=True)
    with (MODULES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def node():
    """Where the packages are, as their lock file wants them."""
    if NODE is None:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("there is no node; ./dev test installs one into .venv-peers")
    locked = (HERE / "js/package-lock.json").read_bytes()
    with alone():
        stamp = MODULES / "stamp"
        if not stamp.is_file() or stamp.read_bytes() != locked:
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(HERE / "js" / name, MODULES)
            npm = shutil.which("npm", path=f"{Path(NODE).parent}:{os.environ.get('PATH', '')}")
            done = subprocess.run([npm, "ci"], cwd=MODULES, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            stamp.write_bytes(locked)
        shutil.copy(HERE / "js/peers.mjs", MODULES)
    return MODULES


@pytest.mark.slow
@pytest.mark.parametrize("model", PROVIDERS)
def test_javascript(gateway, node, model):
    made = run(NODE, "peers.mjs", gateway, model, "openai/down", cwd=node)
    text, call = expected(model)
    failed = {name: said["error"] for name, said in made.items() if "error" in said}

    assert failed == {}
    assert made["openaiStream"] == {"text": text, "finish": "stop", "output": 40}
    assert set(made["openaiWhole"]["texts"]) >= {text}
    assert len(made["openaiWhole"]["texts"]) == (2 if model.startswith("openai") else 1)
    assert made["openaiTools"] == call
    assert made["openaiResponses"] == {"text": text}
    assert made["openaiRefused"] == {"kind": "RateLimitError", "status": 429, "wait": "1"}
    assert made["anthropicStream"] == {
        "text": text,
        "final": text,
        "finish": "end_turn",
        "output": 40,
    }
    assert made["anthropicTools"] == {**call, "finish": "tool_use"}
    for name in ("vercelChat", "vercelResponses", "vercelAnthropic", "vercelCompatible"):
        said = made[name]
        assert (said["text"], said["whole"], said["call"]) == (text, text, call), name
        assert (said["finish"], said["output"]) == ("stop", 40), name


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="./dev test makes .venv-peers")
@pytest.mark.parametrize("model", PROVIDERS)
def test_litellm_and_langchain(gateway, model):
    made = run(PYTHON, HERE / "peers.py", gateway, model)
    text, call = expected(model)

    assert {name: said["error"] for name, said in made.items() if "error" in said} == {}
    for name in ("litellm_openai", "litellm_anthropic", "langchain_openai", "langchain_anthropic"):
        assert made[name] == {"text": text, "whole": text, "output": 40, "call": call}, name
    assert made["litellm_async"] == made["langchain_async"] == {"text": text}
