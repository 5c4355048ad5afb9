"""Published benchmarks by their names: which files are found, how each is asked, both profiles side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax.benchmarks.readers.table import load
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.evaluate import main
from opencoder_jax.evaluation.tasks import tasks
from opencoder_jax.recipe import UserError

PROMPT = 'def one(number: int) -> int:\n    """Return what follows."""\n'
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": PROMPT,
    "entry_point": "one",
    "canonical_solution": "    return number + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}
PLUS = HUMANEVAL | {"base_input": [[1]], "plus_input": [[5], [-1]], "atol": 0}
MBPP = [
    {
        "task_id": number,
        "text": f"Write a function that adds {number}.",
        "code": f"def add(x):\r\n\treturn x + {number}",
        "test_list": [f"assert add(1) == {number + 1}"],
        "test_setup_code": "",
    }
    for number in (1, 2, 3, 4, 10, 11, 510)
]
APPS = {
    "problem_id": 7,
    "question": "Read a number, print its double.",
    "solutions": json.dumps(["print(2 * int(input()))"]),
    "input_output": json.dumps({"inputs": ["2\n"], "outputs": ["4\n"]}),
    "difficulty": "introductory",
    "starter_code": "",
}
CRUX = {"id": "sample_0", "code": "def f(x):\n    return x + [1]", "input": "[2]", "output": "[2, 1]"}
INFILLING = HUMANEVAL | {
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "prompt": PROMPT,
    "suffix": "    return more\n",
    "canonical_solution": "    more = number + 1\n",
}
BIGCODE = {
    "task_id": "BigCodeBench/0",
    "complete_prompt": 'import math\ndef task_func(x):\n    """Its root."""\n',
    "instruct_prompt": "Write task_func(x), the root.",
    "code_prompt": "import math\ndef task_func(x):\n",
    "canonical_solution": "    return math.sqrt(x)\n",
    "test": "import unittest\nclass TestCases(unittest.TestCase):\n"
    "    def test_it(self):\n        self.assertEqual(task_func(4), 2)\n",
}
FILES: dict[str, list[dict[str, Any]]] = {
    "HumanEval.jsonl": [HUMANEVAL],
    "deep/HumanEvalPlus-v0.1.10.jsonl": [PLUS],
    "mbpp.jsonl": MBPP,
    "apps_test.jsonl": [APPS],
    "cruxeval.jsonl": [CRUX],
    "HumanEval-SingleLineInfilling.jsonl": [INFILLING],
    "BigCodeBench-v0.1.4.jsonl": [BIGCODE],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARKS", raising=False)
    folder = tmp_path / "files"
    for name, rows in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scores(directory: Path, profile: str = "") -> dict[str, Any]:
    return json.loads((directory / f"score{profile}.json").read_text())


def rows(directory: Path, profile: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / f"rows{profile}.jsonl").read_text().splitlines()]


def test_all_runs_what_is_there_and_its_own_answers_pass(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--benchmark=all", f"--benchmark_files={folder}", "--references", f"--output={tmp_path / 'out'}"]
    main([*command, "--gin.EvaluateConfig.profiles=('strict', 'opencoder')", "--gin.EvaluateConfig.workers=1"])
    printed = capsys.readouterr().out
    names = ["humaneval", "humaneval+", "humaneval-infilling-single-line", "mbpp", "apps", "bigcodebench-complete"]
    for name in [*names, "bigcodebench-instruct", "cruxeval-output", "cruxeval-input"]:
        assert scores(tmp_path / "out" / name)["pass_at_k"]["pass@1"]["estimate"] == 1, name
    assert "without a file: humaneval-infilling-multi-line" in printed
    assert printed.count("profile opencoder") == 5  # its evaluator has no others
    about = json.loads((tmp_path / "out" / "humaneval+" / "run.json").read_text())
    assert about["benchmark"]["edition"] == "unknown"
    assert about["toolchains"].keys() == {"Python"}
    assert len(about["code"]) == 16
    assert scores(tmp_path / "out" / "humaneval+")["older"]["estimate"] == 1
    assert scores(tmp_path / "out" / "apps")["by_level"] == {"introductory": [1.0, 1]}


def test_a_benchmark_without_its_file_says_which(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mbpp\+: no MbppPlus\*\.jsonl\* in .*files; evalplus/mbppplus_release"):
        main(["--benchmark=mbpp+", f"--benchmark_files={folder}", "--references", f"--output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match=r"no file of any benchmark in .*cache/opencoder_jax/benchmarks"):
        main(["--benchmark=all", "--references", f"--output={tmp_path / 'out'}"])


def test_an_answer_right_on_the_older_inputs_alone_is_told(folder: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"task_id": "HumanEval/0", "completion": "    return 2\n"}) + "\n")
    flags = [f"--benchmark_files={folder}", f"--samples={samples}", f"--output={tmp_path / 'out'}"]
    main(["--benchmark=humaneval+", *flags, "--gin.EvaluateConfig.workers=1"])
    found = scores(tmp_path / "out" / "humaneval+")
    assert (found["pass_at_k"]["pass@1"]["estimate"], found["older"]["estimate"]) == (0, 1)
    assert "input 1" in rows(tmp_path / "out" / "humaneval+")[0]["detail"]


def test_opencoders_evaluator_loses_what_it_prunes(folder: Path, tmp_path: Path) -> None:
    """The helper has no `return`, the table is used as `TABLE.get`: its sanitizer drops both."""
    answer = (
        "```python\nTABLE = {1: 2}\n\ndef note(number):\n    print(number)\n\n"
        "def one(number):\n    note(number)\n    return TABLE.get(number)\n```\n"
    )
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"task_id": "HumanEval/0", "solution": answer}) + "\n")
    flags = [f"--benchmark_files={folder}", f"--samples={samples}", f"--output={tmp_path / 'out'}"]
    profiles = "--gin.EvaluateConfig.profiles=('strict', 'opencoder')"
    main(["--benchmark=humaneval", *flags, profiles, "--gin.EvaluateConfig.workers=1"])
    output = tmp_path / "out" / "humaneval"
    assert [row["outcome"] for row in rows(output)] == ["passed"]
    assert [row["outcome"] for row in rows(output, ".opencoder")] == ["runtime_error"]
    assert scores(output, ".opencoder")["pass_at_k"]["pass@1"]["estimate"] == 0
    kept = rows(output, ".opencoder")[0]["code"]
    assert "def one" in kept
    assert "TABLE =" not in kept
    assert "def note" not in kept


def test_mbpp_shows_three_tasks_and_asks_its_test_split(folder: Path) -> None:
    loaded = load("mbpp", folder)
    found = tasks(loaded, EvaluateConfig())
    assert [task.task_id for task in found] == ["Mbpp/11", "Mbpp/510"]
    assert [found[0].text.count(word) for word in ("[BEGIN]", "[DONE]", "adds 2.", "adds 3.", "adds 4.")] == [
        4,
        3,
        1,
        1,
        1,
    ]
    assert found[0].text.endswith("assert add(1) == 12\n[BEGIN]\n")
    assert "adds 1." not in found[0].text
    other = tasks(loaded, EvaluateConfig(prompts="opencoder"))
    assert [task.task_id for task in other] == ["Mbpp/10", "Mbpp/11"]  # it counts from 0
    assert "adds 1." in other[0].text
    assert "adds 4." not in other[0].text
    assert other[0].text.endswith("assert add(1) == 11\n\n```python\n")


def test_infilling_is_asked_with_the_models_marks(folder: Path) -> None:
    (task,) = tasks(load("humaneval-infilling-single-line", folder), EvaluateConfig(fim=("<P>", "<S>", "<M>")))
    assert task.text == f"<P>{PROMPT}<S>    return more\n<M>"
    assert task.stops == ("\n",)
