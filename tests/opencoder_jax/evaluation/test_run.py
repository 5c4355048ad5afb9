"""Judging and generating: what the rows say, cheats, equal programs, and going on after a kill."""

import ast
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from opencoder_jax.benchmarks.problems import OWN, Benchmark, FunctionProblem, function_problems
from opencoder_jax.benchmarks.prompts import INSTRUCTION
from opencoder_jax.evaluation import run
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.generate import Prompt, sample, sample_seed
from opencoder_jax.evaluation.run import sandbox
from opencoder_jax.evaluation.scores.rows import Profile, Row, read_rows
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.pool import Sandbox

ROOT = Path(__file__).resolve().parents[3]
PROBLEMS = function_problems(Benchmark.read(OWN))
ADD = PROBLEMS[0]
CONFIG = EvaluateConfig(cpu_seconds=1, workers=2)


@pytest.fixture(scope="module")
def jail() -> Iterator[Sandbox]:
    with sandbox(CONFIG) as jail:
        yield jail


def answers(problem: FunctionProblem, *texts: str) -> list[Sample]:
    return [Sample(problem.task_id, number, "solution", text) for number, text in enumerate(texts)]


def judge(
    problems: Sequence[FunctionProblem], samples: Sequence[Sample], config: EvaluateConfig, jail: Sandbox, path: Path
) -> list[Row]:
    return run.judge(problems, samples, config, jail, path)["strict"]


def timeless(rows: Sequence[Row]) -> list[Row]:
    return [row._replace(seconds=0, cpu_seconds=0, memory_bytes=0) for row in rows]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("def add(a, b): return a + b", "passed"),
        ("def add(a, b): return a + b\nprint(add(1, 2))\nassert add(1, 1) == 3", "passed"),
        ("def add(a: List, b): return a + b", "runtime_error"),
        ("def add(a, b): return a - b", "wrong_answer"),
        ("def add(a, b): return a + c", "runtime_error"),
        ("def add(a, b): return a + b\nreturn 3", "syntax_error"),
        ("def add(a, b):\n    while True: pass", "timeout"),
        ("def add(a, b): return [0] * 10**12", "memory"),
        ("import os\ndef add(a, b): os._exit(0)", "exited"),
        ("class E(int):\n    __eq__ = lambda self, other: True\ndef add(a, b): return E()", "wrong_answer"),
        ("def add(a, b):\n    while True: print('x' * 9999)", "output_limit"),
        ("import ctypes\ndef add(a, b): ctypes.string_at(0)", "killed"),
        ("It is the sum.", "no_code"),
    ],
)
def test_the_outcome_of_an_answer(jail: Sandbox, tmp_path: Path, text: str, outcome: str) -> None:
    (row,) = judge(PROBLEMS, answers(ADD, text), CONFIG, jail, tmp_path / "rows.jsonl")
    assert row.outcome == outcome, row
    assert list(read_rows(tmp_path / "rows.jsonl")) == [row]


def test_equal_programs_are_run_once_and_every_sample_has_its_row(jail: Sandbox, tmp_path: Path) -> None:
    # Programs that see the clock end differently each time that they are run.
    text = "import time\nraise ValueError(time.time_ns())\ndef add(a, b): pass"
    rows = judge(
        PROBLEMS, answers(ADD, text, "def add(a, b): return a + b", text), CONFIG, jail, tmp_path / "rows.jsonl"
    )
    assert [row.sample for row in rows] == [0, 1, 2]
    assert rows[0].detail == rows[2].detail != rows[1].detail


