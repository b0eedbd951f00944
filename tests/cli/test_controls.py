"""What a provider writes never commands the terminal, wherever it is shown."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unbroken.cli._terminal import harmless

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\u2066\u200b\U000e0041"
ANSWER = [
    {"model": f"m{EVIL}", "choices": [{"index": 0, "delta": {"content": "hi"}}]},
    {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]


class _Provider(BaseHTTPRequestHandler):
    """Refuses whoever asks it for `refused`, and answers all others."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] == "refused":
            self._send(400, "application/json", json.dumps({"error": {"message": f"no {EVIL}key"}}))
        else:
            events = [*map(json.dumps, ANSWER), "[DONE]"]
            self._send(200, "text/event-stream", "".join(f"data: {e}\n\n" for e in events))

    def _send(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def provider():
    """A provider that means harm, as the environment of a command."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Provider) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        yield {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url}
        server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["check", "openai/refused"], "no ]0;owned[2Jkey"),
        (["bench", "-m", "openai/refused", "-n", "1", "--warmup", "0"], "no ]0;owned[2Jkey"),
        (["ask", "x", "-m", "openai/m", "--stats"], "openai/m]0;owned[2J"),
        (["ask", "x", "-m", "openai/refused"], "no ]0;owned[2Jkey"),
    ],
)
def test_control_characters_of_a_provider_are_left_out(unbroken, provider, arguments, shown):
    done = unbroken(*arguments, **provider)
    said = done.stdout + done.stderr

    assert shown in said
    assert [c for c in said if not c.isprintable() and c != "\n"] == []


def test_what_scripts_and_emoji_need_is_shown():
    shown = "e\u0301 שלום می\u200cخواهم 👩\u200d💻 ❤\ufe0f tab\tline\n"

    assert harmless(shown) == shown


@pytest.mark.parametrize(
    "hidden", ["\u202eevil", "\u2067x\u2069", "\u061c", "\ufeff", "\U000e0020"]
)
def test_no_character_reorders_or_hides_what_a_terminal_shows(hidden):
    assert all(c.isprintable() for c in harmless(hidden))
