"""Benchmarks in the forms in which they are published."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from opencoder_jax.benchmarks.problems import Benchmark, Fields, known_fields, read_problem
from opencoder_jax.recipe import UserError

FIELDS = known_fields()

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def add(x, y):\n",
    "entry_point": "add",
    "canonical_solution": "    return x + y\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to add.",
    "code": "def helper(x):\r\n\treturn x\r\ndef add_up(a, b):\r\n\treturn helper(a) + b",
    "test_list": ["assert add_up(1, 2) == 3", "assert add_up(0, 0) == 0"],
    "challenge_test_list": [],
}
APPS = {
    "problem_id": 7,
    "question": "Given n, print 2n.",
    "solutions": json.dumps(["n = int(input())\nprint(2 * n)", "print(int(input()) * 2)"]),
    "input_output": '{"inputs": ["1\\n"]}',
    "starter_code": "",
}
MULTIPLE = {
    "name": "HumanEval_0_add",
    "prompt": "// Adds.\nfunction add(x, y){\n",
    "tests": "let candidate = add;\nassert(candidate(1, 2) === 3);",
}
CPP = {"name": "HumanEval_0_add", "prompt": "// Adds.\nlong add(long x, long y) {\n", "tests": "auto candidate = add;"}


def test_published_forms() -> None:
    one, two, three, four, five = (
        read_problem("b", number, row, FIELDS) for number, row in enumerate([HUMANEVAL, MBPP, APPS, MULTIPLE, CPP], 1)
    )
    assert (one.task, one.entry_point) == ("HumanEval/0", "add")
    assert (one.solutions, one.tests) == ((HUMANEVAL["canonical_solution"],), (HUMANEVAL["test"],))
    assert (two.task, two.entry_point, two.texts) == ("11", "add_up", (MBPP["text"],))
    assert two.tests == ("assert add_up(1, 2) == 3\nassert add_up(0, 0) == 0",)
    assert two.solutions == (MBPP["code"],)
    assert (three.task, three.entry_point, len(three.solutions), three.tests) == ("7", "", 2, ())
    assert [(problem.task, problem.entry_point, problem.solutions) for problem in (four, five)] == [
        ("HumanEval_0_add", "add", ())
    ] * 2
    assert one.name == "b: HumanEval/0"


def test_fields_of_ones_own() -> None:
    row = {"frage": "Was ist 2 + 2?", "antwort": ["[1", "2"], "prompt": "not named"}
    problem = read_problem("b", 3, row, Fields(("frage",), ("antwort",), ()))
    assert (problem.task, problem.texts) == ("line 3", ("Was ist 2 + 2?",))
    assert problem.solutions == ("[1\n2",)
    code = "[print(x) for x in y]"  # begins as a list in JSON does
    assert read_problem("b", 1, {"code": code}, FIELDS).solutions == (code,)


def test_packed_files(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in (HUMANEVAL, MBPP)).encode()
    plain, packed, zst = (tmp_path / name for name in ("p.jsonl", "p.jsonl.gz", "p.jsonl.zst"))
    plain.write_bytes(lines)
    packed.write_bytes(gzip.compress(lines))
    with pa.CompressedOutputStream(str(zst), "zstd") as stream:
        stream.write(lines)
    tasks = [[problem.task for problem in Benchmark.read(str(file)).problems] for file in (plain, packed, zst)]
    assert tasks == [["HumanEval/0", "11"]] * 3
    for file in (packed, zst):
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(UserError, match=rf"{file.name}: not a file of JSON lines \(.*(ended before|Truncated)"):
            Benchmark.read(str(file))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "bad.jsonl, line 2: not JSON"),
        (b"[1]", "bad.jsonl, line 2: a JSON object is wanted, this is a list"),
        (b"null", "bad.jsonl, line 2: a JSON object is wanted, this is a NoneType"),
        (b'{"prompt": "\xff"}', "bad.jsonl, line 2: not JSON"),
        (b'{"task_id": "x"}', "bad.jsonl, line 2: has none of the fields prompt, text,.*; it has task_id"),
        (b'{"prompt": null}', "bad.jsonl, line 2: has none of the fields"),
    ],
)
def test_a_bad_benchmark_names_file_and_line(line: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b'{"prompt": "a\xe2\x80\xa8b"}\n' + line + b"\n")  # U+2028 ends no line of JSON
    with pytest.raises(UserError, match=complaint.replace("bad.", r"bad\.")):
        Benchmark.read(str(file))


def test_a_missing_benchmark() -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        Benchmark.read("nowhere.jsonl")


def test_what_was_read_of_a_file_is_told(tmp_path: Path) -> None:
    live = {
        "question_id": "9001",
        "question_content": "Find the fewest replacements.",
        "starter_code": "class Solution:\n",
        "public_test_cases": '[{"input": "1", "output": "2"}]',
        "difficulty": "easy",
    }
    contests = {"name": "c", "description": "Print n.", "solutions": {"language": [3], "solution": ["print(input())"]}}
    plus = {"task_id": "Mbpp/2", "prompt": "Write.", "code": "x = 1", "assertion": "assert x", "plus_input": [[1]]}
    for rows, told in (
        ([live], "1 problems; read question_id, question_content, starter_code; ignored public_test_cases, difficulty; "
                 "1 without solutions, 1 without tests"),
        ([contests], "1 problems; read name, description, solutions; ignored none; 1 without tests"),
        ([plus, HUMANEVAL], "2 problems; read task_id, prompt, code, assertion, entry_point, canonical_solution, test; "
                            "ignored plus_input; all with all parts"),
    ):  # fmt: skip
        (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
        benchmark = Benchmark.read(str(tmp_path / "b.jsonl"))
        assert benchmark.told == f"b.jsonl: {told}"
    # What is known by its name and of another kind isn't read.
    (tmp_path / "b.jsonl").write_text(json.dumps({**HUMANEVAL, "tests": [{"input": 1}]}))
    assert Benchmark.read(str(tmp_path / "b.jsonl")).ignored_fields == ("tests",)
