"""Verdicts: what is right and tested is kept; tests that can't fail, cheats and chance are not."""

import ast
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.synthesis.execution import mutants
from opencoder_jax.beam_pipelines.synthesis.execution.literals import literal
from opencoder_jax.beam_pipelines.synthesis.execution.observing import ObservedCall, calls_of_tests, values, varied
from opencoder_jax.beam_pipelines.synthesis.execution.programs import SolutionWithTests
from opencoder_jax.beam_pipelines.synthesis.execution.verdicts import Jury, VerdictConfig
from opencoder_jax.benchmarks.problems import Benchmark, function_problems

FOLDER = Path(os.environ.get("BENCHMARKS", Path(__file__).parents[5] / "shared" / "benchmarks"))
HUMANEVAL = FOLDER / "humaneval" / "HumanEval.jsonl.gz"

ABS = "def size(x):\n    if x < 0:\n        return -x\n    return x\n"
TESTS = "assert size(3) == 3\nassert size(-4) == 4\nassert size(0) == 0\nassert size(-1) == 1\nassert size(1) == 1\n"


@pytest.fixture(scope="module")
def jury() -> Iterator[Jury]:
    with Jury(VerdictConfig(agreeing=1, cpu_seconds=1)) as jury:
        yield jury


GOOD = {
    "asserts": (ABS, TESTS),
    "check": (
        ABS,
        "def check(candidate):\n"
        + "".join(f"    {line}\n" for line in TESTS.replace("size", "candidate").splitlines())
        + "check(size)\n",
    ),
    "in place": (
        "def double(xs):\n    for i in range(len(xs)):\n        xs[i] *= 2\n",
        "a = [1, 2, -3]\ndouble(a)\nassert a == [2, 4, -6]\nb = []\ndouble(b)\nassert b == []\n",
    ),
    "a class of its own": (
        "class P:\n    def __init__(self, x):\n        self.x = x\n\ndef get(p):\n    return p.x + 1\n",
        "assert get(P(3)) == 4\nassert get(P(-1)) == 0\n",
    ),
    "raises": (
        "def root(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x ** 0.5\n",
        "assert root(9) == 3\nassert root(16) == 4\nassert root(0) == 0\n"
        "try:\n    root(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False\n",
    ),
    "chance that doesn't matter": (
        "import random\n\ndef pick(xs):\n    return random.choice(xs)\n",
        "assert pick([7]) == 7\nassert pick([1, 2]) in (1, 2)\nassert pick('a') == 'a'\n",
    ),
    "two functions": (
        "def enc(s):\n    return s[::-1] + '!'\n\ndef dec(s):\n    return s[:-1][::-1]\n",
        "assert dec(enc('abc')) == 'abc'\nassert enc('ab') == 'ba!'\nassert dec('ba!') == 'ab'\n",
    ),
}
BAD: dict[str, tuple[str, str, str | tuple[str, ...]]] = {
    "always true": (ABS, "assert size(3) or True\nassert True\n", "tests can't fail"),
    "swallowed": (ABS, "try:\n    assert size(3) == 5\nexcept AssertionError:\n    pass\n", "tests can't fail"),
    "looks at nothing": (ABS, "size(3)\nassert True\n", "tests can't fail"),
    "looks at the type": (
        ABS,
        "assert isinstance(size(3), int)\nassert isinstance(size(-2), int)\n",
        "tests can't fail",
    ),
    "never calls": (ABS, "assert 1 + 1 == 2\n", "tests never call the solution"),
    "tests its own": (ABS, "def size(x):\n    return 3\nassert size(2) == 3\n", "tests never call the solution"),
    "asserts nothing": (ABS, "size(3)\nprint('ok')\n", "tests assert nothing"),
    "tests end early": (ABS, "import sys\nsys.exit(0)\nassert size(3) == 9\n", "ends before its tests do"),
    "tests end hard": (ABS, "import os\nos._exit(0)\nassert size(3) == 9\n", "ends before its tests do"),
    "solution ends": ("def size(x):\n    raise SystemExit(0)\n", TESTS, "ends before its tests do"),
    "solution ends hard": ("import os\n\ndef size(x):\n    os._exit(0)\n", TESTS, "ends before its tests do"),
    "patched comparison": (
        "class Yes:\n    def __eq__(self, other):\n        return True\n\ndef size(x):\n    return Yes()\n",
        TESTS,
        "returns no plain value",
    ),
    "patched comparison of a number": (
        "class Yes(int):\n    def __eq__(self, other):\n        return True\n\ndef size(x):\n    return Yes()\n",
        TESTS,
        "fails its tests",
    ),
    "patched comparison in the tests": (
        ABS,
        "class Any:\n    def __eq__(self, other):\n        return True\n" + "assert Any() == size(3)\n" * 2,
        "tests can't fail",
    ),
    "a class that equals all": (
        "class A:\n    def __eq__(self, other):\n        return True\n\ndef make():\n    return A()\n",
        "assert make() == A()\n",
        "tests can't fail",
    ),
    "patched builtins": (
        "import builtins\nbuiltins.AssertionError = ValueError\n\ndef size(x):\n    return 3\n",
        TESTS,
        "fails its tests",
    ),
    "a coin": (
        "import random\n\ndef size(x):\n    return abs(x) if random.random() < 0.7 else x + 1\n",
        TESTS,
        ("flaky", "fails its tests"),
    ),
    "the order of a set": (
        "def first(words):\n    return list(set(words))\n",
        "assert first(['b', 'a', 'cc', 'd']) in ({orders})\nassert first(['b']) == ['b']\n",
        ("flaky", "fails its tests"),
    ),
    "the clock": (
        "import time\n\ndef size(x):\n    return abs(x) + (time.perf_counter_ns() % 2)\n",
        TESTS,
        ("flaky", "fails its tests"),
    ),
    "wrong": (ABS.replace("-x", "x"), TESTS, "fails its tests"),
    "endless": ("def size(x):\n    while True:\n        pass\n", TESTS, "ended by timeout"),
    "no Python": ("def size(x)\n    return x\n", TESTS, "solution: not Python"),
    "tests no Python": (ABS, "assert size(3) = 3\n", "tests: not Python"),
}
BAD["the order of a set"] = (
    BAD["the order of a set"][0],
    BAD["the order of a set"][1].format(orders="['a', 'b', 'cc', 'd'], ['d', 'cc', 'b', 'a'], ['cc', 'a', 'd', 'b']"),
    ("flaky", "fails its tests"),
)


