"""The first moments of the command, when nothing of it has run yet."""

import subprocess
import sys

import pytest

# Ctrl-C comes at a certain import, as a real signal.
EARLY = """
import signal, sys
from importlib.abc import MetaPathFinder

class Interrupted(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupted())
from unbroken_command import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("module", ["unbroken", "msgspec", "unbroken.cli", "unbroken.cli.models"])
def test_control_c_while_it_imports_ends_quietly(env, module):
    command = [sys.executable, "-c", EARLY, module, "models"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
