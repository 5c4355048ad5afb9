"""docs/reference.md is what the commands' own help and the sources say today."""

import os
import subprocess
import sys
from pathlib import Path

from opencoder_jax.configurables import catalog
from opencoder_jax.recipe import ROOT


def test_the_reference_is_up_to_date(tmp_path: Path) -> None:
    """In a process of its own, as `compile` sets JAX's environment."""
    command = [sys.executable, "-m", "opencoder_jax", "reference", f"--output={tmp_path / 'reference.md'}"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    made = (tmp_path / "reference.md").read_text()
    assert (ROOT / "docs" / "reference.md").read_text() == made, "run: python -m opencoder_jax reference"
    for entry in catalog().values():
        assert all(f"| `{field.name}` |" in made for field in entry.fields.values())
