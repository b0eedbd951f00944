"""AWS's own emulator accepts what our runtime says (the binary in the aws-sam-cli wheel).

It collects a response before it shows it and drops the trailers, so timing and trailers are
tested against an emulator of ours, in test_aws_lambda.py.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from events import url_event
from ports import free_port

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KIND = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), "none")
FOUND = sorted((ROOT / ".venv-peers").glob(f"lib/*/site-packages/samcli/**/aws-lambda-rie-{KIND}"))

pytestmark = pytest.mark.skipif(
    not FOUND and "CI" not in os.environ, reason="aws-sam-cli is not in .venv-peers"
)


@pytest.fixture
def emulator(tmp_path):
    """Starts a function in AWS's emulator; gives what asks it."""
    started = []

    def start(handler, root=HERE, seconds=30, **env):
        port, api = free_port(), free_port()
        places = ("--runtime-interface-emulator-address", f"127.0.0.1:{port}")
        places += ("--runtime-api-address", f"127.0.0.1:{api}")
        names = {"LAMBDA_TASK_ROOT": str(root), "AWS_LAMBDA_FUNCTION_TIMEOUT": str(seconds)}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = subprocess.Popen(
            [FOUND[0], *places, ROOT / "examples/aws/bootstrap", handler],
            cwd=root,
            env={**os.environ, **names, "PATH": path, **env},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        started.append(process)
        return lambda event: invoke(port, event)

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def invoke(port, event):
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    asked = urllib.request.Request(url, json.dumps(event).encode())
    for _ in range(500):
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.read()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.02)
    pytest.fail("the emulator did not start")


def test_a_value_is_accepted(emulator):
    said = json.loads(emulator("functions.value")({"say": "é" * 3000}))

    assert said["said"] == "é" * 3000
    assert said["in_time"]


def test_a_streamed_response_is_accepted(emulator):
    asked = emulator("functions.http")
    prelude, _, body = asked(url_event()).partition(bytes(8))

    assert json.loads(prelude)["statusCode"] == 201
    assert body.decode() == "data: 1\n\ndata: ä\n\n"
    assert asked(url_event()).endswith(body)  # and the next one


def test_a_response_with_error_trailers_is_accepted(emulator):
    asked = emulator("functions.late")

    assert asked({}) == b"a b\n[interrupted: the function failed]\n"
    assert asked({}) == b"a b\n[interrupted: the function failed]\n"  # it is in a good state


def test_an_error_before_the_response_is_accepted(emulator):
    said = json.loads(emulator("functions.early")({}))

    assert said["errorType"] == "Function.ValueError"
    assert said["errorMessage"] == "before the first piece"


def test_a_stream_is_ended_before_the_emulator_kills_it(emulator, tmp_path):
    event = {"closed": str(tmp_path / "closed")}
    body = emulator("functions.endless", seconds=3)(event)

    assert body.startswith(b"a.")
    assert body.endswith(b"reached its timeout]\n")


def test_the_example_answers(emulator):
    """What docs/howto/aws-lambda.md shows."""
    body = emulator("app.chat", root=ROOT / "examples/aws", MODEL="sim/demo?ttft=0&tps=0&tokens=9")
    prelude, _, text = body(url_event(body='{"message": "Hi"}')).partition(bytes(8))

    assert json.loads(prelude)["headers"] == {"content-type": "text/plain; charset=utf-8"}
    assert text == b"Good question.\n\nNothing here is"
