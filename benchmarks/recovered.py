"""The share of answers that arrive whole although every request is cut at a random byte.

Real sockets, the simulator as upstream, the same faults for each client. An answer counts as whole
if its text equals the uncut one; as wrong if the client reported success with another text; as
lost if it raised. Run: python benchmarks/recovered.py [ANSWERS]
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import openai

from unbroken import Client, RecoveryPolicy, UnbrokenError
from unbroken.simulator.app import running

PROMPT = "Tell me about cats."
MODEL = "openai/{client}-{cuts}-{number}?ttft=0&tps=0&tokens=60&{faults}"


def faults(number: int, cuts: int) -> str:
    """As many cuts one after the other, each at a place and in a manner of its own."""
    dice = random.Random(number)
    made = [
        f"fault=cut:bytes={dice.randint(0, 9000)},times={n},how={dice.choice(['reset', 'eof'])}"
        for n in range(1, cuts + 1)
    ]
    return "&".join(made)


def verdicts(ask: Callable[[str], str], client: str, answers: int, cuts: int) -> Iterator[str]:
    """What became of each answer."""
    for number in range(answers):
        failing = faults(number, cuts)  # counted by name, so each client has names of its own
        model = MODEL.format(client=client, cuts=cuts, number=number, faults=failing)
        whole = ask(model.partition("&fault")[0])
        try:
            yield "whole" if ask(model) == whole else "wrong"
        except (UnbrokenError, openai.OpenAIError):
            yield "lost"


def with_unbroken(client: Client) -> Callable[[str], str]:
    """Our client."""

    def ask(model: str) -> str:
        with client.stream(model, PROMPT) as stream:
            return "".join(stream.text)

    return ask


def with_openai(client: openai.OpenAI) -> Callable[[str], str]:
    """The official SDK, in the loop of the tutorials."""

    def ask(model: str) -> str:
        messages = [{"role": "user", "content": PROMPT}]
        name = model.partition("/")[2]
        stream = client.chat.completions.create(model=name, messages=messages, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    return ask


def row(name: str, ask: Callable[[str], str], cuts: int, answers: int) -> str:
    """One line of the table."""
    count = Counter(verdicts(ask, name, answers, cuts))
    shares = [f"{count[kind] / answers:.1%}" for kind in ("whole", "lost", "wrong")]
    return f"| {name} | {cuts} | {' | '.join(shares)} |"


def main(answers: int) -> None:
    """Print the table."""
    policy = RecoveryPolicy(attempts=4, backoff=0.001)
    print("| client | cuts | whole | lost | wrong |\n|---|--:|--:|--:|--:|")
    with running() as url, Client(api_key="k", base_url=f"{url}/v1", recovery=policy) as ours:
        theirs = openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=3)
        for name, ask in (("unbroken", with_unbroken(ours)), ("openai", with_openai(theirs))):
            for cuts in (1, 2, 3):
                print(row(name, ask, cuts, answers))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
