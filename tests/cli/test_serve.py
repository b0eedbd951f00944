"""`serve` and `keys` as real processes."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from ports import free_port

from unbroken.errors import ConfigurationError
from unbroken.server.settings import key_limits, load


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def ready(port):
    for _ in range(500):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.02)
    pytest.fail("the server did not start")


def test_serving_needs_no_option_but_a_port(started):
    port = free_port()
    server = started("serve", "--port", str(port), UNBROKEN_SIMULATOR="open")
    assert ready(port)["status"] == "ok"
    url = f"http://127.0.0.1:{port}/stream?prompt=hi&model=sim/demo?tps=0%26ttft=0%26tokens=9"
    with urllib.request.urlopen(url) as answer:
        assert answer.read().endswith(b"data: [DONE]\n\n")
    server.terminate()

    assert server.wait(20) == 0
    assert f"http://127.0.0.1:{port}".encode() in server.stdout.read()


def test_without_a_key_it_listens_to_this_machine_only(unbroken):
    done = unbroken("serve", "--host", "0.0.0.0", "--port", "9")

    assert done.returncode == 2
    assert "unbroken keys create" in done.stderr


def test_it_says_where_it_is_when_it_is_there(started):
    port = free_port()
    server = started("serve", "--port", str(port), "--store", "memory:", "--host", "127.0.0.2")
    said = server.stdout.readline().decode()

    assert said.startswith(f"answers on http://127.0.0.2:{port}")
    with urllib.request.urlopen(f"http://127.0.0.2:{port}/healthz") as answer:
        assert answer.status == 200


def test_a_closed_standard_output_is_no_hindrance(env, tmp_path):
    port = free_port()
    close = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    serve = ["-m", "unbroken", "serve", "--port", str(port), "--store", "memory:"]
    with subprocess.Popen([sys.executable, "-c", close, *serve], cwd=tmp_path, env=env) as server:
        assert ready(port)["status"] == "ok"
        server.terminate()

        assert server.wait(20) == 0


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_address_of_ipv6_is_said_as_one_can_open_it(started):
    port = free_port()
    server = started("serve", "--port", str(port), "--store", "memory:", "--host", "::1")
    url = server.stdout.readline().decode().split()[2]

    assert url == f"http://[::1]:{port}"
    with urllib.request.urlopen(f"{url}/healthz") as answer:
        assert answer.status == 200


def test_a_port_that_is_taken_is_one_line(unbroken):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        done = unbroken("serve", "--port", str(port), "--store", "memory:")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"unbroken: can't listen on http://127.0.0.1:{port}: Address al")
    assert done.stderr.count("\n") == 1


def test_a_host_that_is_not_here_is_one_line(unbroken):
    done = unbroken("serve", "--host", "127.0.0.1.invalid", "--store", "memory:")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_store_that_is_no_database_is_one_line(unbroken, tmp_path, host):
    (tmp_path / "notes.txt").write_text("milk, bread, " * 1000)
    port = str(free_port())
    done = unbroken("serve", "--port", port, "--host", host, "--store", "sqlite:///notes.txt")

    assert (done.returncode, done.stdout) == (1, "")
    *waiting, said = done.stderr.splitlines()  # a slow machine waits for the store first
    assert "notes.txt" in said
    assert all(line.startswith("waiting for the store") for line in waiting)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_store_that_is_away_is_waited_for_and_this_is_said(unbroken, host):
    store = f"redis://:secret@127.0.0.1:{free_port()}/0?patience=6"
    done = unbroken("serve", "--port", str(free_port()), "--host", host, "--store", store)
    waiting, failed = done.stderr.splitlines()

    assert (done.returncode, done.stdout) == (1, "")
    assert waiting.startswith("waiting for the store redis://127.0.0.1:")
    assert "Redis was away for 6 s" in failed
    assert "secret" not in done.stderr


def test_who_stops_it_while_it_waits_sees_no_traceback(started):
    store = f"redis://127.0.0.1:{free_port()}/0"
    server = started("serve", "--port", str(free_port()), "--store", store)
    assert server.stderr.readline().startswith(b"waiting for the store")
    server.send_signal(signal.SIGINT)

    assert server.wait(20) == 130
    assert server.stderr.read() == b""


def test_keys_are_made_listed_and_revoked(unbroken):
    made = unbroken("keys", "create", "phone", "--tokens", "1000")
    again = unbroken("keys", "create", "phone")
    listed = unbroken("keys", "list")
    gone = unbroken("keys", "revoke", "phone")
    nobody = unbroken("keys", "revoke", "phone")

    assert made.stdout.startswith("ub-")
    assert made.stdout.strip() not in listed.stdout
    assert "phone" in listed.stdout
    assert "1000 tokens" in listed.stdout
    assert (again.returncode, gone.returncode, nobody.returncode) == (2, 0, 2)
    assert "phone" not in unbroken("keys", "list").stdout


def test_keys_are_kept_where_the_gateway_of_this_folder_keeps_its_answers(unbroken, tmp_path):
    (tmp_path / "unbroken.toml").write_text('[server]\nstore = "sqlite:///answers.db"\n')
    unbroken("keys", "create", "phone")
    elsewhere = unbroken("keys", "list", "--store", "sqlite:///unbroken.db")

    assert "phone" in unbroken("keys", "list", "--store", "sqlite:///answers.db").stdout
    assert "phone" not in elsewhere.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--store", "oracle:x"], "there is no store"),
        (["serve", "--store", "http://["], "can't be read: 'http://['"),
        (["serve", "--port", "70000"], "--port: port=70000 must be between 1 and 65535"),
        (["keys", "create"], "needs a name"),
        (["serve", "--port", "http"], "--port"),
    ],
)
def test_wrong_input_is_one_line(unbroken, arguments, words):
    done = unbroken(*arguments)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "store",
    [
        "reddis://:hunter2@db:6379",
        "reddis:/:hunter2@db",
        "reddis://u:hunter2/#?@@db",
        "sqlite://u:hunter2@x/y",
    ],
)
def test_a_mistyped_store_shows_no_password(unbroken, store):
    done = unbroken("serve", "--store", store)

    assert done.returncode == 2
    assert re.search("'(reddis://db|sqlite://x)", done.stderr)
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("action", [["create", "phone"], ["list"], ["revoke", "phone"]])
def test_keys_are_not_kept_in_a_memory_that_ends_with_the_command(unbroken, action):
    done = unbroken("keys", *action, "--store", "memory:")

    assert (done.returncode, done.stdout) == (2, "")
    assert "ends with this command" in done.stderr


def test_an_env_file_in_another_encoding_is_one_line(unbroken, tmp_path):
    (tmp_path / ".env").write_bytes("UNBROKEN_MODEL=sim/café\n".encode("latin-1"))
    done = unbroken("ask", "x")

    assert done.returncode == 2
    assert done.stderr == "unbroken: .env is not UTF-8: invalid continuation byte at byte 22\n"


def test_models_may_be_routes(tmp_path):
    text = "[server]\nmodels = ['fast', 'sim/demo']\n[routes]\nfast = ['sim/x', 'openai/gpt-4o']\n"
    (tmp_path / "unbroken.toml").write_text(text)

    assert load({}, {}, str(tmp_path)).models == ["fast", "sim/demo"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nport = 70000\n", "line 2: [server] port=70000"),
        ("[server]\n# why\nport = 'x'\n", "line 3: [server] Expected `int`"),
        ("[keys.phone]\nusd = 1\ntoken = 2\n", "line 3: [keys.phone]"),
        ("[limits.openai]\n\nrpm = 'many'\n", "line 3: [limits.openai]"),
        ("[routes]\na = ['x/y']\nb = [3]\n", "line 3: [routes.b]"),
        ("[server]\nhost = '::1'\nprot = 80\n", "line 3"),
        ("[server]\ngrace = 'long'\n", "grace"),
        ("[server\n", "line 1"),
        ("server = 3\n", "is a table"),
        ("[routes]\nok = ['sim/x']\nfast = ['fast']\n", "line 3: [routes.fast] the route 'fast'"),
        (
            "[routes]\na = ['b']\nb = ['a']\n",
            "line 2: [routes.a] the route 'a' names the route 'b'",
        ),
        ("[routes]\nok = ['sim/x']\na = ['opnai/x']\n", "line 3: [routes.a] there is no provider"),
        ("[server]\nport = 9\nmodels = ['nope/x']\n", "line 3: [server.models] there is no pro"),
        ("[server]\nmodels = ['quick']\n[routes]\nfast = ['sim/x']\n", "line 2: [server.models]"),
        ("[limits.opnai]\nrpm = 5\n", "line 1: [limits.opnai] there is no provider 'opnai'. Did"),
        ("[limits.openai]\ntpm = 9\nrpm = -5\n", "line 3: [limits.openai] limit rpm=-5"),
        (
            "[server]\n\n[serves]\nport = 9\n",
            "line 3: [serves] there is no such table; did you mean",
        ),
        ("[bogus]\nport = 9\n", "line 1: [bogus] there is no such table; there are: "),
        ("port = 9\n", "line 1: [port] there is no such table"),
        ("[server]\ndrain = inf\n", "line 2: [server] drain=inf"),
    ],
)
def test_a_wrong_table_is_told_by_its_place(tmp_path, text, words):
    (tmp_path / "unbroken.toml").write_text(text)

    with pytest.raises(ConfigurationError) as told:
        load({}, {}, str(tmp_path))
        key_limits({}, str(tmp_path))
    assert words in str(told.value)
    assert str(told.value).startswith(str(tmp_path / "unbroken.toml"))


def test_what_is_wrong_in_the_file_is_one_line(unbroken, tmp_path):
    (tmp_path / "unbroken.toml").write_text("[server]\nport = 70000\n")
    done = unbroken("serve")

    assert done.returncode == 2
    assert done.stderr.startswith("unbroken: unbroken.toml line 2: [server] port=70000")
    assert done.stderr.count("\n") == 1
