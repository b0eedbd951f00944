"""Answers as OpenTelemetry tells them, through the SDK's own exporters in memory."""

import json

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from unbroken import Client, RecoveryPolicy
from unbroken.errors import UnbrokenError
from unbroken.metrics.answered import Answered
from unbroken.metrics.otel import Spans
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import SimulatorTransport

SCENARIOS = {
    "gpt-x": Scenario(tokens=30),
    "cut": Scenario(tokens=30, faults=(Fault(kind="cut", events=9, times=1),)),
    "down": Scenario(faults=(Fault(kind="status", status=503),)),
}


@pytest.fixture
def watched():
    """Spans and metrics that are kept, and what tells them."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    yield Spans(tracers, meters), exporter, reader
    meters.shutdown()


def ask(spans, *models, traceparent=""):
    policy = RecoveryPolicy(attempts=2)
    transport = SimulatorTransport(SCENARIOS)
    with Client(api_key="k", transport=transport, recovery=policy) as client:
        state = "complete"
        with client.stream([*models], "Tell me a secret.") as stream:
            try:
                list(stream)
            except UnbrokenError:
                state = "failed"
        told = Answered(
            model=models[0],
            state=state,
            response=stream.response,
            metrics=stream.metrics,
            traceparent=traceparent,
        )
        spans.answered(told)
    return stream


def test_one_span_for_the_answer_and_one_for_each_attempt(watched):
    spans, exporter, _ = watched
    stream = ask(spans, "openai/cut")
    first, second, whole = exporter.get_finished_spans()

    assert whole.name == "chat openai/cut"
    assert [first.name, second.name] == ["attempt openai/cut"] * 2
    assert {first.parent.span_id, second.parent.span_id} == {whole.context.span_id}
    assert first.attributes["error.type"] in ("StreamTruncated", "ConnectionLost")
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["unbroken.how"] == stream.response.attempts[1].how != "start"
    assert whole.status.status_code is not StatusCode.ERROR
    assert whole.start_time <= first.start_time <= second.start_time <= whole.end_time


def test_the_conventions_names(watched):
    spans, exporter, _ = watched
    stream = ask(spans, "openai/gpt-x")
    said = exporter.get_finished_spans()[-1].attributes

    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "openai"
    assert said["gen_ai.request.model"] == "openai/gpt-x"
    assert said["gen_ai.response.finish_reasons"] == ("stop",)
    assert said["gen_ai.usage.output_tokens"] == stream.response.usage.output_tokens == 30
    assert said["gen_ai.response.time_to_first_chunk"] == stream.metrics.time_to_first_token
    assert "secret" not in json.dumps(dict(said), default=str)


def test_a_failed_answer_and_who_stood_in(watched):
    spans, exporter, _ = watched
    ask(spans, "openai/down")
    failed = exporter.get_finished_spans()[-1]
    exporter.clear()
    ask(spans, "openai/down", "anthropic/claude-x")
    *_, last, whole = exporter.get_finished_spans()

    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "Overloaded"
    assert last.attributes["gen_ai.provider.name"] == "anthropic"
    assert whole.attributes["gen_ai.provider.name"] == "anthropic"


def test_the_callers_trace_goes_on(watched):
    spans, exporter, _ = watched
    ask(spans, "openai/gpt-x", traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
    whole = exporter.get_finished_spans()[-1]

    assert f"{whole.context.trace_id:032x}" == "ab" * 16
    assert f"{whole.parent.span_id:016x}" == "cd" * 8


def test_the_metrics(watched):
    spans, _, reader = watched
    ask(spans, "openai/gpt-x")
    ask(spans, "openai/down")
    found = {
        metric.name: list(metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    tokens = {p.attributes["gen_ai.token.type"]: p.sum for p in found["gen_ai.client.token.usage"]}

    assert tokens["output"] == 30
    assert len(found["gen_ai.client.operation.duration"]) == 2
    assert "gen_ai.client.operation.time_to_first_chunk" in found


def test_a_gateway_tells_what_the_program_has_set_up(tmp_path):
    """In a process of its own: the global provider can be set once."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["attempt sim/demo", "chat sim/demo"]


PROGRAM = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
from starlette.requests import HTTPConnection
from unbroken.messages import Request, messages_from
from unbroken.server.gateway import Gateway
from unbroken.stores.memory import MemoryStore

async def main():
    async with Gateway(MemoryStore()) as gateway:
        asked = Request(model="sim/demo", messages=messages_from("Hi", None))
        http = HTTPConnection({"type": "http", "headers": []})
        created = await gateway.begin(http, asked, "keep")
        async for _ in gateway.answers.follow(created.stream.id, 0):
            pass
        await asyncio.sleep(0.05)
    print(json.dumps([span.name for span in exporter.get_finished_spans()]))

asyncio.run(main())
"""
