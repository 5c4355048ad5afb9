"""Correct programs that other extractors break come through unchanged; what is cut off is only what a script does."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.evaluation.answers.extract import Extracted, extract, standalone
from opencoder_jax.evaluation.answers.samples import Sample
from opencoder_jax.evaluation.config import EvaluateConfig

PROMPT = 'def f(n: int) -> int:\n    """Return n."""\n'
PROBLEM = FunctionProblem("t/0", PROMPT, "f", "def check(candidate):\n    assert candidate(1) == 1\n")
STOPS = EvaluateConfig().stops()


def answered(text: str) -> Extracted:
    return extract(PROBLEM, Sample("t/0", 0, "solution", text), STOPS)


def completed(text: str) -> Extracted:
    return extract(PROBLEM, Sample("t/0", 0, "completion", text), STOPS)


# Each of these loses something in a widely used sanitizer: EvalPlus, or the one that OpenCoder was scored with.
CORRECT = {
    "decorated entry point": "from functools import lru_cache\n\n@lru_cache\ndef f(n):\n    return n\n",
    "helper without return": "a = []\ndef g(n):\n    a.append(n)\n\ndef f(n):\n    g(n)\n    return a.pop()\n",
    "helper generator": "def count(n):\n    yield n\n\ndef f(n):\n    return next(count(n))\n",
    "global with an attribute": "import re\nP = re.compile('x')\ndef f(n):\n    return n + len(P.findall(''))\n",
    "augmented assignment": "x = 1\nx -= 1\ndef f(n):\n    return n + x\n",
    "guarded import": "try:\n    import numpy\nexcept ImportError:\n    numpy = None\ndef f(n):\n    return n\n",
    "annotated and tuple assignments": "MOD: int = 7\na, b = 0, 0\ndef f(n):\n    return n + a * MOD\n",
    "over a hundred lines": "def f(n):\n" + "    n += 1\n    n -= 1\n" * 200 + "    return n\n",
    "async helper": "import asyncio\nasync def g(n):\n    return n\ndef f(n):\n    return asyncio.run(g(n))\n",
    "tabs in a string": "def f(n):\n    assert len('\t') == 1\n    return n\n",
    "lambda": "f = lambda n: n\n",
    "defined in a branch": "import sys\nif sys:\n    def f(n):\n        return n\nelse:\n    f = None\n",
    "fence in a docstring": 'def f(n):\n    """Use:\n\n    ```\n    f(1)\n    ```\n    """\n    return n\n',
    "comments": "# by me\ndef f(n):  # 1\n    # 2\n    return n\n# the end\n",
}


@pytest.mark.parametrize("name", CORRECT)
def test_correct_programs_are_taken_as_they_are(name: str) -> None:
    code = CORRECT[name]
    assert answered(code) in (Extracted(code, "text"), Extracted(code, "fence"))
    fenced = f"Here it is:\n\n```python\n{code}```\n\nIt returns its argument."
    if "```" not in code:
        assert answered(fenced) == Extracted(code, "fence")


def test_of_another_version_only_what_is_needed_is_taken_in_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thousand statements are found without dividing it into lines for each (a minute, of five thousand)."""
    monkeypatch.delattr("ast.get_source_segment")
    names = [f"a{number}" for number in range(1000)]
    first = "def f(n):\n    return 0\nunused = 1\n" + "".join(f"{name} = {name!r}; b = 1\n" for name in names)
    second = f"def f(n):\n    return n if [{', '.join(names)}] else 0\n"
    found = answered(f"```python\n{first}```\n\nBetter:\n\n```python\n{second}```\n")
    assert found.method == "fence, with others"
    assert found.code == "".join(f"{name} = {name!r}\n" for name in names) + "\n" + second


def test_the_program_that_a_person_would_take_is_found() -> None:
    """The set and how it was judged: answers/make.py."""
    files = [Path(__file__).parent / "answers" / name for name in ("answers.jsonl", "odd.jsonl")]
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").split("\n") if line]
    assert len(lines) == 275
    others = []
    for line in lines:
        problem = FunctionProblem("t/0", line["prompt"], line["entry_point"], "")
        found = extract(problem, Sample("t/0", 0, "solution", line["answer"]), STOPS)
        if ast.dump(ast.parse(found.code)) != ast.dump(ast.parse(line["program"])):
            others.append((line["layout"], line["entry_point"]))
    assert len(others) <= 0.03 * len(lines), others


@pytest.mark.parametrize(
    ("text", "code", "method"),
    [
        ("```\ndef f(n): return n\n```", "def f(n): return n\n", "fence"),
        (
            "```python\ndef f(n): return 0\n```\nBetter:\n```py\ndef f(n): return n\n```\n",
            "def f(n): return n\n",
            "fence",
        ),
        ("```python\ndef f(n): return n\n```\nTry it:\n```python\nf(3)\n```\n", "def f(n): return n\n", "fence"),
        ("```python\ndef f(n): return n\n", "def f(n): return n\n", "fence"),
        ("<think>def f(n): return 0</think>def f(n): return n", "def f(n): return n", "text"),
        ("```python\r\ndef f(n):\r\n    return n\r\n```\r\n", "def f(n):\n    return n\n", "fence"),
        ("1. Write:\n   ```python\ndef f(n): return n\n   ```\n", "def f(n): return n\n", "fence"),
        ("    return n\n", PROMPT + "    return n\n", "body"),  # a chat model that goes on instead of answering
        ("def f(n): return n\nThis is the answer.", "def f(n): return n\n", "code in text"),
        ("```python\ndef f(n): return n\ndef g(", "def f(n): return n\n", "code in text"),
        ("I do not know.", "", "none"),
        ("def g(n): return n\n", "", "none"),
        ("", "", "none"),
    ],
)
def test_where_an_answer_is_found(text: str, code: str, method: str) -> None:
    assert answered(text)[:2] == (code, method)


