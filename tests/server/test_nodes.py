"""Many machines: gateways on one Redis behind a real nginx, killed at random while people read.

For minutes instead of seconds: scripts/many_nodes.py.
"""

import asyncio
import urllib.error
import urllib.request

import pytest
from fleet import NGINX, Fleet, Tally

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine"),
]


def test_no_character_is_lost_or_doubled_whoever_is_killed(tmp_path):
    with Fleet(tmp_path, nodes=3) as fleet:
        tally = asyncio.run(fleet.run(10, load=8, kill_redis=4))

    assert tally.wrong == []
    assert tally.answers > 8
    assert tally.readers == 2 * tally.answers
    assert min(tally.kills, tally.redis_kills, tally.returns) > 0


def test_a_gateway_whose_redis_is_away_says_that_it_is_not_ready(tmp_path):
    with Fleet(tmp_path, nodes=1) as fleet:
        before = status(f"{fleet.url}/readyz")
        fleet.redis.kill()
        away = status(f"{fleet.url}/readyz"), status(f"{fleet.url}/healthz")
        fleet.redis.start()
        for _ in range(200):
            if (after := status(f"{fleet.url}/readyz")) == 200:
                break

    assert (before, away, after) == (200, (503, 200), 200)


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


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
