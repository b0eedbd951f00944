"""Generate the blocking half of the client from the half that awaits.

    python scripts/generate_sync.py            # write the files
    python scripts/generate_sync.py --check    # exit 1 if a committed file differs

A test runs the check. The table holds every word that differs; all else is the same.
"""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent.parent / "src" / "unbroken" / "client"
PAIRS = (("_async.py", "_sync.py"), ("_conversation_async.py", "_conversation_sync.py"))

NOTICE = "# Generated from {name} by scripts/generate_sync.py: change that one, then run it.\n"

_THREADS = (
    "One client serves many\n"
    "    threads, and processes that are forked off begin with connections of their own."
)
WORDS = (
    (r"for callers that await\b", "for callers that block"),
    (r"callers that await\b", "callers that block"),
    (r"an async context manager", "a context manager"),
    (r"unbroken\.transport\.http_async", "unbroken.transport.http_sync"),
    (r"unbroken\.client\._async\b", "unbroken.client._sync"),
    (r"(Async)?Generator\[(.*?), None\]:", r"Generator[\2, None, None]:"),
    (r"\bmap_async\b", "map_sync"),
    (r"unbroken\.client\._run_async", "unbroken.client._run_sync"),
    (r"\bAsyncRun\b", "Run"),
    (r"\bAsyncPrompts\b", "Prompts"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\banext\b", "next"),
    (r"\baclose\b", "close"),
    (r"\bag_running\b", "gi_running"),
    (r"\bin_process\.aio\b", "in_process.sync"),
    (r"\basync (?=def|for|with)", ""),
    (r"\bawait ", ""),
    (r"Another task", "Another thread"),
    (r"another task", "another thread"),
    (r"One client serves many\n    tasks of one event loop\.", _THREADS),
)


def generated(name: str) -> str:
    """Return the text of the blocking half of the module `name`."""
    text = (CLIENT / name).read_text("utf-8")
    for pattern, word in WORDS:
        text = re.sub(pattern, word, text)
    docstring, quotes, rest = text[3:].partition('"""\n')
    text = f'"""{docstring}{quotes}\n{NOTICE.format(name=name)}{rest}'
    for command in (["check", "--select", "I", "--fix-only", "-q"], ["format", "-q"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", CLIENT / name, "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    """Write the files, or check them."""
    stale = [(sync, generated(name)) for name, sync in PAIRS]
    stale = [(sync, text) for sync, text in stale if (CLIENT / sync).read_text("utf-8") != text]
    for sync, text in stale:
        if "--check" not in sys.argv:
            (CLIENT / sync).write_text(text, "utf-8")
        sys.stdout.write(f"{sync} differed from what is generated\n")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
