"""Gateways side by side, in one run, over one upstream.

    ./dev bench --help          makes .venv-bench, once
    .venv-bench/bin/python benchmarks/gateway.py [--only NAME ...] [--hold N ...] [--json FILE]

unbroken with its log in memory and in SQLite, the relay that tutorials write (FastAPI + httpx), the
LiteLLM proxy, and nginx as a plain reverse proxy, which is the practical limit. Each is one process
on one core, the upstream and the load on another. CPU time is the gateway's own, from /proc; look
at ratios: machines are noisy.

    start      seconds from the start of the process to its first answer
    idle       MB of memory (PSS) before the first question
    first      milliseconds that it adds to the time to first token (medians, taken in turns)
    short      microseconds of CPU for an answer of three tokens
    burst      microseconds of CPU a token, and tokens a second of CPU, in bursts of 400
    held       answers at 50 tokens/s at once: p99 of how late tokens are, how busy the core was,
               and KB of memory an open answer
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from gateways.load import ask, many

HERE = Path(__file__).parent / "gateways"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or "nginx"
SERVE = [sys.executable, "-m", "unbroken", "serve", "--store"]
HELD = 400  # events of each answer while answers are held: eight seconds

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
    "unbroken, memory": [*SERVE, "memory:", "--port", "{port}"],
    "unbroken, SQLite": [*SERVE, "sqlite:///{folder}/log.db", "--port", "{port}"],
    "FastAPI + httpx": [sys.executable, str(HERE / "relay.py"), "{port}"],
    "LiteLLM proxy": [
        str(Path(sys.executable).parent / "litellm"), "--config", "{folder}/litellm.yaml",
        "--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1",
    ],
    "nginx": [NGINX, "-c", "{folder}/nginx.conf"],
}  # fmt: skip
SLOW = {"LiteLLM proxy"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Gateway:
    """One gateway, running on a core of its own."""

    def __init__(self, name: str, upstream: int) -> None:
        self.name, self.port = name, free_port()
        self.folder = tempfile.mkdtemp()
        said = {"folder": self.folder, "port": self.port, "upstream": upstream}
        Path(self.folder, "nginx.conf").write_text(NGINX_CONF.format(**said))
        Path(self.folder, "litellm.yaml").write_text(LITELLM_CONF.format(**said))
        base = f"http://127.0.0.1:{upstream}/v1"
        env = {**os.environ, "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": base, "UNBROKEN_LOG": "off"}
        env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        command = ["taskset", "-c", "1", *(part.format(**said) for part in COMMANDS[name])]
        self._process = subprocess.Popen(
            command, cwd=self.folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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
        while time.perf_counter() - begun < 120:
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


async def added(gateway: Gateway, upstream: int, count: int) -> float:
    """Milliseconds that it adds to the first token."""
    through, direct = [], []
    for _ in range(count):
        through.append((await ask(gateway.port, "short-3")).first)
        direct.append((await ask(upstream, "short-3")).first)
    return (statistics.median(through) - statistics.median(direct)) * 1000


async def cost(gateway: Gateway, model: str, at_once: int, rounds: int) -> tuple[float, float]:
    """Microseconds of CPU an answer and a token; the median of some rounds."""
    answers, tokens = [], []
    for _ in range(rounds):
        before = gateway.cpu()
        came = await many(gateway.port, model, at_once)
        await asyncio.sleep(0.2)
        used = (gateway.cpu() - before) * 1e6
        answers.append(used / at_once)
        tokens.append(used / sum(len(answer.late) for answer in came))
    return statistics.median(answers), statistics.median(tokens)


async def held(gateway: Gateway, count: int) -> dict[str, float]:
    """So many answers at 50 tokens a second."""
    idle = gateway.memory()
    asking = asyncio.ensure_future(many(gateway.port, f"paced-{HELD}", count))
    await asyncio.sleep(2)
    before, begun = gateway.cpu(), time.perf_counter()
    await asyncio.sleep(HELD / 50 - 3)
    busy = (gateway.cpu() - before) / (time.perf_counter() - begun)
    memory = (gateway.memory() - idle) / count
    try:
        came = await asyncio.wait_for(asking, 60)
    except TimeoutError:
        return {"answers": count, "p99 ms": float("inf"), "busy": busy, "KB": memory}
    late = sorted(ms for answer in came for ms in answer.late)
    lost = count * HELD - len(late)
    p99 = late[int(len(late) * 0.99)]
    return {"answers": count, "p99 ms": p99, "busy": busy, "KB": memory, "lost": lost}


async def measure(name: str, upstream: int, steps: list[int]) -> dict[str, Any]:
    """Everything about one gateway."""
    gateway, slow = Gateway(name, upstream), name in SLOW
    try:
        found: dict[str, Any] = {"start": await gateway.started()}
        found["idle"] = gateway.memory() / 1024
        found["first"] = await added(gateway, upstream, 30)
        found["short"], _ = await cost(gateway, "short-3", 20 if slow else 200, 3)
        _, found["burst"] = await cost(gateway, "burst-400", 4 if slow else 20, 3 if slow else 7)
        found["held"] = []
        for count in steps:
            found["held"].append(await held(gateway, count))
            if found["held"][-1]["p99 ms"] > 1000:
                break  # it is beyond what it can do; more would only take long
        return found
    finally:
        gateway.stop()


def show(name: str, found: dict[str, Any], nginx: dict[str, Any] | None) -> None:
    """One gateway's lines."""
    ratio = f"  ({found['burst'] / nginx['burst']:.1f}x nginx)" if nginx else ""
    print(
        f"{name:18} start {found['start']:5.2f} s   idle {found['idle']:5.0f} MB   "
        f"first +{found['first']:.2f} ms   short {found['short']:6.0f} us   "
        f"burst {found['burst']:7.2f} us = {1e6 / found['burst']:9,.0f} tokens/s{ratio}"
    )
    for at in found["held"]:
        print(
            f"{'':18} held {at['answers']:4}: p99 {at['p99 ms']:7.1f} ms late, "
            f"core {at['busy']:4.0%} busy, {at['KB']:4.0f} KB an answer"
        )


async def run(given: argparse.Namespace, upstream: int) -> dict[str, Any]:
    """All of them, nginx first: the others are compared with it."""
    results: dict[str, Any] = {}
    for name in sorted(given.only or COMMANDS, key=lambda name: name != "nginx"):
        results[name] = await measure(name, upstream, given.hold)
        show(name, results[name], results.get("nginx"))
    return results


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), metavar="NAME")
    parser.add_argument("--hold", nargs="*", type=int, default=[50, 200, 400])
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    command = ["taskset", "-c", "0", sys.executable, str(HERE / "upstream.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upstream:
        assert upstream.stdout is not None
        os.sched_setaffinity(0, {0})
        try:
            results = uvloop.run(run(given, int(upstream.stdout.readline())))
        finally:
            upstream.terminate()
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
