"""Solutions are found whatever their names and their layout are, and nothing else is."""

import random
import textwrap
import tokenize
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.decontamination.lexer import lex
from opencoder_jax.beam_pipelines.decontamination.names import bound_names
from opencoder_jax.beam_pipelines.decontamination.programs import programs
from opencoder_jax.beam_pipelines.decontamination.solutions import GRAM, SolutionIndex, token_grams
from opencoder_jax.benchmarks.problems import Fields, Problem, read_problem
from tests.beam_pipelines.decontamination.planting import inside, reindented, renamed
from tests.beam_pipelines.decontamination.renaming import LANGUAGES, renamed_in

LONG = '''def close_pairs(numbers, threshold):
    """How many pairs are nearer than a threshold."""
    total = 0
    for place, number in enumerate(numbers):
        for other in numbers[place + 1 :]:  # every pair once
            distance = abs(number - other)
            if distance < threshold and number != 0:
                total += 1
            elif other == 17:
                total -= 2
    if total > len(numbers) * 3:
        print("so many", total)
    return total
'''
# Each has a name that Python's own functions or keywords have.
IN_FIVE = {
    "C++": "int total(vector<int> in) { int max = 17; for (int x : in) max = std::max(max, x); return max; }",
    "Go": "func total(in []int) int { max := 17; for _, x := range in { if x > max { max = x } }; return max }",
    "Java": "int total(List<Integer> in) { int max = 17; for (int x : in) { max = Math.max(max, x); } return max; }",
    "JavaScript": "const total = (list) => { let is = [17, ...list]; return Math.max(...is) - list.length; }",
    "Rust": "fn total(list: &[i32]) -> i32 { let mut max = 17; for i in 0..list.len() { max += list[i]; } max }",
}
SHORT = "def area(width, height):\n    sum = width * height\n    return round(sum, 2) + 7\n"
TINY = "def twice(x):\n    return 2 * x\n"


def problem(code: str, number: int = 0) -> Problem:
    row = {"task_id": number, "code": code}
    return read_problem("own", number, row, Fields((), ("code",), ()))


INDEX = SolutionIndex([problem(code) for code in (LONG, SHORT, TINY)], shortest=12, an_edit=30)


def found(*texts: str) -> list[tuple[int, int]]:
    return [(row, leak.problem) for row, leak in INDEX.leaks([text.encode() for text in texts])]


@pytest.mark.parametrize("seed", range(5))
def test_neither_names_nor_layout_matter(seed: int) -> None:
    host = "import os\n\n\ndef f():\n    return os\n\n\n@f\ndef g():\n    pass\n"
    texts = []
    for code in (LONG, SHORT):
        bare = renamed(code, seed)
        assert not {"numbers", "threshold", "width", "sum"} & {token.string for token in tokens(bare)}
        texts += [code, reindented(code), inside(code, host, seed), bare, reindented(bare), inside(bare, host, seed)]
        texts.append(bare.replace("(", "( ").replace(",", " ,").replace(":\n", ":  # why\n"))
    half = len(texts) // 2
    assert found(*texts) == [(row, int(row >= half)) for row in range(len(texts))]


def tokens(code: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(StringIO(code).readline))


def test_one_edit_in_thirty_tokens_is_forgiven_and_no_more() -> None:
    edits = [("total = 0", "total = 5"), ("!= 0", "!= 1"), ("== 17", "== 18"), ('"so many"', '"few"'), ("-= 2", "-= 4")]
    texts = [LONG]
    for old, new in edits:
        texts.append(texts[-1].replace(old, new))
    allowed = len(lex([LONG.encode()]).values[:-1]) // 30
    assert 2 <= allowed < len(edits)
    assert {row for row, _ in found(*texts)} >= set(range(allowed + 1))
    assert len(edits) not in {row for row, _ in found(*texts)}
    # A short one must be itself.
    assert found(SHORT.replace("7", "8"), SHORT.replace("* height", "* width")) == []


