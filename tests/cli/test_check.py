"""`unbroken check` and `unbroken models`."""

import json
import time

import pytest

from unbroken.simulator.app import running


@pytest.fixture
def upstream():
    with running() as url:
        yield {
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": f"{url}/v1",
            "ANTHROPIC_API_KEY": "sk-secret",
            "ANTHROPIC_BASE_URL": url,
        }


def test_every_provider_with_a_key_is_asked(unbroken, upstream):
    done = unbroken("check", **upstream)
    rows = [line.split()[::2] for line in done.stdout.splitlines()[1:]]

    assert done.returncode == 0
    assert [row[:2] for row in rows] == [["openai", "ok"], ["anthropic", "ok"]]


def test_the_environment_s_own_address_is_checked(unbroken, upstream):
    upstream["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:9"
    done = unbroken("check", "--json", **upstream)
    openai, anthropic = json.loads(done.stdout)

    assert done.returncode == 6
    assert (openai["state"], openai["code"]) == ("ok", 0)
    assert (anthropic["state"], anthropic["code"]) == ("not reachable", 6)


WRONG = [
    ("status:status=401", "wrong key", 3),
    ("status:status=403", "no access", 3),
    ("status:status=404", "no such model", 5),
    ("status:status=429", "rate limited", 4),
    ("status:status=529", "overloaded", 5),
    ("refuse", "connection lost", 6),
]


def test_check_says_what_is_wrong_with_each(unbroken, upstream):
    models = [f"openai/m?fault={fault}" for fault, _, _ in WRONG]
    done = unbroken("check", *models, "--json", **upstream)
    found = [(row["state"], row["code"]) for row in json.loads(done.stdout)]

    assert done.returncode == 3
    assert found == [(state, code) for _, state, code in WRONG]


def test_the_providers_are_asked_all_at_once(unbroken, upstream):
    began = time.monotonic()
    done = unbroken("check", *["openai/m?ttft=2&tps=0"] * 8, **upstream)

    assert done.stdout.count(" ok ") == 8
    assert time.monotonic() - began < 10


def test_models_shows_which_key_is_set_and_never_the_key(unbroken, upstream):
    done = unbroken("models", **upstream)

    assert "ANTHROPIC_API_KEY is set" in done.stdout
    assert "UNBROKEN_API_KEY is not set" in done.stdout
    assert "sk-secret" not in done.stdout
    assert "used when none is named: openai/" in done.stdout


def test_models_as_json_says_the_same(unbroken, upstream):
    shown = unbroken("models", "--json", **upstream).stdout
    rows = {row["provider"]: row for row in json.loads(shown)}

    assert rows["openai"]["key_set"] is True
    assert rows["openai"]["base_url"] == upstream["OPENAI_BASE_URL"]
    assert rows["compatible"]["key_set"] is False
    assert "sk-secret" not in shown
