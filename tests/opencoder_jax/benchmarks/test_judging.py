"""What is judged passed, and what isn't, of each kind of problem, on rows as the files have them."""

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.benchmarks import judging
from opencoder_jax.benchmarks.comparing import agrees
from opencoder_jax.benchmarks.differential import functions
from opencoder_jax.benchmarks.problems import FunctionProblem
from opencoder_jax.benchmarks.programs import ProgramProblem, same_output, within
from opencoder_jax.benchmarks.readers import apps, bigcodebench, cruxeval, humaneval, mbpp, polyglot
from opencoder_jax.benchmarks.readers.table import BENCHMARKS, load, present
from opencoder_jax.recipe import UserError
from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(cpu_seconds=2, idle_seconds=2), workers=2) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def languages(sandbox: Sandbox) -> Polyglot:
    if sandbox.layers["pid namespace"] != "active" or sandbox.layers["read-only mounts"] != "active":
        pytest.skip("no commands are run here")
    return Polyglot(sandbox)


def called(sandbox: Sandbox, problem: FunctionProblem | ProgramProblem, program: str) -> str:
    assert isinstance(problem, FunctionProblem)
    outcome = sandbox.run(*judging.call(problem, program))
    return outcome.status + outcome.error


def judged(sandbox: Sandbox, languages: Polyglot, problem: object, program: str) -> str:
    assert isinstance(problem, ProgramProblem)
    return judging.judge(problem, program, sandbox, languages).verdict


PLUS = {
    "task_id": "HumanEval/900",
    "prompt": "def scaled(values, by):\n",
    "entry_point": "scaled",
    "canonical_solution": "    return [value * by for value in values]\n",
    "base_input": [[[1, 2], 2]],
    "plus_input": [[[], 3], [[0.5], 0.1], [[10**400], 7]],
    "atol": 0,
}


def test_plus_inputs_are_compared_in_the_judge(sandbox: Sandbox, tmp_path: Path) -> None:
    (problem,) = functions(humaneval.plus([PLUS]), "abc", tmp_path, workers=1)
    head = PLUS["prompt"]
    right = str(head) + str(PLUS["canonical_solution"])
    assert called(sandbox, problem, right) == "ok"
    assert called(sandbox, problem, f"{head}    return [by * v + 1e-9 for v in values] if by < 1 else {right[-37:]}")[
        :2
    ]
    for wrong in (
        "    return [value + value for value in values]\n",  # right on the older inputs
        "    return [value * by for value in values] or None\n",
        "    values[:] = [value * by for value in values]\n",
        "    return [float(value * by) for value in values]\n",
    ):
        assert called(sandbox, problem, f"{head}{wrong}").startswith("exception"), wrong
    # The reference's values come from the cache the second time: a file that names others would judge by them.
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("[2, 4]", "[2, 5]"))
    (changed,) = functions(humaneval.plus([PLUS]), "abc", tmp_path)
    assert called(sandbox, changed, right) == "exceptionAssertionError"


def test_a_reference_that_fails_is_no_benchmark(tmp_path: Path) -> None:
    broken = PLUS | {"canonical_solution": "    return values / by\n"}
    with pytest.raises(UserError, match=r"HumanEval/900: the benchmark's own reference fails: exception TypeError"):
        functions(humaneval.plus([broken]), "abc", tmp_path, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("got", "wanted", "absolute", "rule", "result"),
    [
        (1.0, 1.0 + 1e-9, 0, "", True),
        (1.0, 1.001, 0, "", False),
        ([1.0, 2.0], [1.0, 2.0 + 1e-9], 0, "", True),
        ([1.0], [1.0, 2.0], 0, "", False),
        (None, 1.0, 0, "", False),
        ("1.0", 1.0, 1e-6, "", False),
        (float("nan"), float("nan"), 1e-6, "", True),
        (float("inf"), 1e300, 1e-6, "", False),
        ([[1.0], ["a"]], [[1.0 + 1e-9], ["a"]], 1e-6, "", True),
        (1, 2, 0, "", False),
        (5, False, 0, "found", False),
        (None, False, 0, "found", True),
        (True, True, 0, "found", True),
        (0, 7, 0, "or zero", True),
        (1, 7, 0, "or zero", False),
        (3, True, 0, "truth", False),
        (False, True, 0, "truth", True),
    ],
)
def test_values_agree(got: object, wanted: object, absolute: float, rule: str, result: bool) -> None:
    assert agrees(got, wanted, absolute, rule, []) is result


