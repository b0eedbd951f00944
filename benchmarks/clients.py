"""CPU time per event: our streaming beside other clients and beside the bare HTTP libraries.

    python benchmarks/clients.py [--rounds 7] [--json]

Every client runs in a process of its own on one core, against one upstream on another. Rounds
are interleaved, so that a machine that changes its speed changes it for all; figures are medians
of CPU time (user and system), which other processes disturb less than wall time. Quote ratios.
A client that is not installed is left out, by name.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
CLIENTS = (
    "raw socket",
    "urllib3",
    "aiohttp",
    "unbroken sync",
    "unbroken async",
    "openai sync",
    "openai async",
    "litellm sync",
    "litellm async",
)
IMPORTS = ("unbroken", "openai", "anthropic", "litellm")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = {"events": _events(args.rounds), "imports": _imports(args.rounds)}
    print(json.dumps(result, indent=2) if args.json else _tables(result))


def _events(rounds: int) -> dict[str, float]:
    with _upstream() as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        runs: dict[str, list[float]] = {name: [] for name in CLIENTS}
        for _ in range(rounds):
            for name in CLIENTS:
                runs[name].extend(_one(name, port))
        server.kill()
    return {name: statistics.median(times) for name, times in runs.items() if times}


def _upstream() -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "upstream.py")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_on_core(0))


def _one(name: str, port: str) -> Iterable[float]:
    """One process's CPU microseconds per event; nothing if the client is not installed."""
    command = [sys.executable, str(HERE / "one_client.py"), name, port]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_on_core(-1))
    if done.returncode == 0:
        return [float(done.stdout)]
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    print(f"left out: {name}: {last}", file=sys.stderr)
    return []


def _on_core(which: int):
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = sorted(os.sched_getaffinity(0))[which]
    return lambda: os.sched_setaffinity(0, {core})


def _imports(rounds: int) -> dict[str, float]:
    """Milliseconds of CPU that `import NAME` takes beyond an empty Python."""
    found = {}
    for name in IMPORTS:
        times = [_import(name) - _import("sys") for _ in range(rounds)]
        if not any(map(math.isnan, times)):
            found[name] = statistics.median(times)
    return found


def _import(name: str) -> float:
    code = f"import {name}, os; t = os.times(); print((t.user + t.system) * 1000)"
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as users have it: compiled once
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def _tables(result: dict[str, dict[str, float]]) -> str:
    events, imports = result["events"], result["imports"]
    ours = {kind: events.get(f"unbroken {kind}", float("nan")) for kind in ("sync", "async")}
    lines = [
        "| client | CPU µs per event | of unbroken sync | of unbroken async |",
        "|---|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {time:.2f} | {time / ours['sync']:.1f} | {time / ours['async']:.1f} |"
        for name, time in events.items()
    ]
    lines += ["", "| import | CPU ms |", "|---|--:|"]
    lines += [f"| {name} | {time:.0f} |" for name, time in imports.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
