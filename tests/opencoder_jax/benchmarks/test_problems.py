"""The project's problems are right: references pass, constants fail, examples hold. HumanEval's too, if it is here."""

import os
from pathlib import Path

import pytest

from opencoder_jax.benchmarks.judging import call
from opencoder_jax.benchmarks.problems import OWN, Benchmark, FunctionProblem, function_problems
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.run import judge, sandbox, verdict
from opencoder_jax.evaluation.scores.score import score
from opencoder_jax.sandbox.program import Program

PROBLEMS = function_problems(Benchmark.read(OWN))
CONFIG = EvaluateConfig(cpu_seconds=2)
ROOT = Path(__file__).resolve().parents[3]


def references(problems: list[FunctionProblem]) -> list[Sample]:
    return [Sample(problem.task_id, 0, "completion", problem.solution) for problem in problems]


def test_there_are_enough_problems_of_every_level() -> None:
    assert len(PROBLEMS) >= 205
    assert [problem.task_id for problem in PROBLEMS] == [f"cookbook/{number}" for number in range(len(PROBLEMS))]
    assert len({problem.entry_point for problem in PROBLEMS}) == len(PROBLEMS)
    for level in 1, 2, 3, 4:
        assert sum(problem.level == level for problem in PROBLEMS) >= 8


def test_references_pass(tmp_path: Path) -> None:
    with sandbox(CONFIG) as jail:
        rows = judge(PROBLEMS, references(PROBLEMS), CONFIG, jail, tmp_path / "rows.jsonl")["strict"]
    assert [(row.task_id, row.outcome, row.detail) for row in rows if row.outcome != "passed"] == []
    found = score(rows, [problem.task_id for problem in PROBLEMS], [1])
    assert found.pass_at_k["pass@1"].estimate == 1.0


# Each says something of the right type for some problems, and is right for none.
WRONG = ("return None", "return 0", "return ''", "return []", "return True")


@pytest.mark.slow
def test_constant_answers_fail() -> None:
    """Tests that a constant passes would let a model score that has learnt to return it."""
    attempts = [(problem, wrong) for problem in PROBLEMS for wrong in WRONG]
    with sandbox(CONFIG) as jail:
        outcomes = jail.map(call(problem, f"{problem.prompt}    {wrong}\n") for problem, wrong in attempts)
        passed = [attempts[index] for index, outcome in outcomes if verdict(outcome).outcome == "passed"]
    assert [(problem.task_id, wrong) for problem, wrong in passed] == []


def test_the_examples_of_every_prompt_hold() -> None:
    check = "\nimport doctest\nassert doctest.testmod().attempted > 0 and doctest.testmod().failed == 0\n"
    sources = [Program(problem.prompt + problem.solution + check) for problem in PROBLEMS]
    with sandbox(CONFIG) as jail:
        failed = [(PROBLEMS[index].task_id, outcome) for index, outcome in jail.map(sources) if outcome.status != "ok"]
    assert failed == []


def test_prompts_end_where_a_body_begins() -> None:
    for problem in PROBLEMS:
        assert problem.prompt.endswith('    """\n')
        assert problem.prompt.count(f"def {problem.entry_point}(") == 1
        assert all(len(line) <= 120 for line in problem.prompt.splitlines())


def test_humanevals_references_pass(tmp_path: Path) -> None:
    directory = Path(os.environ.get("BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
    files = list(directory.glob("**/HumanEval.jsonl.gz"))
    if not files:
        pytest.skip("HumanEval.jsonl.gz is not here; name its directory in BENCHMARKS")
    problems = function_problems(Benchmark.read(str(files[0])))
    assert len(problems) == 164
    config = EvaluateConfig(cpu_seconds=20)  # a few references take seconds
    with sandbox(config) as jail:
        rows = judge(problems, references(problems), config, jail, tmp_path / "rows.jsonl")["strict"]
    assert [(row.task_id, row.outcome, row.detail) for row in rows if row.outcome != "passed"] == []
