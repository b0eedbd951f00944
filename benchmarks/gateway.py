"""Gateways side by side, in one run, over one upstream.

    ./dev bench --help                              makes .venv-bench, once
    .venv-bench/bin/python benchmarks/gateway.py    some twelve minutes; --quick takes two

    --only NAME ...   those whose names begin so: unbroken nginx LiteLLM FastAPI
    --hold N ...      so many answers at once, instead of the usual steps
    --json FILE       all that was measured

unbroken with its log in memory and in SQLite, the relay that tutorials write (FastAPI + httpx), the
LiteLLM proxy, and nginx as a plain reverse proxy, which is the practical limit. Each is one process
on one core, the upstream and the load on another; what is not installed is left out, by name.

    start      seconds from the start of the process to its first answer
    idle       MB of memory (PSS) after that
    open       KB of memory an open answer: what 100 of them add, after 280 tokens each
    first      milliseconds that it adds to the time to first token: medians, gateway and upstream
               asked in turns
    short      microseconds of CPU for an answer of three tokens
    token      microseconds of CPU a token, in bursts of 400, and tokens a second of CPU
    held       answers at 50 tokens/s at once: p99 of how late tokens came, how busy the core was;
               with *, others had more than a tenth of it, and the lateness says nothing

CPU time is the gateway's own, from /proc (so Linux only); rounds go from one gateway to the next,
so that a machine that changes its speed changes it for all. `direct` is the upstream without a
gateway: what the measuring itself adds. What others do on this machine only ever makes a token
later, never earlier, so a quiet moment is waited for, what came too late is tried again, and the
best try counts.
"""

import argparse
import asyncio
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import uvloop
from gateways.load import ask, many

HERE = Path(__file__).parent / "gateways"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or "nginx"
SERVE = [sys.executable, "-m", "unbroken", "serve", "--store"]
RATE, EVENTS = 50, 300  # of an answer that is held: six seconds
GOAL = 50.0  # milliseconds that a token may be late
CORES = sorted(os.sched_getaffinity(0))

