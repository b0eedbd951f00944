"""The command `unbroken` from its first line on: Ctrl-C while Python still imports ends it quietly.

A module of its own, because whoever imports anything of a package imports the package first. What
comes before this line, Python's own start, can't be helped.
"""

import sys

try:
    from unbroken.cli import main
except KeyboardInterrupt:
    sys.exit(130)  # cli/_exits.py, which has not been imported yet

__all__ = ["main"]
