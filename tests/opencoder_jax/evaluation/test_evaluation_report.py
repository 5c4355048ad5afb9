"""The report: what the rows say, to open problem by problem, whatever text the model wrote."""

import json
from pathlib import Path

import pytest

from opencoder_jax.evaluation.scores.report import write_report
from opencoder_jax.evaluation.scores.rows import Row
from opencoder_jax.evaluation.scores.score import content, score

EVIL = "</pre><script>alert(1)</script> \ud800"
SOLUTION = "    return number + 1"


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    directory = tmp_path / "humaneval"
    directory.mkdir()
    tasks = ["HumanEval/0", "HumanEval/1"]
    rows = [
        Row(tasks[0], 0, "easy", "passed", "", "completion", "code of 0", "print(1)", "stop", 7, 0.1, 0.1, 10),
        Row(tasks[1], 0, "hard", "wrong_answer", "input 3: 1 is not 2", "fence", EVIL, "", "length", 9, 0.1, 0.1, 10),
    ]
    other = [rows[0]._replace(outcome="no_code"), rows[1]]
    for name, found in (("", rows), (".opencoder", other)):
        lines = (json.dumps(row._asdict()) + "\n" for row in found)
        (directory / f"rows{name}.jsonl").write_text("".join(lines))
        (directory / f"score{name}.json").write_text(json.dumps(content(score(found, tasks, [1]))))
    problems = [{"task_id": task, "asked": f"def f{n}():", "reference": SOLUTION} for n, task in enumerate(tasks)]
    (directory / "problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in problems))
    samples = [{"task_id": task, "sample": 0, "completion": f"answer {EVIL}"} for task in tasks]
    (directory / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    about = {
        "benchmark": {"name": "humaneval", "sha256": "abc"},
        "samples": {"file": "theirs.jsonl"},
        "toolchains": {"Python": "3.11.7"},
        "sandbox": {"landlock": "active"},
        "code": "0123",
    }
    (directory / "run.json").write_text(json.dumps(about))
    return directory


def test_every_problem_can_be_opened(evaluated: Path, tmp_path: Path) -> None:
    write_report(tmp_path, [evaluated])
    page = (tmp_path / "report.html").read_text()
    assert page.count("<details>") == 4  # two problems, each with the benchmark's own answer
    for text in ("HumanEval/1: 0 of 1 right (wrong answer)", "input 3: 1 is not 2", "def f1():", SOLUTION, "print(1)"):
        assert text in page
    assert "Sample 0: passed; profile opencoder: no code" in page
    assert "<script>" not in page
    assert "landlock" in page
    assert "0123" in page


def test_the_tables_stand_beside_the_published_ones(evaluated: Path, tmp_path: Path) -> None:
    write_report(tmp_path, [evaluated])
    text = (tmp_path / "report.md").read_text()
    mine = next(line for line in text.splitlines() if "| strict |" in line)
    assert mine == "| humaneval | theirs.jsonl | strict | pass@1 | 50.0 | 0.0 to 100.0 | 50.0 % | 0.0 % | 0.0 % | 2 |"
    assert "| humaneval | theirs.jsonl | opencoder | pass@1 | 0.0 |" in text
    assert "| humaneval | OpenCoder-1.5B-Base | published | pass@1 | 54.3 |" in text
    assert "| humaneval | level easy | 100.0 | 1 |" in text
