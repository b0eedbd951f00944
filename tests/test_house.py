"""The rules of the house, read from the source's syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unbroken

SRC = Path(unbroken.__file__).parent
ROOT = SRC.parent.parent
TESTS = Path(__file__).parent

FLOORS = {
    1: {
        "continuation",
        "errors",
        "events",
        "messages",
        "native",
        "partial",
        "parts",
        "ready",
        "response",
        "schema",
        "structured",
    },
    2: {"wire", "transport", "stores", "metrics"},
    3: {"simulator"},
    4: {"providers"},
    5: {"engine"},
    6: {"client"},
    7: {"server", "__init__"},
    8: {"cli", "deploy"},
    9: {"__main__"},
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# Where an import may stand inside a function, and why.
LAZY = {
    "__init__.py": "importlib.metadata is slow to import",
    "client": "HTTP libraries and .env are loaded at their first use",
    "cli": "a server is heavy, and chat needs an extra",
    "providers/registry.py": "importlib.metadata is slow to import",
    "stores/registry.py": "importlib.metadata is slow to import",
    "providers/bedrock.py": "botocore is an extra, and heavy",
    "deploy/_aws_calls.py": "botocore is an extra, and heavy",
    "metrics/prices.py": "the price list is an extra",
    "schema.py": "the validator is loaded when an answer is checked",
    "partial.py": "the parser of partial JSON is loaded when somebody looks at half an answer",
    "simulator/pytest_plugin.py": "only tests that use a fixture pay for it",
}
WAITING = {"asyncio", "socket", "time", "random", "threading", "ssl", "select", "http", "urllib3"}
WAITING |= {"aiohttp", "requests", "httpx", "secrets", "uuid", "datetime"}
SANS_IO = ("wire/", "engine/", *(f"simulator/{n}.py" for n in ("scenario", "player", "fake_text")))
BANNED = {"utils", "helpers", "manager", "handler", "types", "http", "common"}
SDKS = {"openai", "anthropic", "boto3", "google", "mistralai", "litellm"}


def sources():
    return {path.relative_to(SRC).as_posix(): path.read_text("utf-8") for path in SRC.rglob("*.py")}


def imported(text):
    """Every module a source names in an import, wherever the import stands."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def climbs(name, text):
    """Imports of a source that do not go down."""
    room = name.split("/")[0].removesuffix(".py")
    for module in imported(text):
        target = room_of(module)
        if not module.startswith("unbroken") or target not in FLOOR_OF or target == room:
            continue
        level = FLOOR_OF[target] < FLOOR_OF[room]
        same_ground = FLOOR_OF[room] == FLOOR_OF[target] == 1
        if module != "unbroken" and not level and not same_ground:
            yield f"{name} imports {module}"


def test_imports_run_only_downwards():
    assert [fault for name, text in sources().items() for fault in climbs(name, text)] == []


def test_the_rule_of_floors_can_fail():
    assert list(climbs("wire/sse.py", "from unbroken.engine.policy import Timeouts")) != []
    assert list(climbs("wire/sse.py", "from unbroken.stores.base import Store")) != []


def graph():
    modules = {f"unbroken.{n[:-3].replace('/', '.')}".removesuffix(".__init__") for n in sources()}
    return {
        module: without_packages({found for found in imported(text) if found in modules}) - {module}
        for name, text in sources().items()
        for module in [f"unbroken.{name[:-3].replace('/', '.')}".removesuffix(".__init__")]
    }


def without_packages(found):
    """Drop a package that is named only as the home of a module that is imported from it."""
    homes = {module.rpartition(".")[0] for module in found}
    return {module for module in found if module not in homes}


def circle(edges):
    """A circle in the graph, or None."""
    done = set()

    def visit(node, path):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for following in sorted(edges.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(edges) if (found := visit(node, []))), None)


def test_there_is_no_circle():
    assert circle(graph()) is None


def test_the_rule_of_circles_can_fail():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


@pytest.mark.parametrize("name", [n for n in sources() if n.startswith(SANS_IO)])
def test_what_must_not_wait_imports_nothing_that_waits(name):
    found = {module.split(".")[0] for module in imported(sources()[name])}

    assert found & WAITING == set()