NGINX_CONF = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off; proxy_http_version 1.1; proxy_buffering off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}
}}
"""
LITELLM_CONF = """
model_list:
  - model_name: "openai/*"
    litellm_params: {{ model: "openai/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: k }}
"""

COMMANDS = {
    "nginx": [NGINX, "-c", "{folder}/nginx.conf"],
    "unbroken, memory": [*SERVE, "memory:", "--port", "{port}"],
    "unbroken, SQLite": [*SERVE, "sqlite:///{folder}/log.db", "--port", "{port}"],
    "FastAPI + httpx": [sys.executable, str(HERE / "relay.py"), "{port}"],
    "LiteLLM proxy": [
        str(Path(sys.executable).parent / "litellm"), "--config", "{folder}/litellm.yaml",
        "--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1",
    ],
}  # fmt: skip
SLOW = {"LiteLLM proxy": 10}  # asked for so many times less of the same

COLUMNS = (
    "CPU us a token", "tokens/s of a core", "times nginx", "times in LiteLLM", "us a short answer",
    "first token", "start", "idle", "an open answer",
)  # fmt: skip


def on_core(which: int):
    """What a process does first, to have that core."""
    return functools.partial(os.sched_setaffinity, 0, {CORES[which]})


class Gateway:
    """One gateway, running on a core of its own."""

    def __init__(self, name: str, upstream: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = int(sock.getsockname()[1])
        self.name, self.folder = name, tempfile.mkdtemp()
        said = {"folder": self.folder, "port": self.port, "upstream": upstream}
        Path(self.folder, "nginx.conf").write_text(NGINX_CONF.format(**said))
        Path(self.folder, "litellm.yaml").write_text(LITELLM_CONF.format(**said))
        base = f"http://127.0.0.1:{upstream}/v1"
        env = {**os.environ, "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": base, "UNBROKEN_LOG": "off"}
        env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        self._process = subprocess.Popen(
            [part.format(**said) for part in COMMANDS[name]],
            cwd=self.folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=on_core(-1),
        )

    def _all(self) -> list[int]:
        """The process and its children's."""
        found, at = [self._process.pid], 0
        while at < len(found):
            children = Path(f"/proc/{found[at]}/task/{found[at]}/children")
            found += [int(pid) for pid in children.read_text().split()]
            at += 1
        return found

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads; `stat` counts in hundredths only."""
        tasks = [task for pid in self._all() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> float:
        """KB that it holds (PSS)."""
        total = 0
        for pid in self._all():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) if line.startswith("Pss:") else 0
        return total

    async def started(self) -> float:
        """Wait for its first answer; the seconds that took."""
        begun = time.perf_counter()
        while time.perf_counter() - begun < 120 and self._process.poll() is None:
            try:
                if (await ask(self.port, "short-3")).late:
                    return time.perf_counter() - begun
            except OSError:
                pass
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


async def alone(name: str, upstream: int) -> dict[str, float]:
    """A process that has done nothing before: how soon it is there, and what it holds."""
    gateway, count = Gateway(name, upstream), 100 // SLOW.get(name, 1)
    try:
        found = {"start": await gateway.started(), "idle": gateway.memory() / 1024}
        await many(gateway.port, "short-3", 20)  # what is loaded at first use is not an answer's
        before = gateway.memory()
        asking = asyncio.ensure_future(many(gateway.port, f"paced-{EVENTS}", count))
        await asyncio.sleep((EVENTS - 20) / RATE)
        found["open"] = (gateway.memory() - before) / count
        await asking
    finally:
        gateway.stop()
    return found


async def added(gateway: Gateway, upstream: int, count: int) -> float:
    """Milliseconds that it adds to the first token."""
    through, direct = [], []
    for _ in range(count):
        through.append((await ask(gateway.port, "short-3")).first)
        direct.append((await ask(upstream, "short-3")).first)
    return (statistics.median(through) - statistics.median(direct)) * 1000


async def cost(gateway: Gateway, tokens: int, answers: int) -> float:
    """Microseconds of CPU a token, of answers that come at once, twenty at a time."""
    before, came = gateway.cpu(), 0
    for begun in range(0, answers, 20):
        asked = await many(gateway.port, f"burst-{tokens}", min(20, answers - begun))
        came += sum(len(answer.late) for answer in asked)
    await asyncio.sleep(0.1)  # what it still does for them is theirs as well
    if came != tokens * answers:
        raise RuntimeError(f"{gateway.name} lost {tokens * answers - came} tokens")
    return (gateway.cpu() - before) * 1e6 / came


async def one_round(gateway: Gateway, upstream: int) -> dict[str, float]:
    """What is measured in turns."""
    less = SLOW.get(gateway.name, 1)
    return {
        "first": await added(gateway, upstream, 10),
        "short": await cost(gateway, 3, 100 // less) * 3,
        "token": await cost(gateway, 400, 50 // less),
    }


def core() -> float:
    """Seconds that the gateways' core has been busy, for anybody."""
    line = Path("/proc/stat").read_text().partition(f"\ncpu{CORES[-1]} ")[2]
    user, nice, system, _idle, _wait, irq, soft = map(int, line.split(maxsplit=7)[:7])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


async def quiet() -> None:
    """Until that core has nothing to do; not for ever."""
    for _ in range(60):
        before = core()
        await asyncio.sleep(1)
        if core() - before < 0.1:
            return


async def held(port: int, gateway: Gateway | None, count: int) -> dict[str, float]:
    """So many answers at 50 tokens a second."""
    asking = asyncio.ensure_future(many(port, f"paced-{EVENTS}", count))
    await asyncio.sleep(2)
    cpu, anybody, begun = gateway.cpu() if gateway else 0.0, core(), time.perf_counter()
    await asyncio.sleep(EVENTS / RATE - 3)
    used, took = (gateway.cpu() if gateway else 0.0) - cpu, time.perf_counter() - begun
    found = {"busy": used / took, "others": (core() - anybody - used) / took}
    try:
        came = await asyncio.wait_for(asking, 30)
    except TimeoutError:
        return {"p99": float("inf"), **found}
    late = sorted(ms for answer in came for ms in answer.late)
    if len(late) != count * EVENTS:
        return {"p99": float("inf"), "lost": count * EVENTS - len(late), **found}
    return {"p99": late[int(len(late) * 0.99)], **found}


async def best(port: int, gateway: Gateway | None, count: int, tries: int) -> dict[str, float]:
    """The best of some tries; the first that is good enough, or hopeless, is the last."""
    found: list[dict[str, float]] = []
    while len(found) < tries and (not found or GOAL < found[-1]["p99"] < 40 * GOAL):
        if tries > 1:
            await quiet()
        found.append(await held(port, gateway, count))
    return min(found, key=lambda one: one["p99"])


async def run(names: list[str], given: argparse.Namespace, upstream: int) -> dict[str, Any]:
    """All of it, of all that can be started here."""
    results: dict[str, Any] = {"direct": {"held": {}}}
    for name in names:
        try:
            results[name] = {**await alone(name, upstream), "held": {}}
        except (OSError, RuntimeError) as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
    gateways = [Gateway(name, upstream) for name in results if name != "direct"]
    try:
        for gateway in gateways:
            await gateway.started()
        await rounds(gateways, upstream, 2 if given.quick else 7, results)
        await steps(gateways, upstream, given, results)
    finally:
        for gateway in gateways:
            gateway.stop()
    return results


async def rounds(
    gateways: list[Gateway], upstream: int, count: int, results: dict[str, Any]
) -> None:
    """From one to the next, some times over; medians."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(count):
        for gateway in gateways:
            for what, figure in (await one_round(gateway, upstream)).items():
                found[gateway.name, what].append(figure)
    for (name, what), figures in found.items():
        results[name][what] = statistics.median(figures)


async def steps(
    gateways: list[Gateway], upstream: int, given: argparse.Namespace, results: dict[str, Any]
) -> None:
    """More and more answers at once, for those that are not beyond it."""
    standing: list[tuple[str, int, Gateway | None]] = [("direct", upstream, None)]
    standing += [(gateway.name, gateway.port, gateway) for gateway in gateways]
    for count in given.hold or ([20, 200, 400] if given.quick else [20, 50, 100, 200, 400, 600]):
        for name, port, gateway in [*standing]:
            found = await best(port, gateway, count, 1 if given.quick else 4)
            results[name]["held"][count] = found
            if found["p99"] > GOAL and not given.hold:
                standing.remove((name, port, gateway))  # more would only take long
            print(f"{name}, {count} held: {_late(found)}", file=sys.stderr)


def _late(found: dict[str, float] | None) -> str:
    if not found:
        return "-"
    disturbed = "*" if found["others"] > 0.1 else ""
    return f"{found['p99']:.1f} ms, {found['busy']:.0%}{disturbed}"


def tables(results: dict[str, Any]) -> str:
    """In Markdown, with ratios."""
    measured = {name: found for name, found in results.items() if name != "direct"}
    nginx, litellm = (
        measured.get(name, {}).get("token", float("nan")) for name in ("nginx", "LiteLLM proxy")
    )
    lines = [
        f"| | {' | '.join(COLUMNS)} |",
        f"|---{'|--:' * len(COLUMNS)}|",
    ]
    lines += [
        f"| {name} | {at['token']:.2f} | {1e6 / at['token']:,.0f} | {at['token'] / nginx:.1f} "
        f"| {litellm / at['token']:,.0f} | {at['short']:,.0f} | +{at['first']:.1f} ms "
        f"| {at['start']:.2f} s | {at['idle']:.0f} MB | {at['open']:.0f} KB |"
        for name, at in measured.items()
    ]
    counts = sorted({count for found in results.values() for count in found["held"]})
    lines += ["", f"| held: p99 late, core busy | {' | '.join(map(str, counts))} |"]
    lines += [f"|---{'|--:' * len(counts)}|"]
    lines += [
        f"| {name} | {' | '.join(_late(found['held'].get(count)) for count in counts)} |"
        for name, found in results.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[""])
    parser.add_argument("--hold", nargs="+", type=int, metavar="N")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    names = [name for name in COMMANDS if name.startswith(tuple(given.only))]
    command = [sys.executable, str(HERE / "upstream.py")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(0)
    ) as upstream:
        assert upstream.stdout is not None
        on_core(0)()
        try:
            results = uvloop.run(run(names, given, int(upstream.stdout.readline())))
        finally:
            upstream.terminate()
    print(tables(results))
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
