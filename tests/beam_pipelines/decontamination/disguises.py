"""What texts and programs look like elsewhere: other typography, other wrappings, other names. They say the same."""

import html
import json
import random
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate
from opencoder_jax.beam_pipelines.decontamination.programs import programs
from opencoder_jax.benchmarks.problems import Benchmark, Problem
from tests.beam_pipelines.decontamination.planting import renamed
from tests.beam_pipelines.decontamination.renaming import LANGUAGES, renamed_in


def _full_width(text: str) -> str:
    return "".join(
        chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else "\u3000" if each == " " else each for each in text
    )


def _lines(before: str, after: str, between: str = "\n") -> Callable[[str], str]:
    """Each line as a literal of its own."""
    return lambda text: between.join(before + json.dumps(line)[1:-1] + after for line in text.splitlines(keepends=True))


def _numbered(form: str) -> Callable[[str], str]:
    return lambda text: "\n".join(form.format(number, line) for number, line in enumerate(text.splitlines(), 1))


def _notebook(text: str) -> str:
    return json.dumps({"cells": [{"cell_type": "code", "source": text.splitlines(keepends=True)}]}, indent=1)


_SUM, _NEIGHBOURS = _lines('"', '"', " +\n"), _lines('"', '"')

PROSE: Mapping[str, Callable[[str], str]] = {
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "thin spaces": lambda text: text.replace(" ", "\u2009"),
    "full width": _full_width,
    "zero width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: text.replace("e", "e\u00ad"),
    "entities": lambda text: html.escape(text).replace(" ", "&nbsp;"),
    "all entities": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "tags": lambda text: f"<p>{html.escape(text).replace(' the ', ' <b>the</b> ')}</p>",
    "json": lambda text: json.dumps({"text": text.replace(" ", "\n")}),
    "json twice": lambda text: json.dumps(json.dumps({"text": text.replace(" ", "\n")})),
    "curly quotes": lambda text: "“" + text.replace(" ", "” “") + "”",
}

CODE: Mapping[str, Callable[[str], str]] = {
    "json": lambda code: json.dumps({"content": code}),
    "json twice": lambda code: json.dumps({"row": json.dumps({"content": code})}),
    "entities": html.escape,
    "no-break spaces": lambda code: code.replace(" ", "\u00a0"),
    "line numbers": _numbered("{:4d}  {}"),
    "line numbers |": _numbered("{:4d} | {}"),
    "line numbers :": _numbered("{}: {}"),
    "notebook": _notebook,
    "Python's literal": lambda code: f"CODE = {code!r}\n",
    "Python's long literal": lambda code: f'CODE = """{code}"""\n' if '"""' not in code else f"CODE = {code!r}\n",
    "Java's literal": lambda code: "String s = " + _SUM(code) + ";",
    "C++'s literal": lambda code: "const char* s =\n" + _NEIGHBOURS(code) + ";",
    "JavaScript's literal": lambda code: f"const s = `{code}`;",
    "Go's literal": lambda code: "s := " + _SUM(code),
}

CHINESE: Mapping[str, Callable[[str], str]] = {
    "narrow marks": lambda text: text.replace("，", ", ").replace("。", ". "),
    "wrapped": lambda text: "\n".join(textwrap.wrap(text, 17)),
    "spaced": " ".join,
    "zero width": lambda text: "\u200b".join(text),
    "json": lambda text: json.dumps({"text": text}),
    "tags": lambda text: f"<p>{text.replace('。', '。</p><p>')}</p>",
}


def chinese(text: str) -> str:
    """A text in Han characters: each of its words has one or two of its own, as in a translation."""
    said = []
    for word in re.findall(r"\w+|[.,:;?!]", text):
        draw = random.Random(word.lower())
        signs = "".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(draw.randint(1, 2)))
        said.append({",": "，", ".": "。"}.get(word, signs if word[0].isalnum() else ""))
    return "".join(said)


class Recall(NamedTuple):
    """How many of the texts or programs of a benchmark are found under a disguise."""

    part: str  # text | solution
    disguise: str
    found: int
    planted: int


def recalls(kernel: Decontaminate, benchmark: Benchmark) -> Iterator[Recall]:
    """Texts under each disguise; solutions without comments and docstrings, all names changed, under each disguise."""
    asked = Counter(text for problem in benchmark.problems for text in problem.texts)  # twice: a preamble of all
    texts = [max(problem.texts, key=lambda text: len(text) / asked[text]) for problem in benchmark.problems]
    solutions = [code for number, one in enumerate(benchmark.problems) if (code := other_names(one, number))]
    for part, plants, disguises in (("text", texts, PROSE), ("solution, renamed", solutions, CODE)):
        as_it_is: Callable[[str], str] = str
        for name, disguise in {"as it is": as_it_is, **disguises}.items() if plants else ():
            yield Recall(part, name, count_found(kernel, [disguise(plant) for plant in plants]), len(plants))


def count_found(kernel: Decontaminate, texts: Sequence[str]) -> int:
    return sum(1 for _ in kernel.leaks(texts))


def other_names(problem: Problem, seed: int) -> str:
    """The problem's first program with other names; "" where there's none, or none that can be renamed here."""
    code = next(programs(problem), "")
    with suppress(SyntaxError):
        return renamed(code, seed) if code else ""
    language = problem.task.partition("/")[0].replace("CPP", "C++")  # as HumanEval-X has it
    return renamed_in(language, code.encode("ascii", "replace").decode(), seed) if language in LANGUAGES else ""