def test_syntax_trees_are_built_in_one_thread(jail: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 counts the depth of all threads' trees in one place: sound code would be refused now and then."""
    threads, plain = set[int](), ast.parse

    def parse(*given: Any, **named: Any) -> Any:
        threads.add(threading.get_ident())
        return plain(*given, **named)

    monkeypatch.setattr(ast, "parse", parse)
    samples = [Sample(problem.task_id, 0, "completion", problem.solution) for problem in PROBLEMS[:6]]
    paths: dict[Profile, Path] = {"strict": tmp_path / "rows.jsonl", "opencoder": tmp_path / "others.jsonl"}
    found = run.judge(PROBLEMS, samples, CONFIG, jail, paths)
    assert [row.outcome for rows in found.values() for row in rows] == ["passed"] * 12
    assert threads == {threading.get_ident()}


def test_judging_goes_on_where_it_was_cut(jail: Sandbox, tmp_path: Path) -> None:
    samples = [Sample(problem.task_id, 0, "completion", problem.solution) for problem in PROBLEMS[:12]]
    whole = judge(PROBLEMS, samples, CONFIG, jail, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for cut in (lines[:5], [*lines[:5], lines[5][:30]], []):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(b"".join(cut))
        again = judge(PROBLEMS, samples, CONFIG, jail, path)
        assert timeless(again) == timeless(whole)
        assert path.read_bytes().startswith(b"".join(lines[: min(5, len(cut))]))  # what was there was not run again
        assert len(list(read_rows(path))) == 12


def test_rows_of_other_samples_are_refused(jail: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    judge(PROBLEMS, answers(ADD, "def add(a, b): return a + b"), CONFIG, jail, path)
    with pytest.raises(UserError, match="rows of other samples"):
        judge(PROBLEMS, answers(PROBLEMS[1], "x"), CONFIG, jail, path)
    path.write_text('{"task_id": "cookbook/0"}\n')
    with pytest.raises(UserError, match="line 1: not a row"):
        judge(PROBLEMS, answers(ADD, "x"), CONFIG, jail, path)


class Said(NamedTuple):
    text: str
    tokens: list[int]
    finish_reason: str


class Parrot:
    """Answers with what it was asked and its seed; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(
        self, prompts: Sequence[Prompt], stops: Sequence[str], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Said]]:
        self.asked += len(prompts)
        said = [Said(f"{prompt} {seed}", [1, 2], "stop") for prompt, seed in zip(prompts, seeds, strict=True)]
        return enumerate(said)


def test_samples_do_not_depend_on_batches_or_kills(tmp_path: Path) -> None:
    config = EvaluateConfig(samples_per_problem=3, prompts_at_once=4)
    parrot = Parrot()
    whole = list(sample(PROBLEMS[:5], config, 7, parrot, tmp_path / "whole.jsonl"))
    assert [(one.task_id, one.sample) for one in whole] == [(f"cookbook/{n}", k) for n in range(5) for k in range(3)]
    assert parrot.asked == 15
    assert whole[0].text.startswith(ADD.prompt)
    assert whole[0].text.endswith(f'"""\n {sample_seed(7, ADD.task_id, 0)}')
    assert len({one.text for one in whole}) == 15
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:7]) + lines[7][:20])
    config = EvaluateConfig(samples_per_problem=3, prompts_at_once=5)
    again = list(sample(PROBLEMS[:5], config, 7, parrot, tmp_path / "cut.jsonl"))
    assert (again, parrot.asked) == (whole, 15 + 8)
    assert (tmp_path / "cut.jsonl").read_text() == "".join(lines)


def test_answers_are_kept_as_they_come_and_know_their_problems(tmp_path: Path) -> None:
    """The last is there first, then the server fails: it isn't asked for again, and none is missing at the end."""
    config, path, asked = EvaluateConfig(prompts_at_once=4), tmp_path / "samples.jsonl", []

    def generate(prompts: Sequence[Prompt], stops: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[int, Said]]:
        asked.append(len(prompts))
        yield len(prompts) - 1, Said(f"{prompts[-1]}", [1], "stop")
        if len(asked) == 1:
            raise UserError("expired")
        yield from ((number, Said(f"{prompt}", [1], "stop")) for number, prompt in enumerate(prompts[:-1]))

    with pytest.raises(UserError, match="expired"):
        list(sample(PROBLEMS[:4], config, 7, generate, path))
    found = list(sample(PROBLEMS[:4], config, 7, generate, path))
    assert asked == [4, 3]
    assert [one.task_id for one in found] == [f"cookbook/{number}" for number in (3, 2, 0, 1)]
    assert all(one.text == PROBLEMS[int(one.task_id.partition("/")[2])].prompt.strip() + "\n" for one in found)
    with pytest.raises(ValueError, match="2 of 4 prompts got no answer"):
        list(sample(PROBLEMS[:4], config, 7, lambda *_: enumerate([Said("", [], "stop")] * 2), tmp_path / "few.jsonl"))


def test_a_chat_model_is_asked_in_a_conversation(tmp_path: Path) -> None:
    asked: list[Prompt] = []

    def generate(prompts: Sequence[Prompt], stops: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[int, Said]]:
        asked.extend(prompts)
        assert stops == ()  # none can cut a right answer
        return enumerate([Said("", [], "length") for _ in prompts])

    (one,) = sample([ADD], EvaluateConfig(chat=True), 0, generate, tmp_path / "samples.jsonl")
    assert asked == [[{"role": "user", "content": f"{INSTRUCTION}\n```python\n{ADD.prompt.strip()}\n```\n"}]]
    assert (one.kind, one.finish_reason, one.tokens) == ("solution", "length", 0)


# Judges the project's first problems, whose references take their time.
SLOW = """
import sys
from pathlib import Path
from opencoder_jax.benchmarks.problems import OWN, Benchmark, function_problems
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.run import judge, sandbox
from opencoder_jax.evaluation.answers.samples import Sample
problems = function_problems(Benchmark.read(OWN))[:40]
wait = "    import time\\n    time.sleep(0.05)\\n"
samples = [Sample(problem.task_id, 0, "completion", wait + problem.solution) for problem in problems]
with sandbox(EvaluateConfig(workers=2)) as jail:
    judge(problems, samples, EvaluateConfig(), jail, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    rows = tmp_path / "cut.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOW, rows], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not rows.exists() or rows.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        os.sched_yield()
    process.kill()
    process.wait()
    before = rows.read_bytes()
    assert before.count(b"\n") < 40
    for path in rows, tmp_path / "whole.jsonl":
        subprocess.run([sys.executable, "-c", SLOW, path], cwd=ROOT, capture_output=True, check=True)
    assert rows.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert [row.outcome for row in read_rows(rows)] == ["passed"] * 40
    assert timeless(list(read_rows(rows))) == timeless(list(read_rows(tmp_path / "whole.jsonl")))
