"""The example's template, and that it names what is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "aws"
LINT = ROOT / ".venv-peers" / "bin" / "cfn-lint"

linted = pytest.mark.skipif(
    not LINT.exists() and "CI" not in os.environ, reason="cfn-lint is not in .venv-peers"
)


def lint(template):
    done = subprocess.run([LINT, "--format", "json", template], capture_output=True, text=True)
    return [f"{fault['Rule']['Id']} {fault['Message']}" for fault in json.loads(done.stdout)]


@linted
def test_cfn_lint_accepts_the_template():
    assert lint(EXAMPLE / "template.yaml") == []


@linted
def test_cfn_lint_would_see_a_mistake(tmp_path):
    wrong = tmp_path / "template.yaml"
    text = (EXAMPLE / "template.yaml").read_text("utf-8")
    wrong.write_text(text.replace("RESPONSE_STREAM", "RESPONSE_STREAMING"), "utf-8")

    assert lint(wrong) != []


def test_every_function_of_the_template_is_there():
    named = re.findall(r"Handler: (app\.\w+)", (EXAMPLE / "template.yaml").read_text("utf-8"))
    code = f"import app; print(*map(callable, [{', '.join(named)}]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLE, capture_output=True, text=True)

    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_the_bootstrap_can_be_executed():
    assert os.access(EXAMPLE / "bootstrap", os.X_OK)
