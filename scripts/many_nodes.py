"""Many machines for a long time: gateways on one Redis behind nginx, killed at random.

    python scripts/many_nodes.py --minutes 5 [--nodes 3] [--load 12] [--redis SECONDS] [--seed 1]

`--redis` kills Redis as well (kill -9), about every so many seconds. Ends with 1 if any answer
was not what it had to be, to the last character.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "server"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "stores"))

from fleet import Fleet


async def watch(fleet: Fleet) -> None:
    """Say every minute how it goes."""
    while True:
        await asyncio.sleep(60)
        print(fleet.tally, flush=True)


async def run(fleet: Fleet, given: argparse.Namespace) -> None:
    """The load and the killing."""
    watching = asyncio.create_task(watch(fleet))
    await fleet.run(given.minutes * 60, load=given.load, kill_redis=given.redis)
    watching.cancel()


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--load", type=int, default=12)
    parser.add_argument("--redis", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Fleet(folder, given.nodes, given.seed) as fleet:
        asyncio.run(run(fleet, given))
    print(fleet.tally)
    for stream, model, state, last, text in fleet.tally.wrong:
        print("wrong:", stream, model, state or "no end", f"offset {last}", repr(text[-80:]))
    return 1 if fleet.tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
