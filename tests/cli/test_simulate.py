"""`unbroken simulate`: a server for any SDK."""

import json
import signal
import socket
import urllib.request

SCENARIO = '["*"]\nttft = 0.0\ntps = 0.0\ntext = "from the file"\n'


def addresses(program):
    """The server's URL, and what it told to export."""
    url = program.stdout.readline().decode().split()[3].rstrip(";")
    exports = program.stdout.readline() + program.stdout.readline()
    pairs = (word.split("=", 1) for word in exports.decode().split() if "=" in word)
    return url, dict(pairs)


def test_simulate_serves_until_control_c(started):
    program = started("simulate", "--port", "0")
    url, _ = addresses(program)
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        models = json.load(answer)["data"]
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=20)

    assert len(models) > 3
    assert (program.returncode, errors) == (130, b"")


def test_what_it_prints_points_ask_at_it(started, unbroken, tmp_path):
    tmp_path.joinpath("scenes.toml").write_text(SCENARIO)
    _, exported = addresses(started("simulate", "--port", "0", "--scenario", "scenes.toml"))

    for model in ("openai/gpt-4o", "anthropic/claude-haiku-5-5"):
        done = unbroken("ask", "x", "-m", model, **exported)
        assert (done.stdout, done.stderr) == ("from the file\n", "")


def test_a_scenario_file_that_is_wrong_is_told(unbroken, tmp_path):
    tmp_path.joinpath("scenes.toml").write_text("[demo]\nspeed = 3\n")
    done = unbroken("simulate", "--scenarios", "scenes.toml")

    assert done.returncode == 2
    assert "a scenario has no 'speed'" in done.stderr


def test_a_port_that_is_taken_is_told(unbroken):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = unbroken("simulate", "--port", str(port))

    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr
