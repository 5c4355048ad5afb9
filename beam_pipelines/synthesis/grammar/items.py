"""Items: a task with a name, its words, programs and examples, ready to be written down in any form."""

import builtins
import keyword
import random
import re
from collections.abc import Collection
from typing import NamedTuple

import xxhash

from opencoder_jax.beam_pipelines.synthesis.grammar.examples import Trial, examples, shown
from opencoder_jax.beam_pipelines.synthesis.grammar.programs import Solution, programs
from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import SCOPES, Composition, Scope, draw
from opencoder_jax.beam_pipelines.synthesis.grammar.types import TYPES
from opencoder_jax.beam_pipelines.synthesis.grammar.wording import sentence

# Names that say nothing, and what may stand before one that says something.
_PLAIN = (
    "solve",
    "compute",
    "f",
    "func",
    "calculate",
    "process",
    "run",
    "answer",
    "apply_it",
    "transform",
    "task",
    "g",
)
_VERBS = ("", "", "", "get_", "find_", "make_", "compute_", "calc_", "return_", "give_")
_TRUE = ("", "is_", "has_", "check_", "test_if_")


class Item(NamedTuple):
    """A task as it's put to someone.

    Attributes:
        number: that it was drawn by.
        name: of the function.
        text: what it does, in a sentence or two.
        programs: that solve it; the first is what is shown most often.
        examples: all that was tried.
        shown: the few that the text gives, maybe none.
        annotated: whether the signature has types.
        plain: whether it's asked for in one way, and answered with its first program.
    """

    number: int
    task: Composition
    name: str
    text: str
    programs: tuple[Solution, ...]
    examples: tuple[Trial, ...]
    shown: tuple[Trial, ...]
    annotated: bool
    plain: bool

    @property
    def signature(self) -> str:
        """`name(a: int) -> bool`."""
        if not self.annotated:
            return f"{self.name}({', '.join(parameter.name for parameter in self.task.parameters)})"
        typed = (f"{parameter.name}: {TYPES[parameter.type].annotation}" for parameter in self.task.parameters)
        return f"{self.name}({', '.join(typed)}) -> {TYPES[self.task.gives].annotation}"

    def head(self) -> str:
        """The function up to its body, with the text as its docstring."""
        lines = [f"def {self.signature}:"]
        if not self.shown:
            return "\n".join([*lines, f'    """{self.text}"""']) + "\n"
        lines += [f'    """{self.text}', ""]
        for example in self.shown:
            lines += [f"    >>> {example.call(self.name)}", f"    {example.result!r}"]
        return "\n".join([*lines, '    """']) + "\n"

    def body(self, program: Solution) -> str:
        return "".join(f"    {line}\n" for line in program.lines)

    def function(self, program: Solution) -> str:
        """The function without its docstring."""
        return f"def {self.signature}:\n{self.body(program)}"


def item(seed: int, number: int, taken: Collection[str], scope: Scope = SCOPES["full"]) -> Item | str:
    """The item of a number; or why there is none.

    Args:
        taken: names that no function may have: those of the problems that evaluation asks.
        scope: what is drawn from.
    """
    rng = random.Random(xxhash.xxh64_intdigest(f"{seed}/{number}".encode()))
    task = draw(rng, scope)
    solutions = programs(task, scope.plain)
    if not solutions:
        return "no program"
    found = examples(task, solutions, rng)
    if isinstance(found, str):
        return found
    name = _function_name(task, solutions, rng, taken, scope.plain)
    shows = shown(found, rng, rng.choice(scope.examples))
    said, annotated = sentence(task, rng, scope.plain), scope.plain or rng.random() < 0.65
    return Item(number, task, name, said, tuple(solutions), tuple(found), tuple(shows), annotated, scope.plain)


def _function_name(
    task: Composition, solutions: list[Solution], rng: random.Random, taken: Collection[str], plain: bool
) -> str:
    words = [each.name.removesuffix("_each") for each in reversed(task.parts)]
    if task.choice:
        words = words[:2]
    said = "_of_".join(words[:2]) if rng.random() < 0.5 else "_".join(words)
    verbs = _TRUE if task.gives == "bool" else _VERBS
    names = [rng.choice(verbs) + said, rng.choice(_PLAIN), f"{rng.choice(_PLAIN)}_{rng.randint(1, 99)}"]
    if plain or rng.random() < 0.3:
        names = names[1:]
    own = {word for program in solutions for line in program.lines for word in re.findall(r"\w+", line)}
    own |= {parameter.name for parameter in task.parameters} | set(dir(builtins)) | set(keyword.kwlist) | set(taken)
    return next(name for name in (*names, f"function_{rng.randint(100, 999)}") if name not in own)
