"""Samples of other harnesses are read as they write them, and what we write comes back as it was."""

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.evaluation.answers.samples import read_samples
from opencoder_jax.evaluation.answers.shapes import SHAPES
from opencoder_jax.recipe import UserError


class Named(NamedTuple):
    task_id: str


TASKS = [Named("HumanEval/0"), Named("HumanEval/1")]
WANTED = [("HumanEval/0", 0, "a"), ("HumanEval/0", 1, "b"), ("HumanEval/1", 0, "c"), ("HumanEval/1", 1, "d")]
RESULTS = {
    "date": "2024",
    "eval": {
        "HumanEval/0": [{"task_id": "HumanEval/0", "solution": code, "base_status": "pass"} for code in "ab"],
        "HumanEval/1": [{"task_id": "HumanEval/1", "solution": code, "base_status": "fail"} for code in "cd"],
    },
}
LINES = [{"task_id": f"HumanEval/{n}", "solution": code} for n, pair in enumerate(("ab", "cd")) for code in pair]


def write(path: Path, content: Any) -> Path:
    lines = isinstance(content, list) and path.suffix == ".jsonl"
    text = "".join(json.dumps(line) + "\n" for line in content) if lines else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evalplus.jsonl", [line | {"raw_solution": "prose"} for line in LINES]),
        ("eval_results.json", RESULTS),
        ("eval_results.json.gz", RESULTS),
        ("generations.json", [["a", "b"], ["c", "d"]]),
        (
            "custom.json",
            [{"question_id": f"HumanEval/{n}", "code_list": list(pair)} for n, pair in enumerate(("ab", "cd"))],
        ),
        (
            "opencodeeval.jsonl",
            [{"task_id": n, "completion_id": k, "solution": "abcd"[2 * n + k]} for n in (1, 0) for k in (1, 0)],
        ),
        (
            "multipl_e.jsonl",
            [{"name": f"HumanEval/{n}", "completions": list(pair)} for n, pair in enumerate(("ab", "cd"))],
        ),
    ],
)
def test_shapes_of_other_harnesses_are_read(tmp_path: Path, name: str, content: Any) -> None:
    found = read_samples(write(tmp_path / name, content), TASKS)
    assert [(one.task_id, one.sample, one.text) for one in found] == WANTED


def test_evalplus_folder_is_read(tmp_path: Path) -> None:
    for task, number, code in WANTED:
        file = tmp_path / task.replace("/", "_") / f"{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    found = read_samples(tmp_path, TASKS)
    assert [(one.task_id, one.sample, one.text) for one in found] == WANTED
    (tmp_path / "Mbpp_7").mkdir()
    (tmp_path / "Mbpp_7" / "0.py").write_text("")
    with pytest.raises(UserError, match="Mbpp_7 is no problem of this benchmark"):
        read_samples(tmp_path, TASKS)


codes = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3)


@given(codes, codes, st.sampled_from(sorted(SHAPES)))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str], shape: str
) -> None:
    name, written = SHAPES[shape]
    path = tmp_path_factory.mktemp("shape") / name
    path.write_text(written([("HumanEval/0", [(c, c) for c in first]), ("HumanEval/1", [(c, c) for c in second])]))
    found = read_samples(path, TASKS)
    assert [one.text for one in found if one.task_id == "HumanEval/0"] == first
    assert [one.text for one in found if one.task_id == "HumanEval/1"] == second


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.json", [["a"]], "programs for 1 problems, this benchmark has 2"),
        ("odd.json", {"what": 1}, "samples in none of the shapes"),
        ("odd.json", [], "samples in none of the shapes"),
        ("eval_results.json", {"eval": {"HumanEval/0": [{"base_status": "pass"}]}}, "lacks its program"),
        ("eval_results.json", {"eval": {"HumanEval/0": {"base": [["pass", []]]}}}, "lacks its program"),
        ("custom.json", [{"question_id": 1, "code_list": ["a"]}, {"question_id": 2}], "lacks its program"),
        ("generations.json", [["a"], None], "lacks its program"),
        ("bad.json.gz", None, "is no problem|none of the shapes"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_samples(write(tmp_path / name, content), TASKS)