@pytest.mark.parametrize("name", sorted(sources()))
def test_files_stay_within_400_lines(name):
    assert sources()[name].count("\n") <= 400


def functions(text):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def code_lines(function, text):
    """Lines of a function that are neither docstring nor comment nor empty."""
    skip = set()
    if ast.get_docstring(function) is not None:
        skip = set(range(function.body[0].lineno, function.body[0].end_lineno + 1))
    lines = text.splitlines()
    span = range(function.lineno, function.end_lineno + 1)
    kept = (lines[at - 1].strip() for at in span if at not in skip)
    return sum(bool(line) and not line.startswith("#") for line in kept)


def sizes():
    return {
        f"{name}:{f.lineno} {f.name}": code_lines(f, text)
        for name, text in sources().items()
        for f in functions(text)
    }


def test_functions_stay_within_40_lines_and_9_on_average():
    measured = sizes()

    assert {name: size for name, size in measured.items() if size > 40} == {}
    assert sum(measured.values()) / len(measured) <= 9


def lazy_imports(text):
    return [
        node.lineno
        for function in functions(text)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


@pytest.mark.parametrize("name", sorted(sources()))
def test_imports_stand_at_the_top(name):
    assert lazy_imports(sources()[name]) == [] or any(name.startswith(room) for room in LAZY)


@pytest.mark.parametrize("name", sorted(sources()))
def test_no_file_has_a_banned_name(name):
    assert set(name.removesuffix(".py").split("/")) & BANNED == set()


@pytest.mark.parametrize("name", sorted(sources()))
def test_no_vendor_sdk_is_used(name):
    assert {module.split(".")[0] for module in imported(sources()[name])} & SDKS == set()


PLAIN = {"Any", "Fields"}  # of what names no struct


def decoded_in_functions(text):
    """The names of the structs that msgspec may meet first inside of a function."""
    for function in functions(text):
        given = {arg.arg for arg in [*function.args.args, *function.args.kwonlyargs]}
        for call in ast.walk(function):
            match call:
                case ast.Call(func=ast.Attribute(attr="convert"), args=[_, kind]):
                    pass
                case ast.Call(func=ast.Attribute(attr="value" | "Decoder"), args=[kind, *_]):
                    pass
                case ast.Call(keywords=[ast.keyword(arg="type", value=kind)]):
                    pass
                case _:
                    continue
            names = {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)}
            yield from {name for name in names - given if name.strip("_")[:1].isupper()} - PLAIN


def made_ready(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and "ready" in map(ast.unparse, node.decorator_list):
            yield node.name


def test_what_threads_decode_is_made_ready():
    """See ready.py: a struct that is decoded first by two threads at once ends the process."""
    texts = sources().values()
    decoded = {name for text in texts for name in decoded_in_functions(text)}

    assert {"Request", "Scenario", "Settings"} <= decoded
    assert decoded - {name for text in texts for name in made_ready(text)} == set()


def test_the_blocking_client_is_the_one_that_is_generated():
    command = [sys.executable, "scripts/generate_sync.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_front_door_has_at_most_40_names_and_each_is_there():
    assert len(unbroken.__all__) <= 40
    assert all(hasattr(unbroken, name) for name in unbroken.__all__)


def test_importing_loads_no_third_party_module_but_msgspec():
    code = "import sys; a = set(sys.modules); import unbroken; print(*(set(sys.modules) - a))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {module.split(".")[0] for module in done.stdout.split()}

    # msgspec brings typing_extensions where it is installed; it is not a dependency of ours
    assert roots - sys.stdlib_module_names - {"unbroken", "msgspec", "typing_extensions"} == set()


DOUBLES = ("unittest.mock", "MagicMock", "monkeypatch.setattr", "mock.patch")


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_no_test_uses_a_mock(path):
    code = "\n".join(ast.unparse(node) for node in ast.parse(path.read_text("utf-8")).body)
    if path.name != "test_house.py":
        assert [word for word in DOUBLES if word in code] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ruff check", "ruff format --check .", "mypy"])
def test_the_checks_are_clean(command):
    tool, *arguments = command.split()
    program = Path(sys.executable).parent / tool
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
