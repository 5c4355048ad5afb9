"""CONTRIBUTING.md's examples are short, and run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.quick import QUICK

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = re.findall(
    r"^## (.*?)\n.*?```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
)


def test_each_kind_of_addition_has_its_example() -> None:
    assert [title.split(":")[0] for title, _ in EXAMPLES] == [
        "A filter",
        "A signal",
        "A keep rule",
        "A source",
        "A benchmark",
        "A language",
        "A chip",
        "An ablation",
    ]


@pytest.mark.parametrize(("title", "program"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_is_short_and_runs(title: str, program: str, tmp_path: Path) -> None:
    assert len([line for line in program.splitlines() if line]) <= 15
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | QUICK
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
