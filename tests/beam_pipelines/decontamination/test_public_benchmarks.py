"""Benchmarks as published, where they are at hand ($BENCHMARKS, or beside the repository): all are found."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate, DecontaminateConfig
from opencoder_jax.recipe import ROOT
from tests.beam_pipelines.decontamination.disguises import CHINESE, chinese, count_found, recalls
from tests.beam_pipelines.decontamination.planting import planted

DIRECTORY = Path(os.environ.get("BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
HOST = "import os\n\n\ndef listing(folder):\n    return sorted(os.listdir(folder))\n\n\nprint(listing('.'))\n"
WORDS = [f"word{number}" for number in range(1000)]


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


def benchmark_files() -> list[Path]:
    return sorted(file for kind in ("*.jsonl", "*.jsonl.gz") for file in DIRECTORY.rglob(kind))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")  # of their regular expressions
@pytest.mark.parametrize("file", benchmark_files(), ids=lambda file: file.name)
def test_no_disguise_hides_a_problem(file: Path) -> None:
    if file.name.startswith("example_"):
        pytest.skip("an example of the format, too small to be told from anybody's")
    config = DecontaminateConfig(benchmarks=(str(file),))
    kernel = Decontaminate(config, config.read())
    figures = list(recalls(kernel, kernel.benchmarks[0]))
    assert figures
    # A benchmark of a handful may miss none; one program of 164 is 0.6 %.
    assert not [figure for figure in figures if figure.found < 0.97 * figure.planted]


@pytest.mark.slow
def test_no_disguise_hides_a_chinese_problem(tmp_path: Path) -> None:
    file = DIRECTORY / "humaneval/HumanEval.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file}: not on this machine")
    config = DecontaminateConfig(benchmarks=(str(file),))
    texts = [chinese(problem.texts[0]) for problem in config.read()[0].problems]
    own = tmp_path / "chinese.jsonl"
    own.write_text("".join(json.dumps({"task_id": n, "prompt": text}) + "\n" for n, text in enumerate(texts)))
    config = DecontaminateConfig(benchmarks=(str(own),))
    kernel = Decontaminate(config, config.read())
    found = {name: count_found(kernel, list(map(disguise, texts))) for name, disguise in CHINESE.items()}
    assert not {name: count for name, count in found.items() if count < 0.97 * len(texts)}
    assert not count_found(kernel, [chinese(" ".join(random.Random(n).sample(WORDS, 60))) for n in range(200)])
