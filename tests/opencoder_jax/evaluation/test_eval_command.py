"""The command: what it writes and prints, and one clear line for every wrong file or flag."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from opencoder_jax.benchmarks.problems import OWN, Benchmark, function_problems
from opencoder_jax.evaluation.config import EvaluateConfig
from opencoder_jax.evaluation.evaluate import main
from opencoder_jax.recipe import UserError

PROBLEM = {
    "task_id": "toy/0",
    "prompt": 'def one() -> int:\n    """Return 1."""\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


def write(path: Path, *lines: Any) -> Path:
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return write(tmp_path / "toy.jsonl.gz", PROBLEM, PROBLEM | {"task_id": "toy/1", "level": 2})


def run(benchmark: Path, samples: Path, output: Path, *flags: str) -> dict[str, Any]:
    main([f"--benchmark_file={benchmark}", f"--samples={samples}", f"--output={output}", *flags])
    return json.loads((output / "score.json").read_text())


def test_samples_are_scored(benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = write(
        tmp_path / "samples.jsonl",
        {"task_id": "toy/0", "completion": "    return 1\n", "finish_reason": "stop", "tokens": 5},
        {"task_id": "toy/1", "solution": "```python\ndef one():\n    return 2\n```", "finish_reason": "length"},
    )
    output = tmp_path / "scores"
    found = run(benchmark, samples, output)
    assert found["pass_at_k"]["pass@1"]["estimate"] == 0.5
    assert (found["tasks"], found["samples"], found["closed"]) == (2, 2, 0.5)
    assert found["outcomes"] == {"passed": 1, "wrong_answer": 1}
    assert found["methods"] == {"completion": 1, "fence": 1}
    assert set(found["sandbox"]) >= {"landlock", "seccomp"}
    printed = capsys.readouterr().out
    assert "pass@1           50.0%   95 % interval 0.0% to 100.0%" in printed
    assert len((output / "samples.jsonl").read_text().splitlines()) == 2
    rows = (output / "rows.jsonl").read_bytes()
    assert run(benchmark, samples, output) == found
    assert (output / "rows.jsonl").read_bytes() == rows  # nothing was run again


def test_a_folder_of_samples_that_changed_is_another_evaluation(
    benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_sandbox(*_: Any, **__: Any) -> None:
        raise UserError("no sandbox today")

    monkeypatch.setattr("opencoder_jax.evaluation.evaluate.sandbox", no_sandbox)
    for task, value in (("toy_0", 1), ("toy_1", 2)):
        (tmp_path / "samples" / task).mkdir(parents=True)
        write(tmp_path / "samples" / task / "0.py", f"def one():\n    return {value}\n")
    output = tmp_path / "samples" / "scores"
    for _ in range(2):
        with pytest.raises(UserError, match="no sandbox today"):
            run(benchmark, tmp_path / "samples", output)
    before = (output / "samples.jsonl").read_bytes()
    write(tmp_path / "samples" / "toy_1" / "0.py", "def one():\n    return 1\n")
    with pytest.raises(UserError, match="another evaluation: its samples differ"):
        run(benchmark, tmp_path / "samples", output)
    assert (output / "samples.jsonl").read_bytes() == before


def test_the_projects_own_problems_are_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = function_problems(Benchmark.read(OWN))
    lines = [{"task_id": problem.task_id, "completion": problem.solution} for problem in problems]
    samples = write(tmp_path / "samples.jsonl", *lines)
    main([f"--samples={samples}", f"--output={tmp_path / 'scores'}", "--gin_file=gin_configs/evaluate/humaneval.gin"])
    assert json.loads((tmp_path / "scores" / "score.json").read_text())["pass_at_k"]["pass@1"]["low"] == 1 - 3 / 228
    assert "pass@1          100.0%   95 % interval 98.7% to 100.0%" in capsys.readouterr().out  # the rule of three


def test_what_is_not_read_is_refused_or_told(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"task_id": f"toy/{number}", "completion": "    return 1\n", "passed": True} for number in (0, 1)]
    samples = write(tmp_path / "samples.jsonl", *lines)
    plus = write(tmp_path / "plus.jsonl", PROBLEM | {"base_input": [[1]], "plus_input": [[2]], "atol": 0})
    with pytest.raises(UserError, match=r"plus\.jsonl: base_input, plus_input may hold tests"):
        run(plus, samples, tmp_path / "out")
    run(benchmark, samples, tmp_path / "out")
    assert "samples.jsonl: ignored passed" in capsys.readouterr().out
    both = write(tmp_path / "both.jsonl", lines[0] | {"solution": ""})
    with pytest.raises(UserError, match="line 1: has a completion and a solution"):
        run(benchmark, both, tmp_path / "out")


@pytest.mark.parametrize("line", ["{", "[1]", "3\n", '{"task_id": "toy/2"}', '{"task_id": 3}'])
def test_a_broken_benchmark_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    benchmark = write(tmp_path / "bad.jsonl", PROBLEM, "\n", line)
    with pytest.raises(UserError, match=r"bad\.jsonl, line 3: "):
        run(benchmark, tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"task_id": "toy/7", "completion": ""}, "line 2: toy/7 is no problem of this benchmark"),
        ({"task_id": "toy/0"}, "line 2: the field 'solution' is missing; it has task_id"),
        (
            {"task_id": "toy/0", "completion": None},
            "line 2: the field 'completion' must be of type str, it is NoneType",
        ),
        ({"task_id": "toy/1", "completion": "", "tokens": "5"}, "line 2: the field 'tokens' must be of type int"),
        (
            {"task_id": "toy/1", "completion": "", "finish_reason": 1},
            "line 2: the field 'finish_reason' must be of type",
        ),
        ({"task_id": "toy/0", "completion": "", "sample": 0}, "line 2: sample 0 of toy/0 stands in the file twice"),
        ("not JSON\n", "line 2: not JSON"),
    ],
)
def test_broken_samples_are_named_with_their_line(benchmark: Path, tmp_path: Path, line: Any, message: str) -> None:
    samples = write(tmp_path / "samples.jsonl", {"task_id": "toy/0", "completion": ""}, line)
    with pytest.raises(UserError, match=message):
        run(benchmark, samples, tmp_path / "out")


def test_wrong_files_are_one_line(benchmark: Path, tmp_path: Path) -> None:
    samples = write(tmp_path / "samples.jsonl", {"task_id": "toy/0", "completion": ""})
    with pytest.raises(UserError, match=r"1 of 2 problems have fewer than 1 samples.*toy/1 with 0"):
        run(benchmark, samples, tmp_path / "out")
    with pytest.raises(UserError, match=r"missing\.jsonl: no such file"):
        run(benchmark, tmp_path / "missing.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match="not a file of JSON lines"):
        run(tmp_path, samples, tmp_path / "out")
    with pytest.raises(UserError, match="holds no problems"):
        run(write(tmp_path / "empty.jsonl"), samples, tmp_path / "out")
    (tmp_path / "binary.jsonl.gz").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.jsonl\.gz: not a file of JSON lines"):
        run(tmp_path / "binary.jsonl.gz", samples, tmp_path / "out")
    with pytest.raises(UserError, match="line 1: has no test that defines check"):
        run(write(tmp_path / "asserts.jsonl", PROBLEM | {"test": "assert one() == 1"}), samples, tmp_path / "out")
    with pytest.raises(UserError, match="line 1: has no prompt"):
        run(write(tmp_path / "mute.jsonl", PROBLEM | {"prompt": None}), samples, tmp_path / "out")
    twice = write(tmp_path / "twice.jsonl", PROBLEM, PROBLEM)
    with pytest.raises(UserError, match=r"line 2: toy/0 stands in the file twice"):
        run(twice, samples, tmp_path / "out")
    with pytest.raises(UserError, match="the entry point 'a b' is no name"):
        run(write(tmp_path / "name.jsonl", PROBLEM | {"entry_point": "a b"}), samples, tmp_path / "out")


def test_a_directory_belongs_to_one_evaluation(benchmark: Path, tmp_path: Path) -> None:
    lines = [{"task_id": f"toy/{number}", "completion": "    return 1\n"} for number in (0, 1)]
    output = tmp_path / "scores"
    run(benchmark, write(tmp_path / "samples.jsonl", *lines), output)
    with pytest.raises(UserError, match="holds another evaluation: its samples differ"):
        run(benchmark, write(tmp_path / "others.jsonl", *lines[::-1]), output)
    with pytest.raises(UserError, match="its settings differ"):
        run(benchmark, tmp_path / "samples.jsonl", output, "--gin.EvaluateConfig.cpu_seconds=1")
    run(benchmark, tmp_path / "samples.jsonl", output, "--gin.EvaluateConfig.workers=1")  # changes no verdict


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("samples_per_problem", 0, "samples_per_problem=0: must be 1 or more"),
        ("ks", (1, 5), "pass@5 needs samples_per_problem=5"),
        ("ks", (), "each k"),
        ("stop", ("",), "an empty string"),
        ("cpu_seconds", 0, "cpu_seconds=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**{field: value})


def test_either_samples_or_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--samples --checkpoint --server --references is required"):
        main([f"--output={tmp_path}"])
