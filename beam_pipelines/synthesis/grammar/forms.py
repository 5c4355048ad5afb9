"""The forms of an item: a program, a question with its answer, a problem for evaluation."""

import json
import random
from typing import Any

from opencoder_jax.beam_pipelines.synthesis.grammar.items import Item
from opencoder_jax.beam_pipelines.synthesis.grammar.traces import trace
from opencoder_jax.benchmarks.prompts import asked

_ASKED = (
    "Write a Python function `{signature}`.\n\n{text}{examples}",
    "Write a function named `{name}` in Python.\n\n{text}{examples}",
    "{text} Call the function `{signature}`.{examples}",
    "Implement `{signature}` in Python: {text}{examples}",
    "I need a Python function `{signature}`. {text}{examples}",
)
LINES = 16  # that a program runs, at most, where all of them are asked for
_COMPLETED = "Complete this function.\n\n```python\n{head}```"


def program(item: Item) -> str:
    """A module: the function with its docstring, and assertions about it."""
    rng = random.Random(item.number)
    chosen = item.programs[0] if item.plain else rng.choice(item.programs)
    asserted = (
        "".join(f"assert {each.call(item.name)} == {each.result!r}\n" for each in item.examples[2:4])
        if not item.plain and rng.random() < 0.3
        else ""
    )
    return item.head() + item.body(chosen) + (f"\n\n{asserted}" if asserted else "")


def question(item: Item) -> list[dict[str, str]]:
    """About a program: what it returns, for what, what it does, line by line or in a sentence; some ask for programs.

    The first stage of tuning asks so. What is answered is what was seen when the program ran.
    """
    rng = random.Random(item.number)
    chosen = rng.choice(item.programs)
    code = f"```python\n{item.function(chosen)}```"
    kind, example = rng.random(), rng.choice(item.examples)
    call = example.call(item.name)
    if kind < 0.25:
        return _chat(f"{code}\n\nWhat does `{call}` return?", f"`{example.result!r}`")
    if kind < 0.4:
        return _chat(f"{code}\n\nName a call that returns `{example.result!r}`.", f"`{call}`")
    if kind < 0.55 and len(ran := trace(chosen.lines, item.task.parameters, example.arguments)) <= LINES:
        lines = "".join(f"{each}\n" for each in ran)
        return _chat(f"{code}\n\nWhich lines does `{call}` run, and what do they change?", f"```python\n{lines}```")
    if kind < 0.75:
        return _chat(f"What does this function do?\n\n{code}", item.text)
    return _chat(_ask(item, rng), _answer(item, item.programs[0] if item.plain else chosen))


def task(item: Item) -> list[dict[str, str]]:
    """A function is asked for and given: the shortest of the programs mostly."""
    rng = random.Random(item.number)
    first = item.plain or rng.random() < 0.85
    return _chat(_ask(item, rng), _answer(item, item.programs[0] if first else rng.choice(item.programs)))


def problem(item: Item) -> dict[str, Any]:
    """A line of a benchmark in HumanEval's form."""
    checks = "".join(
        f"    assert candidate({', '.join(map(repr, each.arguments))}) == {each.result!r}\n" for each in item.examples
    )
    return {
        "task_id": f"grammar/{item.number}",
        "level": len(item.task.parts) if not item.task.choice else 2,
        "entry_point": item.name,
        "prompt": item.head(),
        "canonical_solution": item.body(item.programs[0]),
        "test": f"def check(candidate):\n{checks}",
    }


def _ask(item: Item, rng: random.Random) -> str:
    if item.plain:
        return asked(item.head())
    if rng.random() < 0.5:
        return asked(item.head()) if rng.random() < 0.7 else _COMPLETED.format(head=item.head())
    returns = "`{}` returns `{!r}`." if rng.random() < 0.5 else "{} == {!r}"
    lines = [returns.format(each.call(item.name), each.result) for each in item.shown]
    told = "\n\n" + rng.choice(("For example:\n", "Examples:\n", "")) + "\n".join(lines) if lines else ""
    return rng.choice(_ASKED).format(signature=item.signature, name=item.name, text=item.text, examples=told)


def _answer(item: Item, chosen: Any) -> str:
    return f"```python\n{item.function(chosen)}```"


def _chat(asked: str, answered: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def text(form: str, item: Item) -> str:
    """The text of an item's document in a form."""
    if form == "programs":
        return program(item)
    return json.dumps(question(item) if form == "questions" else task(item), ensure_ascii=False)
