"""Asks a model for its answers, and keeps each batch of them as soon as it is there.

A base model goes on with the problem's prompt: stripped, and one newline behind it, as EvalPlus and OpenCodeEval do.
(The newline matters by points, so every run stores its prompts' form with its settings.) A chat model is asked for a
self-contained script in a fenced block, with the prompt in a block of its own.

The seed of an answer is a hash of (seed, problem, number of the answer): it depends neither on the batch nor on the
other problems, so a run that was killed and goes on gives the samples of one that was not.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from opencoder_jax import files
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.prompts import asked
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.samples import Kind, Sample, read_samples
from opencoder_jax.progress import Progress

Prompt = str | list[dict[str, str]]  # a text, or messages as opencoder_jax.data.chat takes them


class Answer(Protocol):
    """What is needed of an answer; opencoder_jax.inference's completions have it."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def finish_reason(self) -> str: ...


# (prompts, stop strings, one seed a prompt) -> one answer a prompt
Generate = Callable[[Sequence[Prompt], Sequence[str], Sequence[int]], Sequence[Answer]]


def sample(
    problems: Sequence[FunctionProblem], config: EvaluateConfig, seed: int, generate: Generate, path: Path
) -> list[Sample]:
    """Generates the answers that the file `path` lacks, and appends them.

    Returns:
        All answers, in the order of the problems and of their numbers.
    """
    kind: Kind = "solution" if config.chat else "completion"
    wanted = [(problem, number) for problem in problems for number in range(config.samples_per_problem)]
    with files.Appender(path) as file:
        have = {(answer.task_id, answer.sample) for answer in read_samples(path, problems)}
        missing = [(problem, number) for problem, number in wanted if (problem.task_id, number) not in have]
        with Progress("generate", len(wanted), "samples", len(have)) as progress:
            for start in range(0, len(missing), config.prompts_at_once):
                batch = missing[start : start + config.prompts_at_once]
                prompts = [prompt(problem, config.chat) for problem, _ in batch]
                seeds = [sample_seed(seed, problem.task_id, number) for problem, number in batch]
                answers = generate(prompts, config.stops(), seeds)
                for (problem, number), answer in zip(batch, answers, strict=True):
                    length = len(answer.tokens)
                    made = Sample(problem.task_id, number, kind, answer.text, answer.finish_reason, length)
                    file.write(made.line())
                progress.update_to(len(have) + start + len(batch))
    return read_samples(path, problems)


def prompt(problem: FunctionProblem, chat: bool) -> Prompt:
    """What a model is asked: a conversation that it answers, or a text that it continues."""
    text = problem.prompt.strip()
    return [{"role": "user", "content": asked(text)}] if chat else f"{text}\n"


def sample_seed(seed: int, task_id: str, number: int) -> int:
    """The seed of one answer, in 0 .. 2**31 - 1."""
    digest = hashlib.sha256(f"{seed}/{task_id}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