def test_any_root_is_right_and_nothing_below_zero_is_one() -> None:
    line = [[-4, 0, 1]]  # x² - 4
    assert agrees(2.0, -2.0, 1e-4, "root", line)
    assert not agrees(1.9, -2.0, 1e-4, "root", line)
    assert not agrees(0.0, -2.0, 1e-4, "root", line)  # -4 <= 0.0001
    assert not agrees(float("nan"), -2.0, 1e-4, "root", line)
    assert not agrees(True, -2.0, 1e-4, "root", line)


MBPP: dict[str, Any] = {
    "task_id": 11,
    "text": "Double it.",
    "code": "import math\r\ndef twice(x):\r\n\treturn 2 * x",
    "test_list": ["assert twice(2) == 4", "assert twice(math.pi) == math.tau"],
    "test_setup_code": "",
}


def test_mbpp(sandbox: Sandbox) -> None:
    (problem,) = mbpp.plain([MBPP])
    assert called(sandbox, problem, problem.solution) == "ok"
    assert called(sandbox, problem, "def twice(x): return x + 2") == "exceptionAssertionError"
    assert called(sandbox, problem, "def twice(x): raise SystemExit") == "exitedSystemExit"
    matching = {
        "code": "import re\ndef found(x): return re.search('a', x)",
        "test_list": ["assert found('ba')", "assert not found('b')"],
    }
    (problem,) = mbpp.plain([MBPP | matching])
    assert called(sandbox, problem, problem.solution) == "ok"
    assert called(sandbox, problem, "def found(x): return 1") == "exceptionAssertionError"


def test_mbpp_whose_tests_use_a_class_of_the_answer(sandbox: Sandbox, languages: Polyglot) -> None:
    code = "class Pair:\n    def __init__(self, a): self.a = a\ndef first(pair): return pair.a"
    (problem,) = mbpp.plain([MBPP | {"code": code, "test_list": ["assert first(Pair(3)) == 3"]}])
    assert judged(sandbox, languages, problem, code) == "passed"
    assert judged(sandbox, languages, problem, code.replace("pair.a", "4")) == "wrong_answer"
    assert judged(sandbox, languages, problem, "raise SystemExit(0)") == "exited"
    assert judged(sandbox, languages, problem, "import os; os._exit(0)") == "exited"


def test_the_published_prompt_of_mbpp_shows_three_tasks() -> None:
    rows = [MBPP | {"task_id": number, "text": f"Task {number}."} for number in range(1, 12)]
    prompt = mbpp.shots(rows, rows[10])
    assert [prompt.count(f"Task {number}.") for number in (1, 2, 3, 4, 5, 11)] == [0, 1, 1, 1, 0, 1]
    assert prompt.count("[BEGIN]") == 4
    assert prompt.count("[DONE]") == 3
    assert prompt.endswith("[BEGIN]\n")
    assert "\r" not in prompt


def test_arguments_of_mbpp_plus_get_their_types() -> None:
    assert mbpp.arguments("Mbpp/2", [[1, 2], [3]]) == [(1, 2), (3,)]
    assert mbpp.arguments("Mbpp/75", [[[1], [2]], 3]) == [[(1,), (2,)], 3]
    assert mbpp.arguments("Mbpp/252", ["1+2j"]) == [1 + 2j]
    assert mbpp.arguments("Mbpp/580", [[1, [2, [3]]]]) == [(1, (2, (3,)))]
    assert mbpp.arguments("Mbpp/3", [[1, 2]]) == [[1, 2]]


APPS: dict[str, Any] = {
    "problem_id": 7,
    "question": "Add.",
    "starter_code": "",
    "solutions": json.dumps(["print(sum(map(int, input().split())))"]),
    "difficulty": "interview",
    "input_output": json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}),
}


def test_a_program_that_reads_and_prints(sandbox: Sandbox, languages: Polyglot) -> None:
    (problem,) = apps.apps([APPS])
    assert judged(sandbox, languages, problem, problem.solution) == "passed"
    for program, verdict in {
        "print(3)": "wrong_answer",
        "print(sum(map(int, input().split())), 'and more')": "wrong_answer",
        "print(sum(map(int, input().split()))); print()": "passed",
        "print(sum(map(int, input().split()))); exit()": "passed",
        "print(sum(map(int, input().split()))); 1 / 0": "runtime_error",
        "while True: pass": "timeout",
        "print(": "syntax_error",
    }.items():
        assert judged(sandbox, languages, problem, program) == verdict, program


@pytest.mark.parametrize(
    "reading",
    [
        "input()",
        "sys.stdin.readline()",
        "sys.stdin.read()",
        "sys.stdin.buffer.readline().decode()",
        "next(line for line in sys.stdin)",
        "sys.stdin.buffer.readlines()[0].decode()",
        "(sys.stdin.readline() or '') + sys.stdin.read()",
        "os.read(0, 100).decode()",
        "open('/dev/stdin').read()",
        "open(0).read()",
    ],
)
def test_every_way_to_read(sandbox: Sandbox, languages: Polyglot, reading: str) -> None:
    (problem,) = apps.apps([APPS])
    program = f"import os, sys\ndef total():\n    global text\n    text = {reading}\ntotal()\n"
    program += "print(sum(map(int, text.split())))"
    assert judged(sandbox, languages, problem, program) == "passed"


def test_a_function_of_a_contests_site(sandbox: Sandbox) -> None:
    tests = {"fn_name": "pair", "inputs": [[1, 2], [3, 4]], "outputs": [[1, 2], [[3, 4]]]}
    (problem,) = apps.apps([APPS | {"input_output": json.dumps(tests)}])
    method = "class Solution:\n    def pair(self, a: int, b: int) -> List[int]:\n        return (a, b)"
    assert called(sandbox, problem, apps.PREAMBLE + method) == "ok"
    assert called(sandbox, problem, "def pair(a, b): return [a, b]") == "ok"
    assert called(sandbox, problem, "def pair(a, b): return [b, a]") == "exceptionAssertionError"


def packed(tests: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def test_livecodebench(sandbox: Sandbox, languages: Polyglot) -> None:
    row = {
        "question_id": "a",
        "question_content": "Add.",
        "starter_code": "",
        "contest_date": "2024-05-01T00:00:00",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3"}]),
        "private_test_cases": packed([{"input": "5 6\n", "output": "11"}]),
        "metadata": "{}",
    }
    method = {
        "question_id": "b",
        "contest_date": "2024-06-01T00:00:00",
        "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "6"}]),
        "private_test_cases": "[]",
        "metadata": '{"func_name": "total"}',
    }
    program, function = apps.livecodebench([row, row | method])
    assert isinstance(program, ProgramProblem)
    assert [case[1] for case in program.cases] == ["3", "11"]
    assert judged(sandbox, languages, program, "print(3)") == "wrong_answer"
    assert called(sandbox, function, "class Solution:\n    def total(self, a, b): return sum(a) + b") == "ok"
    assert within([program], date(2024, 5, 1), date(2024, 6, 1)) == [program]
    assert within([program], None, date(2024, 5, 1)) == []
    assert [each["question_id"] for each in apps.between([row, row | method], date(2024, 5, 2), None)] == ["b"]


class Harmless:
    """What a pickle that runs code would do."""

    def __reduce__(self) -> Any:
        return print, ("a pickle ran",)


def test_private_tests_hold_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    text = base64.b64encode(zlib.compress(pickle.dumps(Harmless()))).decode()
    row = {"question_id": "a", "question_content": "", "public_test_cases": "[]", "private_test_cases": text}
    with pytest.raises(UserError, match=r"name builtins\.print: they may hold text only"):
        apps.livecodebench([row])
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="neither JSON nor packed JSON"):
        apps.livecodebench([row | {"private_test_cases": "@@@"}])


