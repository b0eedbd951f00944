"""`keys` as a real process: what it says when something is wrong."""

import pytest


def test_without_the_server_it_says_what_to_install(unbroken, env, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "starlette.py").write_text("raise ModuleNotFoundError('starlette')")
    done = unbroken("keys", "list", PYTHONPATH=f"{tmp_path / 'bare'}:{env['PYTHONPATH']}")

    assert done.returncode == 2
    assert "pip install 'unbroken[server]'" in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("name", ["", " ", "x\ny", "a\tb", "\x1b[2J", "x" * 65])
def test_a_name_that_would_break_the_table_is_refused(unbroken, name):
    done = unbroken("keys", "create", name)
    listed = unbroken("keys", "list")

    assert done.returncode == 2
    assert "name" in done.stderr
    assert done.stdout == ""
    assert len(listed.stdout.splitlines()) == 1


def test_names_of_all_scripts_are_fine(unbroken):
    names = ["Telefon für Öl", "携帯", "x" * 64]
    made = [unbroken("keys", "create", name).returncode for name in names]

    assert made == [0, 0, 0]
    assert all(name in unbroken("keys", "list").stdout for name in names)
