"""The programs of published problems: heads and bodies together, and the names that are their own."""

import json

from opencoder_jax.beam_pipelines.decontamination.programs import bound_names, programs
from opencoder_jax.benchmarks.problems import known_fields, read_problem


def found(**row: str) -> list[str]:
    return list(programs(read_problem("b", 1, row, known_fields())))


def test_a_body_stands_behind_its_prompt_and_alone() -> None:
    prompt, body = "def add(x, y):\n", "    return x + y\n"
    assert found(prompt=prompt, canonical_solution=body) == [prompt + body, body]
    assert found(prompt="Adds.", canonical_solution=body) == [body]
    assert bound_names(prompt + body) == {"add", "x", "y"}


def test_whole_programs_are_as_they_are() -> None:
    code = "def helper(x):\r\n\treturn x\r\ndef add_up(a, b):\r\n\treturn helper(a) + b"
    assert found(text="Write a function to add.", code=code) == [code]
    assert bound_names(code) == {"helper", "x", "add_up", "a", "b"}
    many = ["n = int(input())\nprint(2 * n)", "print(int(input()) * 2)"]
    assert found(question="Given n, print 2n.", solutions=json.dumps(many)) == many


def test_what_binds_no_names() -> None:
    assert bound_names("[print(x) for x in y]") == {"x"}
    assert bound_names("[1\n2") == bound_names("") == frozenset()
    assert found(prompt="// Adds.\nfunction add(x, y){\n", tests="assert(add(1, 2) === 3);") == []