def test_cruxeval(sandbox: Sandbox) -> None:
    rows = [{"id": "sample_0", "code": "def f(a, b=1):\n    return [a, b]", "input": "3, b=4", "output": "[3, 4]"}]
    (output,), (given,) = cruxeval.problems(rows, "output"), cruxeval.problems(rows, "input")
    for problem, answers in (
        (output, {"[3, 4]": "ok", "[3]": "exceptionAssertionError", "f(3, b=4)": "exceptionNameError"}),
        (given, {"3, b=4": "ok", "3, 4": "ok", "4, 3": "exceptionAssertionError"}),
    ):
        for text, verdict in answers.items():
            program = cruxeval.answer(problem, text)
            assert program
            assert called(sandbox, problem, program) == verdict, text
    for text in "3) + (4", "x = 3", "", "3\n)\nf(3":
        assert cruxeval.answer(given, text) is None or called(sandbox, given, str(cruxeval.answer(given, text))) != "ok"


def test_infilling(sandbox: Sandbox) -> None:
    row = {
        "task_id": "SingleLineInfilling/HumanEval/0/L0",
        "entry_point": "double",
        "prompt": "def add(a, b): return a + b\ndef double(x):\n    if x",
        "suffix": ":\n        return 0\n    return add(x, x)\n",
        "canonical_solution": " == 0",
        "test": "def check(candidate):\n    assert candidate(2) == add(2, 2)\n    assert candidate(0) == 0\n",
    }
    (problem,) = humaneval.infilling([row])
    assert called(sandbox, problem.function, problem.program(" == 0")) == "ok"
    assert called(sandbox, problem.function, problem.program(" == 2")) == "exceptionAssertionError"


def test_bigcodebench(sandbox: Sandbox, languages: Polyglot) -> None:
    row = {
        "task_id": "BigCodeBench/0",
        "complete_prompt": 'import os\ndef task_func():\n    """Where."""\n',
        "instruct_prompt": "Write task_func.",
        "code_prompt": "import os\ndef task_func():\n",
        "canonical_solution": "    return os.getcwd()\n",
        "test": (
            "import unittest\nfrom unittest.mock import patch\nclass TestCases(unittest.TestCase):\n"
            "    def test_it(self):\n        with patch('os.getcwd', return_value='x'):\n"
            "            self.assertEqual(task_func(), 'x')\n"
        ),
    }
    (problem,) = bigcodebench.problems([row], "complete")
    assert judged(sandbox, languages, problem, problem.solution) == "passed"
    assert judged(sandbox, languages, problem, "def task_func(): return 'y'") == "wrong_answer"
    assert judged(sandbox, languages, problem, "import os\nos._exit(0)") == "exited"
    assert judged(sandbox, languages, problem, bigcodebench.calibrated(row, "def task_func(): return os.getcwd()")) == (
        "passed"
    )


JS = {
    "name": "HumanEval_0_double",
    "language": "js",
    "prompt": "function double(x) {\n",
    "tests": "const assert = require('node:assert');\nfunction test() { assert.deepEqual(double(2), 4); }\ntest();",
    "stop_tokens": ["\nfunction "],
}
CPP = {
    "name": "HumanEval_0_double",
    "language": "cpp",
    "prompt": "#include<assert.h>\nlong twice(long x) {\n",
    "tests": "}\nint main() {\n    auto candidate = twice;\n    assert(candidate((2)) == (4));\n}\n",
    "stop_tokens": ["\n}"],
}


def test_programs_of_other_languages(sandbox: Sandbox, languages: Polyglot) -> None:
    (problem,) = polyglot.multipl_e([JS])
    for program, verdict in {
        "function double(x) { return 2 * x; }": "passed",
        "function double(x) { return x; }": "wrong_answer",
        # Cheats: an exit code proves nothing.
        "process.exit(0)": "wrong_answer",
        "function double(x) { process.exit(0); }": "wrong_answer",
        "process.on('exit', () => { process.exitCode = 0; }); function double(x) { return 0; }": "wrong_answer",
        "process.on('uncaughtException', () => {}); function double(x) { return 0; }": "wrong_answer",
        "function double(x) { while (true); }": "timeout",
        "console.log('passed'); process.exit(0);": "wrong_answer",
    }.items():
        assert judged(sandbox, languages, problem, program) == verdict, program


