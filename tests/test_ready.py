"""Threads that decode the same type first, at once; in a process of their own, which it may end."""

import subprocess
import sys

FIRST = """
import dataclasses, threading, time
import msgspec
from unbroken.ready import ready

class Slow(type):
    "While msgspec looks at such a class, other threads have their turn."
    def __getattribute__(cls, name):
        if name == "__origin__":
            time.sleep(0.05)
        return super().__getattribute__(name)

@dataclasses.dataclass
class Mood(metaclass=Slow):
    glad: bool

class Wanted(msgspec.Struct):
    mood: Mood | None = None
    words: tuple[int, ...] = ()

def go():
    print(msgspec.json.decode(b'{"words":[1,2]}', type=ready(Wanted)).words)

for _ in range(20):
    threading.Thread(target=go).start()
    time.sleep(0.01)
"""


def test_a_type_that_many_threads_meet_first():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("(1, 2)") == 20
