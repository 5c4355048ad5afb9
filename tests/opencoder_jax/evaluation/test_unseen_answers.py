"""Answers that were written before their author had seen the extractor, each judged by what its program does.

answers/unseen.txt holds the problems (`@@@@ entry point | check`, then the prompt) and the answers to them
(`%%%% how it is laid out | entry point`, then what a model wrote). Characters that editors hide are marked.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.evaluation.answers.extract import extract, standalone
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig

FILE = Path(__file__).parent / "answers" / "unseen.txt"
HIDDEN = {"␍": "\r", "⇥": "\t", "⍽": "\u00a0", "⟦BOM⟧": "\ufeff", "⟦ZW⟧": "\u200b"}


class Answer(NamedTuple):
    """What a model wrote, and what its program must do."""

    layout: str
    problem: FunctionProblem
    text: str
    check: str


@cache
def answers() -> tuple[Answer, ...]:
    return tuple(_read(FILE.read_text(encoding="utf-8")))


def _read(text: str) -> Iterator[Answer]:
    problems: dict[str, tuple[FunctionProblem, str]] = {}
    for kind, name, rest, body in re.findall(
        r"^(@@@@|%%%%) (.*?) \| (.*)\n((?:(?!@@@@|%%%%).*\n)*)", text, re.MULTILINE
    ):
        if kind == "@@@@":
            problems[name] = FunctionProblem("t/0", body, name, ""), rest
            continue
        for mark, character in HIDDEN.items():
            body = body.replace(mark, character)
        yield Answer(name, problems[rest][0], body, problems[rest][1])


def solves(answer: Answer) -> bool:
    """Whether the program that is found does what is asked, and nothing before it is called."""
    found = extract(answer.problem, Sample("t/0", 0, "solution", answer.text), EvaluateConfig().stops())
    space: dict[str, object] = {"__name__": "answer", "input": None}
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            exec(standalone(answer.problem, found.code), space)
            return bool(eval(answer.check, space)) and not said.getvalue()
    except (Exception, SystemExit):
        return False


def test_there_are_enough() -> None:
    assert len({answer.layout for answer in answers()}) == len(answers()) >= 130


@pytest.mark.parametrize("answer", answers(), ids=lambda answer: answer.layout)
def test_the_program_that_a_person_would_take_is_found(answer: Answer) -> None:
    assert solves(answer)
