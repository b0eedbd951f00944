"""Many machines: gateways on one Redis behind a real nginx, killed at random while people read.

For minutes instead of seconds: scripts/many_nodes.py.
"""

import asyncio

import pytest
from fleet import NGINX, Fleet, Tally

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine"),
]


@pytest.mark.parametrize("kill_redis", [0.0, 4.0], ids=["gateways", "gateways and Redis"])
def test_no_character_is_lost_or_doubled_whoever_is_killed(tmp_path, kill_redis):
    with Fleet(tmp_path, nodes=3, seed=int(kill_redis)) as fleet:
        tally = asyncio.run(fleet.run(9, load=8, kill_redis=kill_redis))

    assert tally.wrong == []
    assert tally.answers > 8
    assert tally.readers == 2 * tally.answers
    assert tally.kills > 2
    assert tally.returns > 0
    assert (tally.redis_kills > 0) == (kill_redis > 0)


def test_a_wrong_answer_would_be_found():
    class Read:
        def __init__(self, text, state="complete"):
            self.text, self.state, self.returns, self.events, self._last = text, state, 0, 3, 9

    fleet = Fleet(".")
    fleet.whole = {"m": "whole"}
    for text, state in (("whole", "complete"), ("whol", "complete"), ("whole", "failed")):
        fleet._count_up("m", "s", [Read(text, state)])

    assert isinstance(fleet.tally, Tally)
    assert [(state, text) for _, _, state, _, text in fleet.tally.wrong] == [
        ("complete", "whol"),
        ("failed", "whole"),
    ]
