"""HumanEval and MBPP as published, where they are at hand ($BENCHMARKS, or beside the repository): all are found."""

import os
from collections import Counter
from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate, DecontaminateConfig
from opencoder_jax.recipe import ROOT
from tests.beam_pipelines.decontamination.planting import planted

DIRECTORY = Path(os.environ.get("BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
HOST = "import os\n\n\ndef listing(folder):\n    return sorted(os.listdir(folder))\n\n\nprint(listing('.'))\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")  # of their regular expressions
@pytest.mark.parametrize("name", ["humaneval/HumanEval.jsonl.gz", "mbpp/mbpp.jsonl"])
def test_public_problems_are_found(name: str) -> None:
    file = DIRECTORY / name
    if not file.exists():
        pytest.skip(f"{file}: not on this machine")
    config = DecontaminateConfig(benchmarks=(str(file),))
    kernel = Decontaminate(config, config.read())
    total: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for number, problem in enumerate(kernel.problems):
        plants = list(planted(problem, HOST, number))
        caught = {row for row, _ in kernel.leaks([plant.text for plant in plants])}
        total.update(plant[:2] for plant in plants)
        found.update(plant[:2] for row, plant in enumerate(plants) if row in caught)
    shares = {kind: found[kind] / count for kind, count in total.items()}
    at_least = {"tests": 0.98, "solution renamed": 0.9}
    below = {
        kind: share for kind, share in shares.items() if share < at_least.get(" ".join(kind), at_least.get(kind[0], 1))
    }
    assert not below
