"""Validation: what a teacher said is kept where running it bears it out, and said as a chat."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.synthesis.execution.verdicts import VerdictConfig
from opencoder_jax.beam_pipelines.synthesis.teacher import prompts
from opencoder_jax.beam_pipelines.synthesis.teacher.validate import Validate, ValidatedConfig, api_calls, misuse
from tests.stub_teacher import exercise

Batch = Callable[..., pa.RecordBatch]


def exercise_record(number: int, right: bool = True, **changes: Any) -> str:
    found = prompts.sections(exercise(number, right), prompts.template("educational").sections)
    assert isinstance(found, dict)
    solution = prompts.code(found["Solution"])
    record = {"pipeline": "educational", "task": found["Task"], "analysis": found["Analysis"], "teacher": "stub"}
    return json.dumps(record | {"solutions": [solution] * 2, "tests": prompts.code(found["Test"])} | changes)


API: dict[str, Any] = {
    "name": "statistics.quantiles",
    "package": "statistics",
    "version": "3",
    "signature": "(data, *, n=4)",
}
API |= {"accepts": [["data", "n"], 1, 1, False], "documentation": ""}


def package_record(source: str) -> str:
    answer = f"Use it.\n\n```python\n{source}```"
    return json.dumps({"pipeline": "package", "task": "Cut.", "answer": answer, "solutions": [source], "api": API})


def test_what_passes_becomes_a_chat_and_what_falls_is_told(batch: Batch) -> None:
    cut = "from statistics import quantiles\n\ndef cut(xs):\n    return quantiles(xs, n=2)\n\nprint(cut([1, 2, 3]))\n"
    given = batch(
        exercise_record(7),
        exercise_record(8, right=False),
        exercise_record(9, solutions=["def add_9(x):\n    # TODO\n    return x + 9\n"]),
        package_record(cut),
        package_record(cut.replace("n=2", "parts=2")),
        package_record(cut.replace("[1, 2, 3]", "[]")),
    )
    verdict = VerdictConfig(mutants=2, cpu_seconds=1)
    result = Validate(ValidatedConfig("chats", verdict))(given)
    texts = [json.loads(text) for text in result.table.column("text").to_pylist()]
    assert [[said["role"] for said in chat] for chat in texts] == [["user", "assistant"]] * 2
    assert texts[0][0]["content"] == "Write add_7(x), which adds 7."
    assert texts[0][1]["content"] == "Add.\n\n```python\ndef add_7(x):\n    return x + 7\n```"
    assert texts[1][1]["content"].startswith("Use it.")
    assert {(drop.row, drop.reason) for drop in result.drops} == {
        (1, "fails its tests"),
        (2, "placeholder"),
        (4, "gives an argument that the function doesn't have"),
        (5, "raises StatisticsError"),
    }
    assert result.counts["mutants: killed"] == result.counts["mutants: all"]
    assert result.table.column("kind").to_pylist() == ["chat", "chat"]
    (text,) = Validate(ValidatedConfig("snippets", verdict))(given.slice(0, 1)).table.column("text").to_pylist()
    assert text.startswith("def add_7(x):\n    return x + 7\n\n\nassert add_7(0) == 7\nassert ")
    exec(text, {})
    lone = batch(exercise_record(7, solutions=["def add_7(x):\n    return x + 7\n# \ud800"] * 2))
    (drop,) = Validate(ValidatedConfig("snippets", verdict))(lone).drops
    assert drop.reason == "solution: not Python"  # half a character, as models write it


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import statistics as s\ns.quantiles([1, 2], n=3)\n", ""),
        ("from statistics import quantiles as q\nq([1, 2])\n", ""),
        ("from statistics import quantiles\nquantiles(*[[1, 2]])\n", ""),
        ("from statistics import quantiles\nquantiles([1], 3)\n", "gives more arguments than the function takes"),
        ("from statistics import quantiles\nquantiles(n=3, m=2)\n", "gives an argument that the function doesn't have"),
        ("from statistics import quantiles\nquantiles()\n", "gives fewer arguments than the function needs"),
        ("def quantiles(xs):\n    return xs\nquantiles([1])\n", "never calls the function"),
        ("import numpy\nnumpy.quantiles([1])\n", "never calls the function"),
    ],
)
def test_a_call_is_held_against_the_signature(source: str, problem: str) -> None:
    assert misuse(source, API) == problem
    assert bool(api_calls(source, API["name"])) == (problem != "never calls the function")


def test_sections_are_found_however_they_are_marked() -> None:
    names = ("Task", "Solution")
    for task, solution in (("[Task]", "[Solution]"), ("**[Task]**", "## Solution"), ("Task:", "**Solution:**")):
        answer = f"Sure!\n{task}\nAdd.\n{solution}\n```python\n# [Task]\n[Task]\nx = 1\n```\n"
        found = prompts.sections(answer, names)
        assert isinstance(found, dict), task
        assert found["Task"] == "Add."
        assert prompts.code(found["Solution"]) == "# [Task]\n[Task]\nx = 1\n"
    assert prompts.sections("[Task]\nAdd.\n[Solution]\n", names) == "Solution"
    assert prompts.sections("Task\nAdd.\nSolution\nx", names) == "Task"


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    (message,) = prompts.template("educational").filled(text="{text} {task}")
    assert "{text} {task}" in message["content"]
    for name in prompts.FILES:
        assert prompts.template(name).prompt.strip()
