"""A recipe at its true size, compiled for the TPUs that it is meant for: it fits, and attention is our kernel."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(
    ("recipe", "topology", "capacity"),
    [
        ("pretrain/opencoder_1p5b", "v5e:4x4", 15.75),
        ("pretrain/opencoder_8b", "v5p:4x4x4", 95),
        ("pretrain/opencoder_8b_v6e", "v6e:16x16", 31.25),
    ],
)
def test_a_recipe_fits_its_chips_and_runs_our_kernel(
    recipe: str, topology: str, capacity: float, tmp_path: Path
) -> None:
    output = tmp_path / "figures.json"
    command = [sys.executable, "-m", "opencoder_jax", "compile", f"--gin_file=gin_configs/{recipe}.gin"]
    command += [f"--topology={topology}", f"--output={output}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(output.read_text())
    assert sum(figures["memory_bytes"].values()) < capacity * 2**30
    kernels = figures["kernels"]
    assert kernels["attention_forward"]["by_schedule"]
    assert kernels["attention_backward"]["by_schedule"]
    assert figures["collectives"]["reduce-scatter"]["count"]  # else gradients are summed up whole
    assert figures["executed_flops"] > figures["model_flops"] * 0.85  # the kernels count what they say of themselves
