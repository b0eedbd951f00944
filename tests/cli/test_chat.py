"""`unbroken chat`: from a pipe, and with a person at a terminal."""

import signal
import subprocess
import time

FAST = "sim/demo?ttft=0&tps=0&tokens=30"
SLOW = "sim/demo?ttft=0&tps=20&tokens=400"
PROMPT = "\x1b[?2004h"  # a prompt that is ready for input asks for bracketed paste


def leave(chat):
    """Ctrl-D at the next prompt; what is shown until the end."""
    chat.until(PROMPT)
    chat.type("\x04")
    return chat.rest()


def test_each_line_of_a_pipe_is_a_turn(unbroken):
    lines = "what of zebras?\n/model sim/gpt-4o?ttft=0&tps=0\n\nand of lions?\n/quit\nnever\n"
    done = unbroken("chat", "-m", FAST, stdin=lines)

    assert done.returncode == 0
    assert "zebras" in done.stdout
    assert "lions" in done.stdout
    assert "never" not in done.stdout
    assert "model: sim/gpt-4o" in done.stderr


def test_what_was_said_is_remembered_until_it_is_cleared(unbroken):
    again = unbroken("chat", "-m", FAST, stdin="about zebras\nabout it\n").stdout
    anew = unbroken("chat", "-m", FAST, stdin="about zebras\n/clear\nabout it\n").stdout
    alone = unbroken("chat", "-m", FAST, stdin="about it\n").stdout

    assert anew.endswith(alone)
    assert not again.endswith(alone)


def test_a_history_that_is_too_long_loses_its_oldest_turns(unbroken):
    done = unbroken("chat", "-m", FAST, "--context-tokens", "9", stdin="about zebras\nabout it\n")

    assert "the 2 oldest messages" in done.stderr
    assert done.stdout.endswith(unbroken("chat", "-m", FAST, stdin="about it\n").stdout)


def test_a_backslash_joins_lines(unbroken):
    done = unbroken("chat", "-m", FAST, stdin="about zebras\\\nand lions\n", COLUMNS="80")
    once = unbroken("ask", "about zebras\nand lions", "-m", FAST)

    assert done.stdout == once.stdout


def test_a_backslash_at_the_end_of_input_joins_nothing_and_loses_nothing(unbroken):
    done = unbroken("chat", "-m", FAST, stdin="about zebras\\\n")
    once = unbroken("ask", "about zebras", "-m", FAST)

    assert done.stdout == once.stdout


def test_any_number_of_lines_can_be_joined(unbroken):
    done = unbroken("chat", "-m", FAST, stdin="zebras\\\n" * 2000 + "and lions\n")

    assert (done.returncode, "unexpected" in done.stderr) == (0, False)
    assert "zebras" in done.stdout


def test_a_path_is_no_command_and_a_wrong_command_is_told(unbroken):
    done = unbroken("chat", "-m", FAST, stdin="/etc/hosts: what is it?\n/nonsense\n/help\n")

    assert done.stdout
    assert "no such command: /nonsense" in done.stderr
    assert "/clear" in done.stderr


def test_a_failure_ends_no_conversation_but_is_its_exit_code(unbroken):
    lines = "/model nobody/x\none\n/model sim/m?fault=status:status=401\ntwo\n"
    done = unbroken("chat", "-m", FAST, stdin=lines)

    assert done.returncode == 2
    assert done.stdout
    assert "there is no provider 'nobody'" in done.stderr
    assert "401 AuthenticationFailed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_conversation_shows_markdown_and_ends_with_control_d(terminal):
    chat = terminal("chat", "-m", "sim/m?ttft=0&tps=0&text=so%20**bold**%0A%0A-%20item")
    chat.until(PROMPT)
    chat.type("hello\r")
    shown = chat.until(" out")
    leave(chat)

    assert "\x1b[1mbold\x1b[0m" in shown
    assert "•" in shown
    assert "**" not in shown
    assert chat.program.wait(10) == 0


def test_control_c_stops_an_answer_and_keeps_what_came(terminal):
    chat = terminal("chat", "-m", SLOW)
    chat.until(PROMPT)
    chat.type("about zebras\r")
    chat.until("zebras")
    time.sleep(0.5)
    chat.type("\x03")
    shown = chat.until("stopped; what came is kept") + chat.until(PROMPT)
    chat.type("/quit\r")

    assert "Traceback" not in shown + chat.rest()
    assert chat.program.wait(10) == 0


def test_control_c_at_the_prompt_clears_the_line(terminal):
    chat = terminal("chat", "-m", FAST)
    chat.until(PROMPT)
    chat.type("never sent\x03")
    chat.until(PROMPT)
    chat.type("about lions\r")
    shown = chat.until(" out") + leave(chat)

    assert "lions" in shown
    assert "Traceback" not in shown


def test_escape_enter_and_backslash_enter_begin_a_new_line(terminal, tmp_path):
    chat = terminal("chat", "-m", FAST)
    chat.until(PROMPT)
    chat.type("one\x1b\rtwo\\\rthree\r")
    chat.until(" out")
    leave(chat)
    written = tmp_path.joinpath("unbroken", "chat-history")

    assert "+one\n+two\n+three\n" in written.read_text()
    assert written.stat().st_mode & 0o077 == 0


def test_a_block_taller_than_the_window_is_printed_once_and_whole(terminal):
    rows = "%0A".join(f"row{at:03}" for at in range(60))
    chat = terminal("chat", "-m", f"sim/m?ttft=0&tps=400&text=```%0A{rows}%0A```")
    chat.until(PROMPT)
    chat.type("x\r")
    shown = chat.until(" out")
    leave(chat)
    whole = shown[shown.rindex("row000") :]

    assert [at for at in range(60) if whole.count(f"row{at:03}") != 1] == []
    assert shown.count("row000") < 20


WITHOUT = "import sys; sys.modules['rich'] = None; from unbroken.cli import main; sys.exit(main())"


def test_without_its_extra_it_says_what_to_install(terminal):
    chat = terminal("chat", "-m", FAST, interpreter=("-c", WITHOUT))
    shown = chat.rest()

    assert "pip install 'unbroken[cli]'" in shown
    assert "Traceback" not in shown
    assert chat.program.wait(10) == 2


def test_control_c_ends_a_piped_conversation(started):
    chat = started("chat", "-m", SLOW, stdin=subprocess.PIPE)
    chat.stdin.write(b"about zebras\nand lions\n")
    chat.stdin.flush()
    chat.stdout.read(5)
    chat.send_signal(signal.SIGINT)

    assert chat.wait(20) == 130
    assert b"Traceback" not in chat.stderr.read()
