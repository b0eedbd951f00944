"""Features together: call options and policies beside faults, streamed and whole, in both clients.

Every feature is right alone; most faults found so far were in combinations. The invariants: the
text that the loop saw is `response.text`, and that of an uncut answer where the call succeeds;
usage is `reported` only if every attempt with content reported; the call keeps to `total`;
attempts keep to their bound; no connection and no task is left over.

    python -m pytest tests/engine/test_combinations.py --hypothesis-seed=random  # more examples:
    COMBINATIONS=5000 python -m pytest tests/engine/test_combinations.py
"""

import asyncio
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unbroken import AsyncClient, Client, Limits, RecoveryPolicy, Timeouts
from unbroken.errors import UnbrokenError
from unbroken.events import MessageStart, Restarted, TextDelta, ToolCallDelta
from unbroken.simulator.scenario import Fault, Scenario
from unbroken.simulator.transport import AsyncSimulatorTransport, SimulatorTransport

EXAMPLES = int(os.environ.get("COMBINATIONS", "150"))
TEXT = (
    "The client opens with a SYN, and the server answers it.\n\n- The rest is naïve, ✓ then done."
)
PROMPT = "Explain the TCP handshake."
WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}

times = st.integers(0, 3)
faults = st.one_of(
    st.builds(
        Fault,
        kind=st.just("cut"),
        bytes=st.integers(0, 6000),
        how=st.sampled_from(["reset", "close", "eof"]),
        times=times,
    ),
    st.builds(
        Fault,
        kind=st.just("status"),
        status=st.sampled_from([400, 401, 404, 429, 500, 503]),
        retry_after=st.sampled_from([None, 0.0, 2.0, 30.0]),
        times=times,
    ),
    st.builds(
        Fault,
        kind=st.sampled_from(["stall", "error"]),
        events=st.integers(1, 20),
        seconds=st.sampled_from([3.0, 90.0]),
        times=times,
    ),
    st.builds(Fault, kind=st.sampled_from(["refuse", "silent", "no_done"]), times=times),
)
scenarios = st.builds(
    Scenario,
    text=st.just(TEXT),
    ttft=st.sampled_from([0.1, 3.0, 15.0]),
    prefill=st.sampled_from(["exact", "refuse"]),
    faults=st.lists(faults, max_size=2).map(tuple),
)
policies = st.builds(
    RecoveryPolicy,
    on_cut=st.sampled_from(["auto", "continue", "replay", "raise"]),
    attempts=st.integers(1, 4),
    allow_restart=st.booleans(),
    continue_by_prompt=st.booleans(),
    hedge_after=st.sampled_from([None, None, 0.0, 1.0]),
)
clocks = st.builds(
    Timeouts,
    first_event=st.sampled_from([None, 5.0, 60.0]),
    idle=st.sampled_from([2.0, 60.0]),
    total=st.sampled_from([30.0, 200.0]),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "n": st.just(2),
        "tools": st.just([WEATHER]),
        "temperature": st.just(0),
        "reasoning_effort": st.just("low"),
        "response_format": st.just({"type": "json_object"}),
        "max_tokens": st.just(500),
    },
)
routes = st.lists(
    st.sampled_from(["openai/a", "anthropic/claude-haiku-4-5", "sim/b", "openai/reason"]),
    min_size=1,
    max_size=3,
    unique=True,
)
limits = st.sampled_from([{}, {"openai": Limits(rpm=30)}, {"anthropic": Limits(tpm=2000)}])


class Seen:
    """What a loop over the events has."""

    def __init__(self, events=()):
        self.text = self.arguments = ""
        self.events = []
        for event in events:
            self.add(event)

    def add(self, event):
        self.events.append(event)
        if isinstance(event, Restarted):
            self.text = self.arguments = ""
        elif isinstance(event, TextDelta) and event.choice == 0:
            self.text += event.text
        elif isinstance(event, ToolCallDelta) and event.choice == 0:
            self.arguments += event.arguments


def made(transport, log, route, given_):
    """The client's arguments of a call, a whole one or one that takes over from a log."""
    return ("resume", [log, route, PROMPT]) if log else ("stream", [route, PROMPT])


def blocking(world, log, route, limits_, given_):
    transport = SimulatorTransport(world)
    client, seen, error = Client(api_key="k", transport=transport, limits=limits_), Seen(log), None
    name, arguments = made(transport, log, route, given_)
    begin = transport.now()
    with getattr(client, name)(*arguments, **given_) as stream:
        try:
            for event in stream:
                seen.add(event)
        except UnbrokenError as caught:
            error = caught
    return stream.response, seen, error, transport, transport.now() - begin


def awaiting(world, log, route, limits_, given_):
    async def main():
        transport = AsyncSimulatorTransport(world)
        client, seen = AsyncClient(api_key="k", transport=transport, limits=limits_), Seen(log)
        name, arguments = made(transport, log, route, given_)
        error, begin = None, transport.now()
        async with getattr(client, name)(*arguments, **given_) as stream:
            try:
                async for event in stream:
                    seen.add(event)
            except UnbrokenError as caught:
                error = caught
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return stream.response, seen, error, transport, transport.now() - begin

    return asyncio.run(main())


def log_of(route, given_, length):
    """The first events of an answer whose process is gone."""
    events = blocking({"*": Scenario(text=TEXT)}, [], route, {}, given_)[1].events
    kept = [event for event in events if not isinstance(event, MessageStart)][:length]
    return kept if any(isinstance(event, TextDelta) for event in kept) else []


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_features_hold_together(data):
    route, given_ = data.draw(routes), data.draw(options)
    if given_.keys() & {"n", "response_format"}:  # which Anthropic's API has no counterpart for
        route = [name for name in route if "claude" not in name] or ["openai/a"]
    policy, clock = data.draw(policies), data.draw(clocks)
    world = {name.partition("/")[2]: data.draw(scenarios) for name in route}
    log = log_of(route, given_, data.draw(st.sampled_from([0, 0, 3, 8])))
    run = data.draw(st.sampled_from([blocking, awaiting]))
    asked = given_ | {"recovery": policy, "timeouts": clock}
    response, seen, error, transport, seconds = run(world, log, route, data.draw(limits), asked)
    calls = response.tool_calls + response.partial_tool_calls

    assert seen.text == response.text
    assert TEXT.startswith(response.text)
    assert seconds <= clock.total + 0.01
    assert "open" not in {entry.ended for entry in transport.log}
    served = [a for a in response.attempts if a.status != 503]
    hedged = 2 if policy.hedge_after is not None else 1
    assert len(served) <= policy.attempts * len(route) * hedged
    if error is None:
        assert response.end == "complete"
        assert calls or response.text == TEXT
        assert not response.partial_tool_calls
    else:
        assert error.response == response
    if response.usage is not None and response.usage.source == "reported":
        assert {a.how for a in response.attempts} == {"start"}  # none had content but the last
        assert response.attempts[-1].usage is not None
