"""`unbroken models`: what is configured, what runs here, and what a provider lists."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest

from unbroken.cli import _offers
from unbroken.providers import registry
from unbroken.simulator.app import running

NOBODY = "http://127.0.0.1:9/v1"
ALONE = {
    "VLLM_BASE_URL": NOBODY,
    "LLAMACPP_BASE_URL": NOBODY,
    "LMSTUDIO_BASE_URL": NOBODY,
    "OLLAMA_HOST": "127.0.0.1:9",
}


@pytest.fixture(scope="module")
def server():
    """A simulator that plays a local server."""
    with running() as url:
        yield url


@contextlib.contextmanager
def answering(body, status=200):
    """A server that says the same to everybody; gives its URL and what it was asked."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}", asked
        finally:
            found.shutdown()
            thread.join()


def test_a_running_server_is_found_with_its_models_and_how_to_use_them(unbroken, server):
    host = server.removeprefix("http://")
    done = unbroken("models", **{**ALONE, "OLLAMA_HOST": host})

    assert (done.returncode, done.stderr) == (0, "")
    assert f"ollama is running at {server}/v1:\n  ollama/claude-3-5-sonnet\n" in done.stdout
    assert 'unbroken ask -m ollama/claude-3-5-sonnet "Hello!"' in done.stdout
    assert "vllm is running" not in done.stdout


def test_what_was_found_answers_by_its_name_without_a_key(unbroken, server):
    host = server.removeprefix("http://")
    done = unbroken("ask", "-m", "ollama/gpt-4o", "Hello!", OLLAMA_HOST=host)

    assert (done.returncode, done.stdout != "") == (0, True)


def test_several_servers_are_found_in_one_go(unbroken, server):
    moved = {name: f"{server}/v1" for name in ALONE if name.endswith("_BASE_URL")}
    rows = json.loads(unbroken("models", "--json", **{**ALONE, **moved}).stdout)

    assert [row["provider"] for row in rows if row["running"]] == ["llamacpp", "lmstudio", "vllm"]
    assert all("demo" in row["models"] for row in rows if row["running"])


def test_nobody_there_is_nothing_to_talk_about(unbroken):
    done = unbroken("models", **ALONE)

    assert (done.returncode, done.stderr) == (0, "")
    assert "is running" not in done.stdout
    assert done.stdout.endswith("used when none is named: sim/demo\n")


def test_a_server_that_is_silent_or_something_else_is_passed_over(unbroken):
    with socket.create_server(("127.0.0.1", 0)) as silent, answering(b"<html>Hi</html>") as page:
        moved = {
            "OLLAMA_HOST": f"127.0.0.1:{silent.getsockname()[1]}",
            "VLLM_BASE_URL": f"{page[0]}/v1",
        }
        done = unbroken("models", **{**ALONE, **moved})

    assert (done.returncode, done.stderr) == (0, "")
    assert "is running" not in done.stdout
    assert page[1][0][0] == "/v1/models"


def test_a_gateway_at_the_usual_port_is_not_taken_for_the_usual_server(server):
    here = msgspec.structs.replace(registry.provider("llamacpp"), base_url=f"{server}/v1")
    at_home, moved = {}, {}

    _offers._look(here, {}, at_home)  # the simulator says that its models are its own
    _offers._look(here, {"LLAMACPP_BASE_URL": f"{server}/./v1"}, moved)

    assert (at_home, list(moved)) == ({}, ["llamacpp"])


def test_a_server_without_models_says_so(unbroken):
    with answering(b'{"object":"list","data":[]}') as (url, _):
        done = unbroken("models", **{**ALONE, "OLLAMA_HOST": url})

    assert "ollama is running" in done.stdout
    assert "it has no model yet" in done.stdout
    assert "unbroken ask" not in done.stdout


def test_with_a_key_the_default_is_left_alone(unbroken, server):
    host = server.removeprefix("http://")
    done = unbroken("models", **{**ALONE, "OLLAMA_HOST": host, "OPENAI_API_KEY": "k"})

    assert done.stdout.endswith("used when none is named: openai/gpt-6-luna\n")


LISTS = [
    ("groq", "GROQ", b'{"data":[{"id":"b"},{"id":"a/c"}]}', ["groq/a/c", "groq/b"]),
    ("together", "TOGETHER", b'[{"id":"a/b","object":"model"}]', ["together/a/b"]),
    ("gemini", "GOOGLE_GEMINI", b'{"models":[{"name":"models/g-1"}]}', ["gemini/g-1"]),
    ("gemini-openai", "GOOGLE_GEMINI", b'{"data":[{"id":"models/g-1"}]}', ["gemini-openai/g-1"]),
]


@pytest.mark.parametrize(("name", "prefix", "body", "shown"), LISTS)
def test_a_provider_s_list_is_shown_as_names_to_use(unbroken, name, prefix, body, shown):
    provider = registry.provider(name)
    with answering(body) as (url, asked):
        env = {f"{prefix}_BASE_URL": url, provider.auth.env: "sk-secret"}
        done = unbroken("models", "--list", name, **env)
        as_json = unbroken("models", "--list", name, "--json", **env)

    assert done.stdout.splitlines() == json.loads(as_json.stdout) == shown
    assert asked[0][0] == provider.models_path
    header = "x-goog-api-key" if name == "gemini" else "authorization"
    assert asked[0][1][header].removeprefix("Bearer ") == "sk-secret"


def test_the_simulator_lists_its_own(unbroken):
    assert "sim/demo" in unbroken("models", "--list", "sim").stdout.splitlines()


def test_anthropic_s_list_comes_with_its_own_headers(unbroken, server):
    env = {"ANTHROPIC_BASE_URL": server, "ANTHROPIC_API_KEY": "k"}

    assert "anthropic/demo" in unbroken("models", "--list", "anthropic", **env).stdout


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (
            b'{"error":{"message":"bad key"}}',
            401,
            3,
            "groq/models: 401 AuthenticationFailed: bad key",
        ),
        (b"<html>", 200, 5, "no list of models"),
        (b"", 302, 5, "no list of models"),
    ],
)
def test_a_list_that_is_refused_says_why_without_the_key(unbroken, body, status, code, says):
    with answering(body, status) as (url, _):
        done = unbroken("models", "--list", "groq", GROQ_BASE_URL=url, GROQ_API_KEY="sk-secret")

    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "sk-secret" not in done.stderr


@pytest.mark.parametrize(
    ("name", "env", "code", "says"),
    [
        ("groq", {}, 3, "GROQ_API_KEY"),
        ("azure", {"AZURE_OPENAI_API_KEY": "k"}, 2, "AZURE_OPENAI_ENDPOINT"),
        ("ollama", {"OLLAMA_HOST": "127.0.0.1:9"}, 6, "Is it running?"),
        ("ollama", {"OLLAMA_HOST": "127.0.0.1:x"}, 2, "OLLAMA_HOST"),
        ("grok", {}, 2, "groq"),
    ],
)
def test_what_is_missing_for_a_list_is_named(unbroken, name, env, code, says):
    done = unbroken("models", "--list", name, **env)

    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_an_address_that_is_none_is_an_error(unbroken):
    done = unbroken("models", **{**ALONE, "OLLAMA_HOST": "127.0.0.1:x"})

    assert done.returncode == 2
    assert "OLLAMA_HOST" in done.stderr
