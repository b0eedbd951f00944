"""Draw docs/terminal.svg: a real session, run in a pseudo-terminal, as it looks.

.venv/bin/python scripts/picture.py
"""

import io
import os
import pty
import re
import select
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
SESSION = (
    'unbroken ask "Explain the TCP handshake in 3 sentences."',
    'unbroken ask "Why streams?" -m "sim/gpt-4o?tokens=60&fault=status:status=503,times=1"',
    'unbroken ask "Why streams?" -m "sim/gpt-4o?fault=cut:words=12"; echo "exit code $?"',
)


def main() -> None:
    """Run the session, and save what it printed."""
    console = Console(record=True, width=100, file=io.StringIO())
    for command in SESSION:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text.from_ansi(_run(command).strip()))
        console.print()
    drawn = console.export_svg(title="unbroken", unique_id="terminal")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # nothing from elsewhere
    (ROOT / "docs/terminal.svg").write_text(drawn.rstrip() + "\n", "utf-8")


def _run(command: str) -> str:
    pid, terminal = pty.fork()
    if pid == 0:
        kept = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nonexistent"}
        os.chdir("/")
        os.execve("/bin/sh", ["sh", "-c", command], kept)
    output = b""
    while select.select([terminal], [], [], 30)[0]:
        try:
            output += os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side of a terminal is gone
            break
    os.waitpid(pid, 0)
    return output.decode().replace("\r\n", "\n")  # a carriage return would wipe the line


if __name__ == "__main__":
    main()
