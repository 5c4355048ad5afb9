"""A task in words: one sentence, said in one of many ways."""

import random
import re

from opencoder_jax.beam_pipelines.synthesis.grammar.tasks import Composition, Parameter
from opencoder_jax.beam_pipelines.synthesis.grammar.types import TYPES

_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

_VALUES = (
    "Return {0}.",
    "Return {0}.",
    "Return {0}.",
    "Compute {0}.",
    "Compute and return {0}.",
    "Give back {0}.",
    "Find {0}.",
    "Get {0}.",
    "Calculate {0}.",
    "The function returns {0}.",
    "It should return {0}.",
    "Returns {0}.",
    "Determine {0}.",
    "Produce {0}.",
    "Work out {0}.",
)
_TRUTHS = (
    "Return True if {0}.",
    "Return True if {0}, False otherwise.",
    "Return True if {0}, and False if not.",
    "Return whether {0}.",
    "Tell whether {0}.",
    "Check if {0}.",
    "Check whether {0}.",
    "Decide whether {0}.",
    "Returns True when {0}, else False.",
    "Say whether {0}.",
)
_LISTS = ("Return a list: {0}.", "Make a new list: {0}.", "Build a list of {0}.", "Return a new list with {0}.")
_STEPS = (
    "Take {0}, {1} and return the result.",
    "Start with {0}: {1}. Return what comes out.",
    "With {0}, {1}; return the result.",
    "From {0}, {1}, and give the result back.",
)
_CHOICES = (
    "Return {1} if {0}, and {2} otherwise.",
    "If {0}, return {1}; otherwise return {2}.",
    "Return {1} when {0}, else {2}.",
    "Give {1} where {0}, but {2} if not.",
)


def sentence(task: Composition, rng: random.Random, plain: bool) -> str:
    """What the function does; `plain`: in one way, with parameters by their names."""
    if plain:
        return _plain(task)
    constants = {letter: _constant(value, rng) for letter, value in task.constants.items()}
    said = _words(task, constants, rng)
    empty = [
        parameter
        for parameter in task.parameters
        if parameter.full and parameter.type in ("numbers", "words", "counts")
    ]
    if empty and rng.random() < 0.7:
        what = "dictionary" if empty[0].type == "counts" else "list"
        said += rng.choice(
            (
                f" The {what} is not empty.",
                f" The {what} has at least one element.",
                f" `{empty[0].name}` is never empty.",
            )
        )
    return said


def _plain(task: Composition) -> str:
    constants = {
        letter: value.name if isinstance(value, Parameter) else repr(value) for letter, value in task.constants.items()
    }
    said = [parameter.name for parameter in task.parameters[: len(task.parts[0].takes)]]
    for operation in task.operations:
        said = [operation.noun[0].format(*said, **constants)]
    return f"Return whether {said[0]}." if task.gives == "bool" else f"Return {said[0]}."


def _words(task: Composition, constants: dict[str, str], rng: random.Random) -> str:
    leaves = [
        _leaf(parameter, rng, alone=len(task.parts[0].takes) == 1)
        for parameter in task.parameters[: len(task.parts[0].takes)]
    ]
    if task.choice:
        test, yes, no = (rng.choice(each.noun).format(task.parameters[0].name, **constants) for each in task.choice)
        return rng.choice(_CHOICES).format(test, yes, no)
    if (
        all(each.do for each in task.operations)
        and len(leaves) == 1
        and rng.random() < (0.3 if len(task.operations) > 1 else 0.1)
    ):
        done = [rng.choice(each.do).format(*leaves, **constants) for each in task.operations]
        return rng.choice(_STEPS).format(leaves[0], ", then ".join(done))
    said = leaves
    for operation in task.operations:
        noun = rng.choice(operation.noun)
        if operation is task.operations[0] and len(said) == 1:
            said = _singular(said, noun, task.parameters[0])
        said = [noun.format(*said, **constants)]
    frames: tuple[str, ...] = _TRUTHS if task.gives == "bool" else _VALUES
    if task.gives in ("numbers", "words") and rng.random() < 0.15 and said[0].startswith("the "):
        frames = _LISTS
    return rng.choice(frames).format(said[0])


def _leaf(parameter: Parameter, rng: random.Random, alone: bool) -> str:
    """What a parameter is called; where there are several, by its name."""
    if not alone:
        return parameter.name if rng.random() < 0.7 else f"`{parameter.name}`"
    return rng.choice(TYPES[parameter.type].leaves).format(name=parameter.name)


def _singular(leaves: list[str], noun: str, parameter: Parameter) -> list[str]:
    """One list, where it is said that it "is" something, and not its many elements."""
    many = TYPES[parameter.type].many
    if re.search(r"\{0\} (is|has|holds|contains) ", noun) and many in leaves[0]:
        return [f"the list {parameter.name}"]
    return leaves


def _constant(value: object, rng: random.Random) -> str:
    if isinstance(value, Parameter):
        return rng.choice((value.name, f"`{value.name}`"))
    if isinstance(value, int):
        return _DIGITS[value] if value < len(_DIGITS) and rng.random() < 0.4 else str(value)
    return rng.choice((repr(value), f'"{value}"', repr(value)))