def some_slow(names: Iterable[str], *slow: str) -> list[Any]:
    """The names, of which some take seconds."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


@pytest.mark.parametrize("name", some_slow(GOOD, *list(GOOD)[2:]))
def test_what_is_good_is_kept(jury: Jury, name: str) -> None:
    solution, tests = GOOD[name]
    found = jury.verdict([solution], tests)
    assert (found.reason, found.detail) == ("", "")
    for added in found.added:
        assert jury.passes(SolutionWithTests(solution, added)), added


@pytest.mark.parametrize("name", some_slow(BAD, "endless"))
def test_what_proves_nothing_is_dropped(jury: Jury, name: str) -> None:
    solution, tests, reason = BAD[name]
    found = jury.verdict([solution], tests)
    assert found.reason
    assert found.reason.startswith(reason), found


def test_weak_tests_are_strengthened_by_what_solutions_agree_on(jury: Jury) -> None:
    weak = "assert size(3) == 3\nassert size(-4) == 4\n"
    other = "def size(x):\n    return max(x, -x)\n"
    found = jury.verdict([ABS.replace("return x", "return x or 0"), other], weak)
    assert found.reason == ""
    assert found.agreeing == 2
    wrong = "def size(x):\n    return {3: 3, -4: 4}.get(x, 7)\n"  # passes, and agrees nowhere else
    alone = jury.verdict([wrong, ABS, other], weak)
    assert (alone.reason, alone.solution, alone.agreeing) == ("", 1, 2)


@pytest.mark.slow
def test_too_few_that_agree_and_the_first_that_passes() -> None:
    wrong = ABS.replace("-x", "x")
    with Jury(VerdictConfig(agreeing=2, cpu_seconds=1)) as strict:
        assert strict.verdict([ABS, wrong], TESTS).reason == "too few solutions agree"
        found = strict.verdict([wrong, ABS, ABS.replace("x < 0", "0 > x")], TESTS)
        assert (found.reason, found.solution, found.agreeing) == ("", 1, 2)


@pytest.mark.slow
def test_weak_tests_that_nothing_strengthens_are_dropped() -> None:
    """A mutant that differs only where not all solutions return anything stays alive, and counts."""
    solution = "def grade(x):\n    if x > 10:\n        return 'a'\n    if x > 5:\n        return 'b'\n    return 'c'\n"
    other = "def grade(x):\n    return {20: 'a', 0: 'c'}[x]\n"
    with Jury(VerdictConfig(agreeing=2, cpu_seconds=1)) as strict:
        found = strict.verdict([solution, other], "assert grade(20) == 'a'\nassert grade(0) == 'c'\n")
    assert found.reason == "weak tests"
    assert found.killed < 0.8 * found.mutants


def test_calls_and_values_are_seen_as_they_were(jury: Jury) -> None:
    item = SolutionWithTests(ABS, "for x in (1, -2):\n    assert size(x) == abs(x)\nassert size(True) is True\n")
    assert calls_of_tests(item, jury.run) == [
        ObservedCall("size", "(1,)", "1"),
        ObservedCall("size", "(-2,)", "2"),
        ObservedCall("size", "(True,)", "True"),
    ]
    assert ObservedCall("f", "([1], 'a')", "None").assertion() == "assert f([1], 'a') is None"
    assert values(ABS + "\nprint('observed- no')\n", "size", [(1,), ("a",), (-3.5,)], jury.run) == ["1", None, "3.5"]
    assert values("import os\n\ndef size(x):\n    os._exit(0)\n", "size", [(1,), (2,)], jury.run) == [None, None]


def test_every_small_mutant_differs_and_parses() -> None:
    source = (
        'def f(a: int = 1) -> "x":\n    """Doc."""\n    while a < 9:\n        a += 2\n    if a > 3 and not a:\n'
        "        return -1\n    return [x * 2 for x in range(a) if x != 4]\n"
    )
    found = mutants.small(source, 100)
    assert len(found) == len(set(found)) > 8
    assert ast.unparse(ast.parse(source)) not in found
    for text in found:
        assert ast.get_docstring(ast.parse(text).body[0]) == "Doc."  # type: ignore[arg-type]
        assert "while a < 9" in text
    assert mutants.small(source, 5) == mutants.small(source, 5)
    assert len(mutants.small(source, 5)) == 5


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2) | st.tuples(inner)
    ),
    max_leaves=6,
)


@settings(max_examples=20)
@given(PLAIN | st.sets(st.integers(), max_size=4))
def test_a_literal_means_its_value(value: object) -> None:
    text = literal(value)
    if text is None:  # too long, or it has infinity, which has no literal
        assert len(repr(value)) > 300 or "inf" in repr(value)
    else:
        assert ast.literal_eval(text) == value


def test_what_has_no_literal() -> None:
    assert [literal(value) for value in (float("nan"), object(), print, [1j], {1: object()}, "x" * 500)] == [None] * 6
    assert literal({"b", "a"}) == literal({"a", "b"}) == "{'a', 'b'}"


@settings(max_examples=15)
@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=3))
def test_varied_inputs_keep_their_shape_and_are_new(inputs: list[tuple[object, ...]]) -> None:
    found = varied(inputs, 12)
    assert found == varied(inputs, 12)
    assert len({repr(each) for each in found}) == len(found) <= 12
    for each in found:
        assert repr(each) not in {repr(known) for known in inputs}
        assert any(sum(a is not b for a, b in zip(each, known, strict=True)) <= 1 for known in inputs)


@pytest.mark.slow
@pytest.mark.skipif(not HUMANEVAL.exists(), reason="the published file isn't here")
def test_every_reference_of_humaneval_with_its_tests_is_kept(jury: Jury) -> None:
    problems = function_problems(Benchmark.read(str(HUMANEVAL)))
    found = {
        problem.task_id: jury.verdict(
            [problem.prompt + problem.solution], f"{problem.test}\ncheck({problem.entry_point})\n"
        )
        for problem in problems
    }
    assert {name: each.reason for name, each in found.items() if each.reason} == {}
    assert sum(each.killed for each in found.values()) >= 0.95 * sum(each.mutants for each in found.values())
