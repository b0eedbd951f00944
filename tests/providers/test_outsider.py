"""A provider from another package, found by its entry point."""

import os
import subprocess
import sys

import pytest

from unbroken.simulator.app import running

MODULE = """
from unbroken.providers.base import BearerKey, Provider
from unbroken.wire.openai_chat.dialect import CODEC

PROVIDER = Provider(
    name="somevendor",
    base_url="https://api.somevendor.example/v1",
    base_url_env="SOMEVENDOR_BASE_URL",
    path="/chat/completions",
    auth=BearerKey("SOMEVENDOR_API_KEY"),
    codec=CODEC,
    prefixes=("vendor-",),
)
"""


@pytest.fixture
def installed(tmp_path):
    """What `pip install` leaves behind, on the path of a program."""
    (tmp_path / "their_package.py").write_text(MODULE)
    about = tmp_path / "their_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[unbroken.providers]\nsomevendor = their_package:PROVIDER\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


@pytest.mark.parametrize("model", ["somevendor/any", "vendor-large"])
def test_a_provider_of_another_package_answers(installed, tmp_path, model):
    with running() as url:
        moved = {"SOMEVENDOR_BASE_URL": f"{url}/v1", "SOMEVENDOR_API_KEY": "k"}
        done = subprocess.run(
            [sys.executable, "-m", "unbroken", "ask", "--no-stats", "-m", model, "Hi"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=installed | moved,
            timeout=60,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
