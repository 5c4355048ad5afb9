"""A file of prompts: every line answered once, however often the run was killed; mistakes told before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.prompts_file import Task, answer_file
from opencoder_jax.inference.requests import Piece
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat

SAMPLING = SamplingConfig(temperature=1.0, max_tokens=6)
LINES: list[dict[str, Any]] = [
    {"prompt": "def add(", "task_id": "first"},
    {"messages": [{"role": "user", "content": "hello"}]},
    {"prompt": "for i", "max_tokens": 3, "temperature": 0.0},
    {"prompt": "print", "stop": ["e"]},
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n\n".join(map(json.dumps, LINES)) + "\n")  # empty lines are none
    return path


def answers(output: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (output / "completions.jsonl").read_text().splitlines()]
    return sorted(rows, key=lambda row: (row["line"], row["sample"]))


def test_every_line_is_answered(engine: Engine, prompts: Path, tmp_path: Path) -> None:
    answer_file(engine, Task(prompts, SAMPLING, samples=2), tmp_path / "out")
    rows = answers(tmp_path / "out")
    assert [(row["line"], row["sample"]) for row in rows] == [(line, k) for line in (1, 3, 5, 7) for k in (0, 1)]
    assert [row.get("task_id") for row in rows[:3]] == ["first", "first", None]
    conversation = chat.encode_prompt(engine.tokenizer, [chat.turn("user", "hello")])
    said = engine.generate([conversation] * 2, SAMPLING, seeds=[4, 5])
    assert [row["text"] for row in rows[2:4]] == [completion.text for completion in said]
    greedy = SamplingConfig(max_tokens=3)
    (short,) = engine.generate([engine.tokenizer.encode("for i")], greedy)
    assert (rows[4]["text"], rows[5]["text"], rows[4]["tokens"]) == (short.text, short.text, 3)
    assert all("e" not in row["text"] for row in rows[6:])


class Killed(Exception):
    pass


class Dying:
    """An engine whose process ends after some steps."""

    def __init__(self, engine: Engine, steps: int) -> None:
        self._engine, self._steps = engine, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self, patience: float) -> list[Piece]:
        self._steps -= 1
        if self._steps < 0:
            while self._engine.busy:  # the next run has an engine of its own
                self._engine.step()
            raise Killed
        return self._engine.step(patience)


def test_a_run_that_was_killed_goes_on(engine: Engine, prompts: Path, tmp_path: Path) -> None:
    task = Task(prompts, SAMPLING, samples=3)
    answer_file(engine, task, tmp_path / "whole")
    output = tmp_path / "killed"
    for steps in range(1, 30):
        try:
            answer_file(Dying(engine, steps), task, output)  # type: ignore[arg-type]
        except Killed:
            with (output / "completions.jsonl").open("a") as file:
                file.write('{"line": 1, "sam')  # it was writing
        else:
            break
    assert answers(output) == answers(tmp_path / "whole")
    before = (output / "completions.jsonl").read_bytes()
    answer_file(engine, task, output)
    assert (output / "completions.jsonl").read_bytes() == before


def test_other_answers_are_not_mixed_in(engine: Engine, prompts: Path, tmp_path: Path) -> None:
    answer_file(engine, Task(prompts, SAMPLING), tmp_path / "out")
    for other in (Task(prompts, SamplingConfig(max_tokens=6)), Task(prompts, SAMPLING, samples=2)):
        with pytest.raises(UserError, match="holds answers of another task"):
            answer_file(engine, other, tmp_path / "out")
    prompts.write_text(json.dumps(LINES[0]) + "\n")
    with pytest.raises(UserError, match="other prompts"):
        answer_file(engine, Task(prompts, SAMPLING), tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"text": "a"}', "'text' is one of the answer's"),
        ('{"question": "a"}', "either prompt"),
        ('{"prompt": 3}', "either prompt"),
        ('{"prompt": "a", "messages": []}', "either prompt"),
        ('{"messages": []}', "at least one message"),
        ('{"messages": [{"role": "cat", "content": "a"}]}', "cat"),
        ('{"prompt": ""}', "empty"),
        ('{"prompt": "\\ud800"}', "surrogate"),
        ('{"prompt": "a", "max_tokens": 500}', "context of 256"),
        ('{"prompt": "a", "temperature": -1}', "temperature=-1"),
        ('{"prompt": "a", "temperature": "hot"}', "temperature='hot'"),
        ('{"prompt": "a", "stop": "x"}', "list of strings"),
        ('{"prompt": "a", "stop": [""]}', "list of strings"),
    ],
)
def test_a_wrong_line_is_told_before_anything_runs(engine: Engine, tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(UserError, match=words) as error:
        answer_file(engine, Task(path, SAMPLING), tmp_path / "out")
    assert f"{path}, line 2: " in str(error.value)
    assert not (tmp_path / "out").exists()
