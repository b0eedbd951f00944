"""Measure models side by side: time to first token, pace, errors, recovered cuts, cost.

unbroken bench --model openai/gpt-6-luna --model sim/gpt-4o -n 50 -c 10

TTFT is the time to the first content, ITL the time between two reads that brought content, TPOT
the time per output token after the first; percentiles are interpolated. Models take turns, so that
they meet the same conditions.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from unbroken.cli._benchpage import page
from unbroken.cli._exits import INTERRUPTED, OK, exit_code
from unbroken.cli._measured import Figures, Sample, figures
from unbroken.cli._question import count, count_or_none, seconds, wording
from unbroken.cli._table import table
from unbroken.cli._terminal import dim, need_output
from unbroken.client._async import AsyncClient
from unbroken.client._plan import Parameters, default_model, environment
from unbroken.engine.policy import Timeouts
from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.events import CONTENT

PROMPT = "Explain in about 150 words how a stream of tokens reaches a browser."


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `bench`."""
    parser.add_argument(
        "-m", "--model", action="append", type=wording, help="may be given more than once"
    )
    parser.add_argument("-n", "--requests", type=count, default=20, metavar="N", help="per model")
    parser.add_argument(
        "-c", "--concurrency", type=count, default=4, metavar="C", help="at a time, per model"
    )
    parser.add_argument(
        "--warmup", type=count_or_none, default=1, metavar="N", help="first, not counted"
    )
    parser.add_argument("--prompt", type=wording, default=PROMPT)
    parser.add_argument("--prompt-file", metavar="FILE", help="one prompt a line, taken in turn")
    parser.add_argument("--max-tokens", type=count, metavar="N")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="of each whole answer")
    parser.add_argument("--base-url", metavar="URL", help="another server, for all models")
    parser.add_argument(
        "--compare-whole",
        action="store_true",
        help="also ask without streaming: when is there anything to read?",
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")


def run(args: Namespace) -> int:
    """Measure, and print the table. Ctrl-C prints what has been measured."""
    import asyncio

    need_output()
    bench = _Bench(args)
    interrupted = False
    try:
        asyncio.run(bench.run())
    except KeyboardInterrupt:
        interrupted = True
    told = bench.figures()
    if args.json:
        print(msgspec.json.encode(told).decode())
    else:
        rows = _rows(told)
        print(table(rows[0], rows[1:]))
    if args.html:
        Path(args.html).write_text(page(_rows(told), told, bench.samples), "utf-8")
    for model in told:
        for kind, reason in model.first_reasons.items():
            dim(f"{model.model}: {model.errors[kind]} x {kind}: {reason}")
    return INTERRUPTED if interrupted else bench.code()


class _Bench:
    """All requests of one run, and what came of them."""

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self.models: list[str] = args.model or [default_model(environment())]
        self._prompts = _prompts(args)
        self.samples: dict[str, list[Sample]] = {model: [] for model in self.models}
        self._whole: dict[str, list[Sample]] = {model: [] for model in self.models}
        self._began = time.monotonic()
        self._failure: UnbrokenError | None = None
        self._given = Parameters()
        if args.max_tokens is not None:
            self._given["max_tokens"] = args.max_tokens
        if args.timeout is not None:
            self._given["timeouts"] = Timeouts(total=args.timeout)
        if any(model.startswith("sim/") for model in self.models):
            dim("sim/... is simulated: its times are a scenario's, not a provider's")

    async def run(self) -> None:
        """Ask them all, in turn."""
        import asyncio

        ways = (True, False) if self._args.compare_whole else (True,)
        jobs = [(m, n, w) for n in range(self._args.requests) for m in self.models for w in ways]
        limits = {model: asyncio.Semaphore(self._args.concurrency) for model in self.models}
        async with AsyncClient(base_url=self._args.base_url) as client:
            for model in self.models:
                for _ in range(self._args.warmup):
                    await self._one(client, model, self._prompts[0], stream=True)
            self._began = time.monotonic()
            with _progress(len(jobs)) as advance:

                async def job(model: str, number: int, *, stream: bool) -> None:
                    async with limits[model]:
                        prompt = self._prompts[number % len(self._prompts)]
                        sample = await self._one(client, model, prompt, stream=stream)
                        (self.samples if stream else self._whole)[model].append(sample)
                        advance()

                await asyncio.gather(*(job(m, n, stream=w) for m, n, w in jobs))

    def code(self) -> int:
        """What scripts are told: if no answer came at all, what kept the last one away."""
        samples = [sample for model in self.models for sample in self.samples[model]]
        all_failed = all(sample.error for sample in samples)
        return exit_code(self._failure) if self._failure and all_failed else OK

    def figures(self) -> list[Figures]:
        """What has been measured so far."""
        took = time.monotonic() - self._began
        return [figures(m, self.samples[m], took, self._whole[m]) for m in self.models]

    async def _one(self, client: AsyncClient, model: str, prompt: str, *, stream: bool) -> Sample:
        begin = time.monotonic()
        try:
            if stream:
                return await self._streamed(client, model, prompt, begin)
            await client.complete(model, prompt, **self._given)
            return Sample(duration=time.monotonic() - begin)
        except ConfigurationError:
            raise  # a wrong name is wrong for all of them
        except UnbrokenError as error:
            self._failure = error
            return Sample(error=type(error).__name__, reason=str(error))

    async def _streamed(self, client: AsyncClient, model: str, prompt: str, begin: float) -> Sample:
        gaps: list[float] = []
        last: float | None = None
        async with client.stream(model, prompt, **self._given) as stream:
            async for batch in stream.batches():
                if any(type(event) in CONTENT for event in batch):
                    now = time.monotonic()
                    gaps += [] if last is None else [now - last]
                    last = now
        response, metrics = stream.response, stream.metrics
        return Sample(
            first=metrics.time_to_first_token,
            gaps=tuple(gaps),
            per_token=metrics.time_per_output_token,
            duration=time.monotonic() - begin,
            tokens=metrics.output_tokens or 0,
            cost=response.cost,
            recovered=any(attempt.error is not None for attempt in response.attempts),
        )


def _prompts(args: Namespace) -> list[str]:
    if args.prompt_file is None:
        return [args.prompt]
    try:
        lines = Path(args.prompt_file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{args.prompt_file} can't be read: {error}") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ConfigurationError(f"{args.prompt_file} holds no prompt")
    return prompts


class _progress:  # noqa: N801  # used as a function
    """A bar on a terminal; nothing elsewhere, or without rich."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Any = None

    def __enter__(self) -> Callable[[], None]:
        if not sys.stderr.isatty():
            return lambda: None
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ImportError:
            return lambda: None
        bar = self._bar = Progress(console=Console(stderr=True), transient=True)
        bar.start()
        task = bar.add_task("asking", total=self._total)
        return lambda: bar.advance(task)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


_SPREADS = (("TTFT", "ttft"), ("ITL", "itl"), ("TPOT", "tpot"), ("E2E", "e2e"))


def _rows(told: list[Figures]) -> list[tuple[str, ...]]:
    """One row a figure, one column a model."""
    named = [f.model + (" (simulated)" if f.simulated else "") for f in told]
    rows: list[tuple[str, ...]] = [("", *named)]
    for label, name in _SPREADS:
        shown = [_times(getattr(model, name)) for model in told]
        rows.append((f"{label} p50 / p95 / p99, ms", *shown))
    rows.append(("tokens/s of one answer", *(_number(f.tokens_per_second) for f in told)))
    rows.append(("tokens/s of all", *(_number(f.throughput) for f in told)))
    rows.append(("answers, failed", *(f"{f.requests}, {f.failed}" for f in told)))
    rows.append(("recovered", *(str(f.recovered) for f in told)))
    rows.append(("cost, USD", *("unknown" if f.cost is None else f"{f.cost:.6f}" for f in told)))
    if any(f.whole for f in told):
        rows.append(("without streaming, ms", *(_times(f.whole) for f in told)))
        rows.append(("first words earlier by", *(_earlier(f) for f in told)))
    return rows


def _times(values: tuple[float, ...]) -> str:
    return " / ".join(f"{value * 1000:.0f}" for value in values) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _earlier(told: Figures) -> str:
    """The perceived latency: how long before the whole answer its first words can be read."""
    if not (told.whole and told.ttft):
        return "-"
    return f"{(told.whole[0] - told.ttft[0]) * 1000:.0f} ms (p50)"
