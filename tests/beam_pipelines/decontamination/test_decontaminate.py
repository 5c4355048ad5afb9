"""Decontamination: what gives a problem away is dropped with the evidence, and nothing else is."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.decontamination.decontaminate import run
from opencoder_jax.beam_pipelines.decontamination.leaks import Decontaminate, DecontaminateConfig
from tests.beam_pipelines.decontamination.planting import planted

Batch = Callable[..., pa.RecordBatch]
StageDirectory = Callable[..., str]

PROMPT = '''def has_close_elements(numbers, threshold):
    """Check if in given list of numbers, are any two numbers closer to each other than given threshold."""
'''
SOLUTION = """    for idx, elem in enumerate(numbers):
        for idx2, elem2 in enumerate(numbers):
            if idx != idx2 and abs(elem - elem2) < threshold:
                return True
    return False
"""
RENAMED = """def near(xs, limit):
    for i, a in enumerate(xs):
        for j, b in enumerate(xs):
            if i != j and abs(a - b) < limit: return True
    return False
"""
PROBLEMS = [
    {"task_id": "Test/0", "prompt": PROMPT, "canonical_solution": SOLUTION, "entry_point": "has_close_elements"},
    {
        "task_id": "Test/1",
        "prompt": "def add(x, y):\n",
        "canonical_solution": "    return x + y\n",
        "entry_point": "add",
    },
    {"task_id": "Test/<2>", "text": "Die größte Zahl aus einer Liste von Zahlen zurückgeben, ohne sie zu sortieren."},
]
HOST = "import os\n\n\ndef listing(folder):\n    return sorted(os.listdir(folder))\n\n\nprint(listing('.'))\n"


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join(json.dumps(problem, ensure_ascii=False) for problem in PROBLEMS) + "\n\n")
    return str(file)


@pytest.fixture
def kernel(benchmark: str) -> Decontaminate:
    config = DecontaminateConfig(benchmarks=(benchmark,))
    return Decontaminate(config, config.read())


def filler(lines: int) -> str:
    return "\n".join(f"value_{number} = compute(other_{number})" for number in range(lines))


def test_each_rule_with_its_evidence(kernel: Decontaminate, batch: Batch) -> None:
    texts = [
        filler(500),
        f"{filler(500)}\n\n{PROMPT}{SOLUTION}\n{filler(500)}",
        "",
        f"{filler(9)}\n{RENAMED}",
        f"Text:\n{PROBLEMS[2]['text']}",
        "y = has_close_elements(x)",
        "add(1, 2)",
    ]
    result = kernel(batch(*texts))
    found = {drop.row: (drop.reason, json.loads(drop.detail)) for drop in result.drops}
    assert {row: reason for row, (reason, _) in found.items()} == {
        1: "benchmark_ngram",
        3: "benchmark_solution",
        4: "benchmark_ngram",
        5: "benchmark_entry_point",
    }
    assert (found[1][1]["task"], found[1][1]["line"]) == ("Test/0", 502)
    assert found[1][1]["text"].startswith("def has_close_elements(numbers, threshold):")
    assert (found[3][1]["line"], found[3][1]["text"]) == (10, RENAMED.strip())
    assert found[4][1]["text"] == str(PROBLEMS[2]["text"]).rstrip(".")
    assert found[5][1] == {
        "benchmark": "problems.jsonl",
        "task": "Test/0",
        "line": 1,
        "text": "has_close_elements",
        "others": [],
    }
    assert result.table.column("text").to_pylist() == [filler(500), "", "add(1, 2)"]


def test_a_conversation_is_read_as_it_is_spoken(kernel: Decontaminate, batch: Batch) -> None:
    """In JSON a line break is a backslash and an n, which would stick to the next line's first word."""
    chat = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"```\n{RENAMED}```"}])
    about = json.dumps([{"role": "user", "content": "in given list of\nnumbers, are\nany two\nnumbers closer\nto"}])
    drops = kernel(
        batch({"text": chat, "kind": "chat"}, {"text": about, "kind": "chat"}, {"text": "[", "kind": "chat"})
    )
    assert [(drop.row, drop.reason) for drop in drops.drops] == [(0, "benchmark_solution"), (1, "benchmark_ngram")]


def test_a_document_with_many_problems_names_the_others(kernel: Decontaminate, batch: Batch) -> None:
    (drop,) = kernel(batch(f"{PROBLEMS[2]['text']}\n{PROMPT}{SOLUTION}")).drops
    evidence = json.loads(drop.detail)
    assert {evidence["task"], *evidence["others"]} == {"Test/<2>", "problems.jsonl: Test/0"}


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_workers_share_one_index(scheme: str, kernel: Decontaminate, batch: Batch, tmp_path: Path) -> None:
    """Of the problems nothing travels to them; what they get is mapped, so it can't be written."""
    sent = pickle.dumps(replace(kernel, output=f"{scheme}{tmp_path}"))
    assert b"any two numbers closer" not in sent
    worker = pickle.loads(sent)
    texts = batch(filler(9), f"{PROMPT}{SOLUTION}", RENAMED, "y = has_close_elements(x)")
    assert worker(texts).drops == kernel(texts).drops
    assert len(kernel(texts).drops) == 3
    mapped = worker.indices.words.owners.flags
    assert (mapped.writeable, mapped.owndata) == (False, False)
    assert pickle.dumps(worker) == pickle.dumps(pickle.loads(pickle.dumps(worker)))