def test_a_completion_and_a_whole_program_of_c_plus_plus(sandbox: Sandbox, languages: Polyglot) -> None:
    (problem,) = polyglot.multipl_e([CPP])
    head = "#include<assert.h>\n#include<stdlib.h>\n"
    assert judged(sandbox, languages, problem, problem.prompt + "    return 2 * x;") == "passed"
    whole = polyglot.whole(problem)
    for program, verdict in {
        "long twice(long x) { return x + x; }": "passed",
        "long twice(long x) { return x; }": "killed",
        "long twice(long x) { exit(0); }": "wrong_answer",
        "long twice(long x) { quick_exit(0); }": "wrong_answer",
        "struct A { A() { exit(0); } } a;\nlong twice(long x) { return x; }": "wrong_answer",
        "long twice(long x) { return y; }": "compile_error",
    }.items():
        assert judged(sandbox, languages, whole, head + program) == verdict, program


def test_the_table_reads_files_by_name_and_knows_their_editions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner/mbpp.jsonl"
    file.write_text(json.dumps(MBPP) + "\n")
    (tmp_path / "sanitized-mbpp.json").write_text(json.dumps([MBPP, MBPP | {"task_id": 12}]))
    assert present(tmp_path) == ["mbpp", "mbpp-sanitized"]
    found = load("mbpp", tmp_path)
    assert (found.edition, len(found.problems), found.path) == ("unknown", 1, file)
    assert load("mbpp", file).sha256 == found.sha256
    assert len(load("mbpp-sanitized", tmp_path).problems) == 2
    monkeypatch.setenv("BENCHMARKS", str(tmp_path))
    assert load("mbpp").told == "mbpp: 1 problems of mbpp.jsonl, edition unknown"
    with pytest.raises(UserError, match=r"humaneval: no HumanEval\.jsonl\* in .*; openai/human-eval publishes it"):
        load("humaneval")
    with pytest.raises(UserError, match="nonsense is no benchmark of the table; they are humaneval, "):
        load("nonsense")
    with pytest.raises(UserError, match="not humaneval as openai/human-eval publishes it: KeyError 'prompt'"):
        load("humaneval", file)
    (tmp_path / "mbpp.jsonl").write_text("")
    with pytest.raises(UserError, match="has several"):
        load("mbpp")
    monkeypatch.delenv("BENCHMARKS")
    with pytest.raises(UserError, match="--benchmark_files=PATH or the variable BENCHMARKS"):
        load("mbpp")


def test_every_benchmark_has_a_source() -> None:
    assert len(BENCHMARKS) >= 70
    for name, row in BENCHMARKS.items():
        assert row.files, name
        assert row.source, name
        assert all(len(digest) == 64 for digest in row.editions)


lines = st.lists(st.lists(st.sampled_from(["a", "1", "2.50", "-3"]), max_size=3), max_size=4)


@given(lines, lines)
def test_outputs_are_the_same_words_on_the_same_lines(one: list[list[str]], other: list[list[str]]) -> None:
    def text(words: list[list[str]]) -> str:
        return "\n".join("  ".join(line) + " " for line in words)

    def trimmed(words: list[list[str]]) -> list[list[str]]:
        while words and not words[-1]:
            words = words[:-1]
        return words

    assert same_output(text(one) + "\n\n", text(one))
    assert same_output(text(one), text(other)) == (trimmed(one) == trimmed(other))


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        ("2.5", "2.50", (0.0, 0.0), True),
        ("2", "2.0", (0.0, 0.0), True),
        ("2.5000001", "2.5", (0.0, 0.0), False),
        ("2.5000001", "2.5", (1e-8, 1e-5), True),
        ("10000000000000001", "10000000000000000", (1e-8, 1e-5), False),
        ("YES", "yes", (0.0, 0.0), False),
        ("nan", "nan", (0.0, 0.0), True),
        ("1\n2", "1 2", (0.0, 0.0), False),
        ("1", "1\n2", (0.0, 0.0), False),
        ("1\n2\n3", "1\n2", (0.0, 0.0), False),
    ],
)
def test_numbers_are_compared_by_value(printed: str, expected: str, tolerance: tuple[float, float], same: bool) -> None:
    assert same_output(printed, expected, tolerance) is same
