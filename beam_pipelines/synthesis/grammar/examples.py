"""Values to try a task on, and what it gives for them: what can't be tried isn't asked.

The programs are the grammar's own, so they run here; whatever else is synthesised runs in the sandbox.
"""

import pickle
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from opencoder_jax.beam_pipelines.synthesis.grammar.programs import Solution
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import Composition, Parameter
from opencoder_jax.beam_pipelines.synthesis.grammar.types import OPEN, TYPES

TRIES = 24  # inputs that each program is run on
SHOWN = 60  # characters of a value that a person is shown, at most


class Trial(NamedTuple):
    """Arguments and what comes out."""

    arguments: tuple[Any, ...]
    result: Any

    def call(self, name: str) -> str:
        return f"{name}({', '.join(map(repr, self.arguments))})"


def examples(task: Composition, programs: Sequence[Solution], rng: random.Random) -> list[Trial] | str:
    """What the task gives for inputs of growing size; or why it isn't asked.

    Every program is run on every input, and all must agree.
    """
    inputs = [
        tuple(_argument(task, parameter, rng, number % 6) for parameter in task.parameters) for number in range(TRIES)
    ]
    functions = [compile_function(program.lines, task.parameters) for program in programs]
    found: list[Trial] = []
    for arguments in inputs:
        results, kept = [], pickle.dumps(arguments)  # several times as fast as copy.deepcopy
        for function in functions:
            try:
                results.append(function(*pickle.loads(kept)))
            except (ValueError, IndexError, KeyError, ZeroDivisionError, TypeError, OverflowError) as error:
                return f"{type(error).__name__} in a program"
        if any(result != results[0] or type(result) is not type(results[0]) for result in results):
            return "programs disagree"
        found.append(Trial(arguments, results[0]))
    if len({repr(example.result) for example in found}) < (2 if task.gives == "bool" else 4):
        return "always the same"
    if all(example.result == example.arguments[0] for example in found):
        return "changes nothing"
    if max(len(repr(example.result)) for example in found) > 400:
        return "too large"
    return found


def compile_function(lines: Sequence[str], parameters: Sequence[Parameter]) -> Any:
    """The function with this body."""
    names = ", ".join(parameter.name for parameter in parameters)
    body = "\n".join(f"    {line}" for line in lines)
    space: dict[str, Any] = {}
    exec(f"def function({names}):\n{body}\n", space)
    return space["function"]


def shown(found: Sequence[Trial], rng: random.Random, count: int) -> list[Trial]:
    """Examples for the text of a task: short, and with different results."""
    short = [each for each in found if len(repr(each.result)) + len(repr(each.arguments)) <= SHOWN]
    rng.shuffle(short)
    differing = list({repr(each.result): each for each in short}.values())
    return differing[:count]


def _argument(task: Composition, parameter: Parameter, rng: random.Random, size: int) -> Any:
    for letter, value in task.constants.items():
        if value == parameter:
            return OPEN[letter][2](rng)
    return TYPES[parameter.type].draw(rng, max(size, 1) if parameter.full else size)