def test_opencoders_own_rule_for_names(kernel: Decontaminate, batch: Batch) -> None:
    eager = replace(kernel, config=replace(kernel.config, entry_point_length=1, entry_point_words=1))
    assert [drop.row for drop in eager(batch("add(1, 2)", "adder(1)")).drops] == [0]


def test_the_own_problems_of_the_project_are_found() -> None:
    """The default configuration reads them from the package, whatever the working directory: all of each, and each
    part that is long enough to say anything."""
    config = DecontaminateConfig()
    kernel = Decontaminate(config, config.read())
    assert len(kernel.problems) >= 10
    for number, problem in enumerate(kernel.problems):
        plants = list(planted(problem, HOST, number))
        found = {row for row, _ in kernel.leaks([plant.text for plant in plants])}
        missed = [plant[:2] for row, plant in enumerate(plants) if row not in found]
        assert not [miss for miss in missed if miss[0] == "problem"], f"{problem.name}: {missed}"
    assert list(kernel.leaks([HOST, filler(100)])) == []


class Text(HTMLParser):
    """All that a page says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_the_stage_and_its_review(
    tmp_path: Path, benchmark: str, batch: Batch, stage_directory: StageDirectory
) -> None:
    source = stage_directory(
        tmp_path / "source", [[batch("x = 1", PROMPT)], [batch(RENAMED, f"<b>\n{PROBLEMS[2]['text']}")]]
    )
    (tmp_path / "moved").mkdir()
    outputs = []
    for place in (tmp_path, tmp_path / "moved"):
        file = place / "problems.jsonl"
        file.write_bytes(Path(benchmark).read_bytes())
        config = DecontaminateConfig(benchmarks=(str(file),))
        manifest = run(documents=source, output=str(place / "out"), config=config, options=BeamOptions())
        outputs.append({file.name: file.read_bytes() for file in (place / "out").iterdir()})
    # Nothing depends on where the benchmark lies.
    assert outputs[0] == outputs[1]
    assert manifest.total("out", "documents") == 1
    assert manifest.config["benchmarks"][0][0] == "problems.jsonl"
    tables = [pq.read_table(tmp_path / "out" / name) for name in manifest.shards("drops")]
    assert pa.concat_tables(tables).column("path").to_pylist() == ["1.py", "0.py", "1.py"]

    lines = [json.loads(line) for line in outputs[0]["removed.jsonl"].splitlines()]
    assert [(line["path"], line["reason"], line["task"]) for line in lines] == [
        ("1.py", "benchmark_ngram", "Test/0"),
        ("0.py", "benchmark_solution", "Test/0"),
        ("1.py", "benchmark_ngram", "Test/<2>"),
    ]
    assert lines[1]["text"] == RENAMED.strip()
    page = Text()
    page.feed(outputs[0]["removed.html"].decode())
    assert any("3 of 4 documents" in said for said in page.said)
    assert RENAMED.strip() in page.said
    assert any("Test/<2>: 1" in said for said in page.said)
    assert b"<2>" not in outputs[0]["removed.html"]

    # A review that is missing is written again, without running the stage.
    (tmp_path / "out" / "removed.html").unlink()
    same = DecontaminateConfig(benchmarks=(benchmark,))
    run(documents=source, output=str(tmp_path / "out"), config=same, options=BeamOptions())
    assert (tmp_path / "out" / "removed.html").read_bytes() == outputs[0]["removed.html"]

    # Another benchmark is another run, with a review of its own.
    (tmp_path / "problems.jsonl").write_text(json.dumps(PROBLEMS[1]))
    config = DecontaminateConfig(benchmarks=(str(tmp_path / "problems.jsonl"),))
    manifest = run(documents=source, output=str(tmp_path / "out"), config=config, options=BeamOptions())
    assert manifest.total("out", "documents") == 4
    assert (tmp_path / "out" / "removed.jsonl").read_bytes() == b""


def test_what_the_user_can_get_wrong() -> None:
    with pytest.raises(ValueError, match="benchmarks is empty"):
        DecontaminateConfig(benchmarks=())
    with pytest.raises(ValueError, match="distinct_words=11: must be between 1 and 10"):
        DecontaminateConfig(distinct_words=11)
    with pytest.raises(ValueError, match="edit_tokens=0: must be 1 or more"):
        DecontaminateConfig(edit_tokens=0)