def test_what_is_not_the_solution() -> None:
    others = [
        "",
        TINY,
        "def f(a, b):\n    return a + b\n" * 100,
        SHORT.replace("round(sum, 2)", "round(sum, height)"),
        "\n".join(f"value{number} = compute(other{number}, {number})" for number in range(2000)),
        LONG[: len(LONG) // 2],
    ]
    assert found(*others) == []
    # One that goes on isn't the same; one that is followed by another statement is.
    assert found(f"{SHORT.rstrip()} - 1\n", f"{SHORT.rstrip()}.real\n", f"{SHORT.rstrip()} if x else y\n") == [(2, 1)]
    assert found(f"{SHORT}@f\ndef g(): pass\n", f"{SHORT}x = 1\n", SHORT * 2) == [(0, 1), (1, 1), (2, 1)]
    # Two halves in two documents are no whole, and borders between documents are none within.
    assert found(LONG[:200], LONG[200:], *[SHORT[:40], SHORT[40:]]) == []


def test_where_it_lies() -> None:
    head = "# größer\nimport os\n"
    text = f"{head}{textwrap.indent(SHORT, '  ')}x = 1\n".encode()
    ((_, leak),) = INDEX.leaks([text])
    assert text[leak.start : leak.stop].decode().strip() == textwrap.indent(SHORT, "  ").strip()
    assert leak.problem == 1


@given(st.lists(st.integers(-4, 4).filter(bool), max_size=30))
def test_grams_are_equal_when_a_renaming_makes_them_so(values: list[int]) -> None:
    """Against the definition: names by where they stood last in the gram, all else by itself."""
    hashes = token_grams(np.array(values, np.int64)).tolist()
    windows = [values[start : start + GRAM] for start in range(len(values) - GRAM + 1)]

    def normal(window: list[int]) -> tuple[tuple[str, int], ...]:
        # Of a name, the distance to its last place; of others the value.
        last: dict[int, int] = {}
        said = []
        for place, value in enumerate(window):
            said.append(("name", place - last.get(value, place)) if value < 0 else ("other", value))
            last[value] = place
        return tuple(said)

    normals = [normal(window) for window in windows]
    assert len(hashes) == len(windows)
    for one, first in zip(hashes, normals, strict=True):
        for other, second in zip(hashes, normals, strict=True):
            assert (one == other) == (first == second)


def test_a_body_is_found_without_its_prompt() -> None:
    prompt, body = LONG.split('"""\n', 1)[0] + '"""\n', LONG.split('"""\n', 1)[1]
    row = {"prompt": prompt, "code": body}
    one = read_problem("own", 1, row, Fields(("prompt",), ("code",), ()))
    assert list(programs(one)) == [LONG, body]
    assert "total" in bound_names(body)
    index = SolutionIndex([one], shortest=12, an_edit=30)
    text = f"class A:\n    def other(self, numbers, threshold=3):\n{textwrap.indent(body, '    ')}"
    assert [row for row, _ in index.leaks([text.encode()])] == [0]


def test_no_solutions() -> None:
    assert list(SolutionIndex([], 12, 30).leaks([LONG.encode(), b""])) == []
    assert list(SolutionIndex([Problem("b", "t", "", solutions=("",))], 12, 30).leaks([b"x"])) == []


def test_many_solutions_in_random_order() -> None:
    """Every one of many similar programs is found as itself, and only it."""
    rng = random.Random(3)
    operators = ["+", "-", "*", "//", "%"]
    codes = [
        f"def f{number}(a, b, c):\n    d = a {rng.choice(operators)} {number}\n"
        f"    return (d {rng.choice(operators)} b) {rng.choice(operators)} (c - {number})\n"
        for number in range(100)
    ]
    index = SolutionIndex([problem(code, number) for number, code in enumerate(codes)], 12, 30)
    order = rng.sample(range(100), 100)
    leaks = index.leaks([renamed(codes[number], number).encode() for number in order])
    assert sorted((row, leak.problem) for row, leak in leaks) == list(enumerate(order))


@pytest.mark.parametrize("language", LANGUAGES)
def test_renamed_programs_of_other_languages_are_found(language: str) -> None:
    code = IN_FIVE[language]
    index = SolutionIndex([problem(code)], shortest=12, an_edit=30)
    for seed in range(3):
        text = renamed_in(language, code, seed)
        assert "total" not in text
        assert [leak.problem for _, leak in index.leaks([text.encode()])] == [0]
    other = code.replace("17", "18").replace("total", "total * total")
    assert not list(index.leaks([renamed_in(language, other, 0).encode()]))
