"""An evaluation killed at random moments ends as one that was not: no sample lost, none twice, the same rows."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Generates and judges at once, by a model whose answers follow from what it is asked.
EVALUATION = """
import sys
from collections import namedtuple
from pathlib import Path
from opencoder_jax.benchmarks.problems import OWN, Benchmark, function_problems
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.generate import sample
from opencoder_jax.evaluation.run import judge, sandbox
from opencoder_jax.evaluation.tasks import task_of

Said = namedtuple("Said", "text tokens finish_reason")
output, count, each = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
own = function_problems(Benchmark.read(OWN))
problems = [own[n % len(own)]._replace(task_id=f"many/{n}") for n in range(count)]
tasks = [task_of(problem) for problem in problems]
solutions = {task.text: problem.solution for task, problem in zip(tasks, problems)}
config = EvaluateConfig(samples_per_problem=each, prompts_at_once=16, workers=2, cpu_seconds=2)

def generate(prompts, stops, seeds):
    for number, (prompt, seed) in enumerate(zip(prompts, seeds)):
        right = solutions[prompt] if seed % 3 else "    return None\\n"
        yield number, Said(f"    number = {seed}\\n{right}", [1], "stop")

with sandbox(config) as jail:
    samples = sample(tasks, config, 7, generate, output / "samples.jsonl")
    paths = {"strict": output / "rows.jsonl", "opencoder": output / "rows.opencoder.jsonl"}
    judge(tasks, samples, config, jail, paths)
"""
NAMES = ("samples.jsonl", "rows.jsonl", "rows.opencoder.jsonl")


def lines(output: Path) -> int:
    return sum((output / name).read_bytes().count(b"\n") for name in NAMES if (output / name).exists())


def contents(output: Path) -> list[list[dict[str, Any]]]:
    """The files' lines without what a clock says."""
    clock = ("seconds", "cpu_seconds", "memory_bytes")
    return [
        [
            {name: value for name, value in json.loads(line).items() if name not in clock}
            for line in (output / file).read_text().splitlines()
        ]
        for file in NAMES
    ]


@pytest.mark.parametrize(
    ("count", "each", "kills"), [(6, 2, 1), pytest.param(164, 5, 20, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_random_moments_it_ends_with_the_rows_of_one_that_was_not(
    tmp_path: Path, count: int, each: int, kills: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for place in (whole, cut):
        place.mkdir()
    command = [sys.executable, "-c", EVALUATION]
    rest = [str(count), str(each)]
    subprocess.run([*command, whole, *rest], cwd=ROOT, check=True, capture_output=True)
    moments = sorted(random.Random(0).sample(range(3 * count * each), kills))
    killed = 0
    for moment in moments:
        process = subprocess.Popen([*command, cut, *rest], cwd=ROOT, stderr=subprocess.DEVNULL)
        while lines(cut) < moment and process.poll() is None:
            os.sched_yield()
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed >= kills // 2
    subprocess.run([*command, cut, *rest], cwd=ROOT, check=True, capture_output=True)
    assert contents(cut) == contents(whole)
    assert len(contents(cut)[0]) == count * each