@pytest.mark.parametrize(
    ("text", "body", "method"),
    [
        ("    return n\n", "    return n\n", "completion"),
        ("\n    return n", "    return n", "completion"),
        ("    return n\n\ndef main(\n    broken", "    return n\n", "completion, cut at a stop"),
        ("    return n\n\ndef g(x):\n    return x\n", "    return n\n\ndef g(x):\n    return x\n", "completion"),
        ("    m = n\n    return m\n    if m >", "    m = n\n    return m\n", "completion, longest prefix"),
        ('    """more"""\n    return n\n', '    """more"""\n    return n\n', "completion"),
    ],
)
def test_completions_follow_their_prompt(text: str, body: str, method: str) -> None:
    found = completed(text)
    assert (found.code.rstrip("\n"), found.method) == ((PROMPT + body).rstrip("\n"), method)


def test_a_completion_may_be_a_whole_answer() -> None:
    assert completed("Sure:\n```python\ndef f(n):\n    return n\n```\n").method == "fence"
    assert completed("this is no code at all").method == "none"


@pytest.mark.parametrize(
    "script",
    [
        "print(f(3))\n",
        "assert f(3) == 3\n",
        "main()\n",
        "if __name__ == '__main__':\n    print(f(3))\n",
        "print('ä', f(3))\nassert True\n# done\n",
    ],
)
def test_what_a_script_does_is_cut_off_and_kept_apart(script: str) -> None:
    code = "# größer\ndef f(n):\n    return n\n\n"
    found = answered(code + script)
    assert (found.code, found.dropped) == (code, script)
    assert answered(code + script + "X = 1\n").code == code + script + "X = 1\n"  # a definition follows: nothing is cut


READS = """import sys

TABLE = {}

def fill(size=9):
    TABLE[size] = 1

def f(n):
    return TABLE.get(n, n)

"""


@pytest.mark.parametrize(
    "script",
    [
        "n = int(input())\nprint(f(n))\n",
        "for n, wanted in [(1, 1)]:\n    assert f(n) == wanted\n",
        "with open('cases.txt') as file:\n    cases = file.read()\nprint(cases)\n",
        "cases = [1]\nresults = [f(n) for n in cases]\nif results:\n    print(results)\n",
        "try:\n    f(int(sys.argv[1]))\nexcept IndexError:\n    pass\n",
    ],
)
def test_what_only_a_script_needs_goes_with_it(script: str) -> None:
    found = answered(READS + script)
    assert (found.code, found.dropped) == (READS, script)


@pytest.mark.parametrize(
    "prepared",
    [
        "fill()\n",
        "TABLE.update({1: 1})\n",
        "TABLE[3] = 3\n",
        "for n in range(9):\n    TABLE[n] = n\n",
        "sys.setrecursionlimit(10_000)\n",
        "f.calls = 0\n",
        "TABLE, first = {1: 2}, TABLE\n",
        "if TABLE:\n    f = fill\n",
    ],
)
def test_what_the_function_needs_stays(prepared: str) -> None:
    assert answered(READS + prepared + "print(f(3))\n") == Extracted(READS + prepared, "text", "print(f(3))\n")


def test_the_prompts_helpers_are_there_for_a_chat_answer() -> None:
    problem = PROBLEM._replace(prompt="from typing import List\ndef g(n):\n    return n\n" + PROMPT)
    code = "def f(n: List) -> int:\n    return g(n)\n"
    assert standalone(problem, code) == f"{problem.prompt}\n\n{code}"
    future = "from __future__ import annotations\ndef f(n):\n    return n\n"
    assert "from __future__" in standalone(PROBLEM, future)
    compile(standalone(PROBLEM, future), "", "exec")
    assert standalone(PROBLEM, PROMPT + "    return n\n") == PROMPT + "    return n\n"


@given(text=st.text(alphabet="def f(n):\n return`python'\"#\t\\é\0", max_size=200))
@settings(deadline=None, max_examples=150)
def test_any_text_gives_a_program_or_none(text: str) -> None:
    for kind in "completion", "solution":
        found = extract(PROBLEM, Sample("t/0", 0, kind, text), STOPS)
        if found.method == "none":
            assert found.code == ""
        else:
            ast.parse(found.code)


def test_nesting_bombs_are_no_code_and_long_rubbish_is_quick() -> None:
    assert answered("(" * 100_000).method == "none"
    assert answered("-" * 100_000 + "1").method == "none"
    assert answered("def f(n): return n\n" + "rub bish\n" * 2000).method == "code in text"
