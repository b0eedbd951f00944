"""A package that was installed without its extras says what is missing and how to get it."""

import subprocess
import sys

import pytest

WITHOUT = """
import importlib, sys
sys.modules["starlette"] = None  # as Python itself marks what can't be imported
importlib.import_module(sys.argv[1])
"""
SAID = "ImportError: this needs the extra `server`: pip install 'unbroken[server]'"


def imported(module):
    """The last line of what importing it says."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, module], capture_output=True, text=True)
    return (done.stderr.splitlines() or [""])[-1]


@pytest.mark.parametrize("module", ["server", "server.gateway", "deploy.bentoml"])
def test_what_needs_an_extra_names_it(module):
    assert imported(f"unbroken.{module}") == SAID


@pytest.mark.parametrize("module", ["cli", "deploy", "deploy.aws_lambda", "deploy.aws_websocket"])
def test_what_needs_none_is_there(module):
    assert imported(f"unbroken.{module}") == ""
