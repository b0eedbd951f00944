"""The real command in real processes, with pipes or with a terminal."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

import pytest

WITHOUT = (
    "_API_KEY",
    "_API_TOKEN",
    "_BASE_URL",
    "_HOST",
    "_ENDPOINT",
    "_MODEL",
    "_PROXY",
    "_proxy",
    "NO_COLOR",
)


@pytest.fixture
def env(tmp_path):
    """No key, no .env, no history of the developer's."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith(WITHOUT)}
    return {**kept, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def unbroken(env, tmp_path):
    """Runs a command to its end."""

    def run(*arguments, stdin="", **more):
        return subprocess.run(
            [sys.executable, "-m", "unbroken", *arguments],
            input=stdin,
            capture_output=True,
            text=not isinstance(stdin, bytes),
            cwd=tmp_path,
            env=env | more,
            timeout=60,
        )

    return run


@pytest.fixture
def started(env, tmp_path):
    """Starts a command on pipes; whatever is left of it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, stdin=subprocess.DEVNULL, **more):
            program = subprocess.Popen(
                [sys.executable, "-m", "unbroken", *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=tmp_path,
                env=env | more,
            )
            stack.enter_context(program)
            stack.callback(program.kill)
            return program

        yield start


# Makes the terminal the command's own, so that ^C is a signal. Not by `preexec_fn`: that forks
# a process with threads, which newer Pythons warn of.
OWN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A terminal of 80 times 24 with a command in it."""

    def __init__(self, command, cwd, env):
        self.held = b""
        self.screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**env, "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.program = subprocess.Popen(
            [sys.executable, "-c", OWN, *command],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        os.close(inside)

    def type(self, text):
        os.write(self.screen, text.encode())

    def until(self, word):
        """What was shown up to and with `word`; what came after it is kept for later."""
        word = word.encode()
        while word not in self.held:
            assert self._more(), f"no {word!r} in {self.held.decode()}"
        shown, _, self.held = self.held.partition(word)
        return (shown + word).decode()

    def rest(self):
        """What was shown until the command ended."""
        while self._more():
            pass
        return self.held.decode()

    def _more(self, patience=30):
        assert select.select([self.screen], [], [], patience)[0], f"silent: {self.held.decode()}"
        try:
            data = os.read(self.screen, 1 << 16)
        except OSError:  # a terminal that nobody holds any more
            return False
        self.held += data
        return bool(data)

    def close(self):
        self.program.kill()
        self.program.wait()
        os.close(self.screen)


@pytest.fixture
def terminal(env, tmp_path):
    """Starts a command in a terminal."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, interpreter=("-m", "unbroken"), **more):
            found = Terminal(
                [sys.executable, *interpreter, *arguments],
                tmp_path,
                {**env, "TERM": "xterm", **more},
            )
            stack.callback(found.close)
            return found

        yield start
