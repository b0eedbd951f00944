"""What ./dev does: sets up `.venv` when it is missing or stale, then runs a verb in it.

Standard library only, since it runs before anything is installed. The environment is made with
`venv --without-pip`, which works where distributions leave ensurepip out, and is filled by uv if
there is one, else by whatever pip this machine has. The package itself is installed as an
editable one, so that its command and its pytest plugin are there as users get them; its build
backend is in the lock for that.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, BENCH, PEERS = (ROOT / name for name in (".venv", ".venv-bench", ".venv-peers"))
LOCKS = {
    VENV: "requirements.lock",
    BENCH: "requirements-bench.lock",
    PEERS: "requirements-peers.lock",  # other people's programs, which tests run as processes
}
TOOLS = {"chromium": "chromium", "curl": "curl", "nginx": "nginx-light", "wget": "wget"}
"""Programs that some tests drive, and the Debian package of each."""

DEMO = "Explain the TCP handshake in 3 sentences."
VERBS: dict[str, tuple[str, list[str]]] = {
    "demo": ("stream an answer into the terminal", ["unbroken ask"]),
    "run": ("run the unbroken command with any arguments", ["unbroken"]),
    "test": ("run all tests; arguments go to pytest", ["pytest -q -n 4 --dist worksteal"]),
    "lint": ("check style and format", ["ruff format --check .", "ruff check"]),
    "types": ("check types", ["mypy"]),
    "bench": ("measure clients side by side", ["python benchmarks/clients.py"]),
    "docs": ("run every example in the documentation", ["pytest -q tests/test_docs.py"]),
}


def main() -> int:
    """Run the verb on the command line."""
    verb, rest = (sys.argv[1] if len(sys.argv) > 1 else "help"), sys.argv[2:]
    if verb not in VERBS:
        lines = [f"  {name:6} {meaning}" for name, (meaning, _) in VERBS.items()]
        print("usage: ./dev VERB [ARGUMENTS]\n", *lines, sep="\n", file=sys.stderr)
        return 0 if verb in ("help", "-h", "--help") else 2
    venv = BENCH if verb == "bench" else VENV
    with _alone():
        _set_up(venv)
        if verb == "test":
            _set_up(PEERS)
            _install_tools()
    if verb == "demo" and not rest:
        rest = [DEMO]
    return _all([command.split() for command in VERBS[verb][1]], rest, venv)


def _all(commands: list[list[str]], rest: list[str], venv: Path) -> int:
    """Run one after the other, in the environment; the last gets the arguments and the process."""
    path = f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(venv)}
    for program, *arguments in commands[:-1]:
        done = subprocess.run([str(venv / "bin" / program), *arguments], env=env, check=False)
        if done.returncode:
            return done.returncode
    program, *arguments = commands[-1]
    command = [str(venv / "bin" / program), *arguments, *rest]
    return os.execve(command[0], command, env)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One set-up at a time."""
    with (ROOT / "scripts/dev.py").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _set_up(venv: Path) -> None:
    """Make the environment if it is not the one that the lock describes."""
    stamp, key = venv / "stamp", _key(venv)
    if stamp.is_file() and stamp.read_text() == key:
        return
    print(f"setting up {venv.name} (once; takes some seconds)", file=sys.stderr)
    shutil.rmtree(venv, ignore_errors=True)
    if failed := _failure([sys.executable, "-m", "venv", "--without-pip", str(venv)]):
        sys.exit(failed)
    _fill(venv)
    stamp.write_text(key)  # last: what is half made is not done


def _install_tools() -> None:
    """Say what tests will skip for want of a program. A CI machine's root gets it installed."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)]
    if not missing:
        return
    install = ["apt-get", "install", "-qq", "--no-install-recommends", *missing]
    if os.environ.get("CI") and shutil.which("apt-get") and os.geteuid() == 0:
        failed = _failure(["apt-get", "update", "-qq"]) or _failure(install)
        print(failed or f"installed {' and '.join(missing)}", file=sys.stderr)
    else:
        print(f"some tests will be skipped; they need: {' '.join(install)}", file=sys.stderr)


def _key(venv: Path) -> str:
    """Changes when the packages, their versions or the Python change."""
    parts = [ROOT / LOCKS[venv], ROOT / "pyproject.toml", ROOT / "scripts/dev.py"]
    data = b"".join(part.read_bytes() for part in parts) + sys.version.encode() + bytes(ROOT)
    return hashlib.sha256(data).hexdigest()


def _fill(venv: Path) -> None:
    """Install with the first installer that can; what the others said is shown if none can."""
    said = ["dev: neither uv nor pip was found; install one (Debian: apt install python3-pip)"]
    lock = ["-r", str(ROOT / LOCKS[venv])]
    own = ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    for install in _installers(venv):
        failed = _failure([*install, *lock]) or _failure([*install, *own])
        if not failed:
            return
        said.append(failed)
    sys.exit("\n".join(said[1:] or said))


def _installers(venv: Path) -> Iterator[list[str]]:
    """uv, the machine's pip, and the pip that Python carries for ensurepip, as far as present."""
    python = str(venv / "bin/python")
    if uv := shutil.which("uv"):
        yield [uv, "pip", "install", "--quiet", "--python", python]
    if not _failure([sys.executable, "-m", "pip", "--version"]):
        yield [sys.executable, "-m", "pip", "--python", python, *_QUIET]
    for wheel in _bundled_pips():
        yield [python, f"{wheel}/pip", *_QUIET]


_QUIET = ["install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]


def _bundled_pips() -> list[Path]:
    """The pip wheel that Python or the distribution carries for ensurepip."""
    homes = [Path(os.__file__).parent / "ensurepip/_bundled", Path("/usr/share/python-wheels")]
    return [wheel for home in homes for wheel in sorted(home.glob("pip-*.whl"))]


def _failure(command: list[str]) -> str:
    """Run quietly; what it printed if it failed."""
    env = {"UV_SYSTEM_CERTS": "true", **os.environ}  # a company's own certificates count
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env
    )
    return f"{done.stdout}\ndev: this failed: {' '.join(command)}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
