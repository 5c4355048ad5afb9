"""The programs of published problems: heads and bodies together, and the names that are their own."""

import json

import pytest

from opencoder_jax.beam_pipelines.decontamination.names import bound_names
from opencoder_jax.beam_pipelines.decontamination.programs import programs
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


IN_OTHER_LANGUAGES = {
    "C++": "int sum(vector<int>& in, int *is, bool pass = true) { auto [as, lambda] = f(is); for (auto not_ : in) {} }",
    "Go": "func sum(in []int, is ...string) { var pass int; as, lambda := f(); for not_, next := range in { f(as) } }",
    "Java": "class A { int sum(List<Integer> in) { int is = 0, pass; for (int as : in) {} f(lambda -> lambda); } }",
    "JavaScript": "const sum = (inner, is = 1, ...pass) => { let [as, next] = inner; for (const lambda of is) f(as) }",
    "Rust": "fn sum(mut list: Vec<i32>, is: &str) -> i32 { let (pass, mut next) = f(); for set in x { g(|map| map) } }",
}


@pytest.mark.parametrize(
    ("language", "names"),
    [
        ("C++", "sum in is pass as lambda not_"),
        ("Go", "sum in pass as lambda not_ next"),
        ("Java", "sum in is pass as lambda"),
        ("JavaScript", "sum inner is pass as next lambda"),
        ("Rust", "sum list is pass next set map"),
    ],
)
def test_names_of_other_languages(language: str, names: str) -> None:
    bound = bound_names(IN_OTHER_LANGUAGES[language])
    assert set(names.split()) <= bound
    assert not bound & {"f", "g", "int", "vector", "List", "Vec", "i32", "return", "for", "string"}


def test_a_body_in_brackets_is_its_function_without_what_stands_around_it() -> None:
    heads = {
        "import java.util.*;\n\nclass A {\n    /**\n    Adds.\n    */\n    public int add(\n    int x) {\n": "public",
        "/* Adds {1}. */\n#include<math.h>\nusing namespace std;\nint add(int x){\n": "int",
        "// Adds.\nconst add = (x) => {\n": "// Adds.\nconst",
    }
    body = '  if (x) { return "}"; } // }\n  return x;\n}\n}\n'
    for head, begins in heads.items():
        whole, alone = found(prompt=head, canonical_solution=body)
        assert whole.startswith(begins)
        assert whole.endswith("return x;\n}")
        assert alone == body
