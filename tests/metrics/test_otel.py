"""Answers as OpenTelemetry tells them, through the SDK's own exporters in memory."""

import contextlib
import json

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from unbroken import Client, RecoveryPolicy, Tool
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


def ask(spans, *models, stream=True, **parameters):
    """One question to a client that is watched; the stream if there was one."""
    policy = RecoveryPolicy(attempts=2)
    transport = SimulatorTransport(SCENARIOS)
    with Client(api_key="k", transport=transport, recovery=policy, observers=[spans]) as client:
        if not stream:
            return client.complete([*models], "Tell me a secret.", **parameters)
        with client.stream([*models], "Tell me a secret.", **parameters) as answer:
            with contextlib.suppress(UnbrokenError):
                list(answer)
    return answer


def test_one_span_for_the_answer_and_one_for_each_attempt(watched):
    spans, exporter, _ = watched
    stream = ask(spans, "openai/cut")
    first, second, whole = exporter.get_finished_spans()

    assert whole.name == "chat cut"
    assert [first.name, second.name] == ["attempt openai/cut"] * 2
    assert {first.parent.span_id, second.parent.span_id} == {whole.context.span_id}
    assert first.attributes["error.type"] in ("StreamTruncated", "ConnectionLost")
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["unbroken.how"] == stream.response.attempts[1].how != "start"
    assert whole.status.status_code is not StatusCode.ERROR
    assert whole.start_time <= first.start_time <= second.start_time <= whole.end_time


def test_the_conventions_names(watched):
    spans, exporter, _ = watched
    stream = ask(spans, "openai/gpt-x", temperature=0.5, max_tokens=64, stop=["END"])
    said = exporter.get_finished_spans()[-1].attributes

    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "openai"
    assert said["gen_ai.request.model"] == "gpt-x"
    assert said["unbroken.model"] == "openai/gpt-x"
    assert said["gen_ai.request.stream"] is True
    assert said["server.address"] == "api.openai.com"
    assert said["server.port"] == 443
    assert said["gen_ai.response.finish_reasons"] == ("stop",)
    assert said["gen_ai.usage.output_tokens"] == stream.response.usage.output_tokens == 30
    assert said["gen_ai.response.time_to_first_chunk"] == stream.metrics.time_to_first_token
    assert said["gen_ai.request.temperature"] == 0.5
    assert said["gen_ai.request.max_tokens"] == 64
    assert said["gen_ai.request.stop_sequences"] == ("END",)
    assert "gen_ai.request.choice.count" not in said  # one is what everybody expects
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


def test_a_whole_answer_has_no_first_chunk(watched):
    spans, exporter, reader = watched
    ask(spans, "openai/gpt-x", stream=False)
    said = exporter.get_finished_spans()[-1].attributes

    assert said["gen_ai.usage.output_tokens"] == 30
    assert not [name for name in said if name.endswith((".stream", ".time_to_first_chunk"))]
    assert "gen_ai.client.operation.time_to_first_chunk" not in measured(reader)


def test_the_span_is_a_child_of_the_one_that_asked(watched):
    """Also where the answer is read elsewhere, as a web server's response is."""
    spans, exporter, _ = watched
    tracer = TracerProvider().get_tracer("app")
    transport = SimulatorTransport(SCENARIOS)
    with Client(api_key="k", transport=transport, observers=[spans]) as client:
        with tracer.start_as_current_span("request") as asking:
            stream = client.stream("openai/gpt-x", "Hi")
        list(stream)
    whole = exporter.get_finished_spans()[-1]

    assert whole.parent.span_id == asking.get_span_context().span_id


def test_the_trace_of_a_caller_elsewhere_goes_on(watched):
    spans, exporter, _ = watched
    answer = ask(Ignoring(), "openai/gpt-x")
    elsewhere = f"00-{'ab' * 16}-{'cd' * 8}-01"
    spans.answered(
        Answered(
            model="openai/gpt-x",
            state="complete",
            response=answer.response,
            metrics=answer.metrics,
            traceparent=elsewhere,
        )
    )
    whole = exporter.get_finished_spans()[-1]

    assert f"{whole.context.trace_id:032x}" == "ab" * 16
    assert f"{whole.parent.span_id:016x}" == "cd" * 8


class Ignoring:
    def answered(self, told):
        pass


def test_content_only_if_asked_for():
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    answer = ask(Spans(tracers, content=True), "openai/gpt-x", system="Be brief.")
    said = exporter.get_finished_spans()[-1].attributes
    schemas = {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": "Tell me a secret."}]}
        ],
        "gen_ai.output.messages": [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": answer.response.text}],
                "finish_reason": "stop",
            }
        ],
    }

    assert {name: json.loads(said[name]) for name in schemas} == schemas


def test_a_tool_call_as_content():
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    tool = Tool(name="weather", parameters={"type": "object"})
    answer = ask(Spans(tracers, content=True), "openai/gpt-x", tools=[tool], tool_choice="required")
    (call,) = answer.response.tool_calls
    (message,) = json.loads(exporter.get_finished_spans()[-1].attributes["gen_ai.output.messages"])

    assert message["finish_reason"] == "tool_call"
    assert message["parts"][-1] == {
        "type": "tool_call",
        "id": call.id,
        "name": "weather",
        "arguments": call.arguments,
    }


def measured(reader):
    """The points of each metric, by its name."""
    return {
        metric.name: list(metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_the_metrics(watched):
    spans, _, reader = watched
    ask(spans, "openai/gpt-x")
    ask(spans, "openai/down")
    found = measured(reader)
    tokens = {p.attributes["gen_ai.token.type"]: p.sum for p in found["gen_ai.client.token.usage"]}
    (first,) = found["gen_ai.client.operation.time_to_first_chunk"]

    assert tokens["output"] == 30
    assert len(found["gen_ai.client.operation.duration"]) == 2
    assert first.explicit_bounds[-1] == 10.0  # seconds: the SDK's own end at 10,000


def test_a_gateway_tells_what_the_program_has_set_up(tmp_path):
    """In a process of its own: the global provider can be set once."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["attempt sim/demo", "chat demo"]


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
