"""Install a model server that is not ours, llama.cpp's, into `.venv-engine`, for
tests/engines/test_real_engine.py, which is skipped without it.

    python scripts/real_engine.py          install (needs cmake and a C++ compiler; some minutes)
    python scripts/real_engine.py serve    serve a tiny random model on port 8080

The source comes from PyPI with llama-cpp-python, the version below; `llama-server` is built too,
without its web page. The model is made on the spot: nothing else is downloaded.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-engine"
PACKAGES = ["llama-cpp-python[server]==0.3.36", "gguf==0.19.0"]
SWITCHES = {
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_TOOLS_INSTALL": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # it would be fetched from elsewhere
    "LLAMA_OPENSSL": "OFF",
    "LLAVA_BUILD": "OFF",
    "CMAKE_C_FLAGS_RELEASE": "-O1",  # half the time to build; the model is tiny
    "CMAKE_CXX_FLAGS_RELEASE": "-O1",
}


def main() -> int:
    """Install, or serve."""
    if sys.argv[1:] == ["serve"]:
        with tempfile.TemporaryDirectory() as directory:
            return subprocess.call(command(Path(directory), 8080), env=environment())
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if missing:
        print(f"real_engine: {' and '.join(missing)} needed to build it", file=sys.stderr)
        return 1
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", VENV], check=True)
    switches = " ".join(f"-D{name}={value}" for name, value in SWITCHES.items())
    env = {**os.environ, "CMAKE_ARGS": switches}
    return subprocess.call([*_installer(), *PACKAGES], env=env)


def server() -> Path | None:
    """The program, if it is installed."""
    return next(VENV.glob("lib/python3*/site-packages/bin/llama-server"), None)


def environment() -> dict[str, str]:
    """Its own libraries are beside it."""
    program = server()
    assert program is not None, "run `python scripts/real_engine.py` first"
    return {**os.environ, "LD_LIBRARY_PATH": str(program.parent.parent / "lib")}


def command(directory: Path, port: int) -> list[str]:
    """What serves a tiny random model, which is written into `directory`."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--no-webui"]
    exact = ["-t", "1", "-fa", "off", "-ctk", "f32", "-ctv", "f32"]  # the same whatever came before
    return [str(server()), "-m", _model(directory), "--alias", "tiny", "-c", "4096", *exact, *where]


def binding(directory: Path, port: int) -> list[str]:
    """The same by the server that llama-cpp-python has of its own."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "4096", "--n_threads", "1"]
    return [
        str(VENV / "bin" / "python"),
        "-m",
        "llama_cpp.server",
        "--model",
        _model(directory),
        "--model_alias",
        "tiny",
        *where,
    ]


def _model(directory: Path) -> str:
    model = directory / "tiny.gguf"
    writer = ROOT / "tests" / "engines" / "tiny_model.py"
    subprocess.run([VENV / "bin" / "python", writer, model], check=True)
    return str(model)


def _installer() -> list[str]:
    """uv if there is one, else the machine's pip."""
    python = str(VENV / "bin" / "python")
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", python]
    return [sys.executable, "-m", "pip", "--python", python, "install"]


if __name__ == "__main__":
    sys.exit(main())
