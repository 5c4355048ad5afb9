"""The docs site builds without a warning, and the notebook in it runs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.make_build import MODULES, ROOT
from tests.run_notebook import run

NOTEBOOK = ROOT / "docs" / "miniature.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_was_run_from_top_to_bottom() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert all(output.output_type != "error" for cell in code_cells(notebook) for output in cell.outputs)
    assert any("image/png" in output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """What it counts is what the stored one shows; rates and times aren't printed."""
    ran, stored = run(NOTEBOOK, tmp_path), nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.source for cell in ran.cells] == [cell.source for cell in stored.cells]
    assert [len(cell.outputs) for cell in code_cells(ran)] == [len(cell.outputs) for cell in code_cells(stored)]
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_site_builds_with_every_room(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    modules = [module for module, file in MODULES.items() if not file.name.startswith("__")]
    assert [module for module in modules if f'id="{module}"' not in pages] == []
