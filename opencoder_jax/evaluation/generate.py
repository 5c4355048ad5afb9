"""Asks a model for its answers, and keeps each as soon as it is there.

A base model goes on with the problem's prompt: stripped, and one newline behind it, as EvalPlus and OpenCodeEval do.
(The newline matters by points, so every run stores its prompts' form with its settings.) A chat model is asked for a
self-contained script in a fenced block, with the prompt in a block of its own.

The seed of an answer is a hash of (seed, problem, number of the answer): it depends neither on the batch nor on the
other problems, so a run that was killed and goes on gives the samples of one that was not.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from opencoder_jax import files
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.evaluation.answers.samples import Kind, Sample, read_samples
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.tasks import Exercise, task_of
from opencoder_jax.progress import Progress

Prompt = str | list[dict[str, str]]  # a text, or messages as opencoder_jax.tokenization.chat takes them


class Answer(Protocol):
    """What is needed of an answer; opencoder_jax.inference's completions have it."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def finish_reason(self) -> str | None: ...


# (prompts, stop strings, one seed a prompt) -> one answer a prompt, as they come, each with the number of its prompt
Generate = Callable[[Sequence[Prompt], Sequence[str], Sequence[int]], Iterable[tuple[int, Answer]]]


def sample(
    problems: Sequence[FunctionProblem | Exercise], config: EvaluateConfig, seed: int, generate: Generate, path: Path
) -> Iterator[Sample]:
    """Yields the answers of the file `path`, then generates those that it lacks, and appends and yields each.

    They stand in the file as they came, so that a failure loses none that is there.
    """
    tasks = [task_of(each) if isinstance(each, FunctionProblem) else each for each in problems]
    kind: Kind = "solution" if config.chat else "completion"
    wanted = [(task, number) for task in tasks for number in range(config.samples_per_problem)]
    with files.Appender(path) as file:
        have = read_samples(path, tasks, ordered=False)
        yield from have
        known = {(answer.task_id, answer.sample) for answer in have}
        missing = [(task, number) for task, number in wanted if (task.task_id, number) not in known]
        with Progress("generate", len(wanted), "samples", len(known)) as progress:
            for start, stops, batch in _batches(missing, config):
                prompts = [prompt(task, config.chat) for task, _ in batch]
                seeds = [sample_seed(seed, task.task_id, number) for task, number in batch]
                left = dict(enumerate(batch))
                for place, answer in generate(prompts, stops, seeds):
                    task, number = left.pop(place)
                    length = len(answer.tokens)
                    made = Sample(task.task_id, number, kind, answer.text, answer.finish_reason, length)
                    file.write(made.line())
                    yield made
                if left:
                    raise ValueError(f"{len(left)} of {len(batch)} prompts got no answer")
                progress.update_to(len(known) + start + len(batch))


def _batches(
    missing: Sequence[tuple[Exercise, int]], config: EvaluateConfig
) -> Iterator[tuple[int, tuple[str, ...], Sequence[tuple[Exercise, int]]]]:
    """Runs of what is missing, with the strings that end their answers, which are one for all of a run."""
    start = 0
    while start < len(missing):
        stops = missing[start][0].stop_strings(config)
        end = start
        while end < min(start + config.prompts_at_once, len(missing)) and missing[end][0].stop_strings(config) == stops:
            end += 1
        yield start, stops, missing[start:end]
        start = end


def prompt(task: Exercise, chat: bool) -> Prompt:
    """What a model is asked: a conversation that it answers, or a text that it continues."""
    return [{"role": "user", "content": task.message}] if chat else task.text


def sample_seed(seed: int, task_id: str, number: int) -> int:
    """The seed of one answer, in 0 .. 2**31 - 1."""
    digest = hashlib.sha256(f"{seed}/{task_id}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
