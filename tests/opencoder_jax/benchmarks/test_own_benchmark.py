"""A benchmark of one's own is one file; fields of other names are one row: CONTRIBUTING.md shows the first."""

import json
from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate, DecontaminateConfig
from opencoder_jax.benchmarks import problems
from opencoder_jax.benchmarks.problems import FORMATS, Benchmark, Fields, function_problems
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.run import judge, sandbox
from opencoder_jax.recipe import UserError

PROMPT = 'def smallest_even(numbers):\n    """Return the smallest even number of a list, None where all are odd."""\n'
BODY = "    return min((number for number in numbers if number % 2 == 0), default=None)\n"
TEST = "def check(candidate):\n    assert candidate([3, 8, 4]) == 4\n    assert candidate([1]) is None\n"
ROW = {"task_id": "mine/0", "prompt": PROMPT, "entry_point": "smallest_even", "canonical_solution": BODY, "test": TEST}


def scored(benchmark: Benchmark, place: Path) -> list[str]:
    asked = function_problems(benchmark)
    samples = [Sample(each.task_id, 0, "completion", each.solution) for each in asked]
    config = EvaluateConfig(workers=1)
    with sandbox(config) as jail:
        return [row.outcome for row in judge(asked, samples, config, jail, place / "rows.jsonl")["strict"]]


def leaking(name: str) -> list[int]:
    config = DecontaminateConfig(benchmarks=(name,))
    kernel = Decontaminate(config, config.read())
    renamed = BODY.replace("number", "item")
    return [row for row, _ in kernel.leaks([PROMPT, "x = 1\n", f"def f(items):\n{renamed}", f"class A: pass\n{BODY}"])]


def test_one_file_is_scored_and_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    assert scored(Benchmark.read(str(file)), tmp_path) == ["passed"]
    assert leaking(str(file)) == [0, 2, 3]


def test_fields_of_other_names_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"prompt": "aufgabe", "canonical_solution": "antwort", "test": "probe"}
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({names.get(name, name): value for name, value in ROW.items()}) + "\n")
    with pytest.raises(UserError, match=r"mine\.jsonl, line 1: has none of the fields prompt, .*Add a row to FORMATS"):
        Benchmark.read(str(file))
    monkeypatch.setitem(FORMATS, "mine", Fields(("aufgabe",), ("antwort",), ("probe",)))
    assert scored(Benchmark.read(str(file)), tmp_path) == ["passed"]
    assert leaking(str(file)) == [0, 2, 3]


def test_a_file_in_the_room_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working directory is: this is how the project's own is found in an installed package."""
    monkeypatch.chdir(tmp_path)
    assert len(Benchmark.read("problems").problems) == len(Benchmark.read(problems.OWN).problems) >= 205
    (tmp_path / "problems.jsonl").write_text(json.dumps(ROW))
    assert len(Benchmark.read("problems.jsonl").problems) == 1  # a path means a file of the user's
