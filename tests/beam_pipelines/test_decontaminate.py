"""Decontamination: what gives a problem away is dropped with the evidence, and nothing else is."""

import gzip
import json
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.decontaminate import Benchmark, Decontaminate, DecontaminateConfig, run, word_grams
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import Drop
from opencoder_jax.recipe import UserError

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
PROBLEMS = [
    {"task_id": "Test/0", "prompt": PROMPT, "canonical_solution": SOLUTION, "entry_point": "has_close_elements"},
    {
        "task_id": "Test/1",
        "prompt": "def add(x, y):\n",
        "canonical_solution": "    return x + y\n",
        "entry_point": "add",
    },
    {"task_id": "Test/2", "prompt": "", "canonical_solution": f"t = [{'0, ' * 50}]", "entry_point": "zeros"},
    {"task_id": "Test/3", "text": "Die größte Zahl aus einer Liste von Zahlen zurückgeben, ohne sie zu sortieren."},
]


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join(json.dumps(problem, ensure_ascii=False) for problem in PROBLEMS) + "\n\n")
    return str(file)


@pytest.fixture
def kernel(benchmark: str) -> Decontaminate:
    config = DecontaminateConfig(benchmarks=(benchmark,))
    return Decontaminate(config, (Benchmark.read(benchmark),))


def filler(words: int) -> str:
    return "\n".join(f"value_{number} = compute(other_{number})" for number in range(words))


def test_a_planted_problem_is_found_and_shown(kernel: Decontaminate, batch: Batch) -> None:
    long_file = f"{filler(500)}\n\n{PROMPT}{SOLUTION}\n{filler(500)}"
    renamed = f"class Solver:\n{textwrap.indent((PROMPT + SOLUTION).replace('    ', chr(9)), ' ' * 8)}"
    renamed = renamed.replace("has_close_elements", "f").replace("\n", "\r\n").upper()
    result = kernel(batch(filler(500), long_file, "", renamed, "Text: " + str(PROBLEMS[3]["text"])))

    found = [(drop.row, drop.reason, drop.detail) for drop in result.drops]
    first = " ".join(word.decode() for word in next(word_grams(PROMPT, 10)))
    assert found[0] == (1, "benchmark_ngram", f"Test/0: {first}")
    assert found[1][:2] == (3, "benchmark_ngram")
    assert found[1][2].startswith("Test/0: ")
    assert found[2] == (4, "benchmark_ngram", "Test/3: die größte zahl aus einer liste von zahlen zurückgeben ohne")
    assert result.table.column("text").to_pylist() == [filler(500), ""]


def test_nine_words_in_common_are_not_ten(kernel: Decontaminate, batch: Batch) -> None:
    words = ["check", "if", "in", "given", "list", "of", "numbers", "are", "any", "two"]
    ten, nine = " ".join(words), " ".join(words[:9])
    drops = kernel(batch(f"x {ten} y", f"x {nine} y", f"{nine} of", f"{nine}\n{words[9]}")).drops
    assert [(drop.row, drop.detail) for drop in drops] == [(0, f"Test/0: {ten}"), (3, f"Test/0: {ten}")]


def test_repetitions_of_few_words_are_no_sign(kernel: Decontaminate, batch: Batch) -> None:
    assert kernel(batch(f"table = [{'0, ' * 500}]", "add(1, 2)\nzeros(3)")).drops == []
    eager = replace(kernel, config=replace(kernel.config, distinct_words=1, entry_point_length=3))
    assert eager(batch(f"table = [{'0, ' * 500}]", "add(1, 2)", "adder(1)")).drops == [
        Drop(0, "benchmark_ngram", "Test/2: " + " ".join("0" * 10)),
        Drop(1, "benchmark_entry_point", "Test/1: add"),
    ]


def test_a_telling_entry_point_is_enough(kernel: Decontaminate, batch: Batch) -> None:
    texts = ["y = has_close_elements(x)", "y = self.has_close_elements_(x)", "y = Has_Close_Elements(x)"]
    assert kernel(batch(*texts)).drops == [Drop(0, "benchmark_entry_point", "Test/0: has_close_elements")]


@given(st.lists(st.sampled_from(["a", "B", "c_1", "größe", "(", "\n", " ", "中"]), max_size=40).map(" ".join))
def test_a_document_is_dropped_exactly_when_it_shares_a_gram(text: str) -> None:
    """The vectorised search against sets of grams."""
    secret = "a b a b größe c_1 a 中 b b größe a"
    config = DecontaminateConfig(ngram=4, distinct_words=3, entry_point_length=99)
    kernel = Decontaminate(config, (Benchmark("b", "", (("task", "", secret),)),))
    telling = {gram for gram in word_grams(secret, 4) if len(set(gram)) >= 3}
    drops = kernel(pa.RecordBatch.from_pydict({"text": pa.array([text], pa.large_string())})).drops
    assert bool(drops) == bool(telling & set(word_grams(text, 4)))


def test_problems_without_a_telling_gram(batch: Batch) -> None:
    benchmark = Benchmark("b", "", (("task", "f", "too short"),))
    assert Decontaminate(DecontaminateConfig(), (benchmark,))(batch("too short", "")).drops == []


def test_the_own_problems_of_the_project_are_found(batch: Batch) -> None:
    """The default configuration reads them from the repository, whatever the working directory."""
    (path,) = DecontaminateConfig().benchmarks
    benchmark = Benchmark.read(path)
    kernel = Decontaminate(DecontaminateConfig(), (benchmark,))
    telling = set(kernel.grams.values()) | set(kernel.entry_points.values())
    texts = [f"{filler(50)}\n{secret}" for task, _, secret in benchmark.problems if task in telling]
    assert len(texts) > len(benchmark.problems) / 2
    assert [drop.row for drop in kernel(batch(*texts)).drops] == list(range(len(texts)))


def test_the_stage_does_not_depend_on_where_the_benchmark_lies(
    kernel: Decontaminate, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    source = stage_directory(tmp_path / "source", [[batch("x = 1", PROMPT)], [batch(SOLUTION)]])
    (tmp_path / "moved").mkdir()
    outputs = []
    for place in (tmp_path, tmp_path / "moved"):
        file = place / "problems.jsonl"
        file.write_bytes((tmp_path / "problems.jsonl").read_bytes())
        config = DecontaminateConfig(benchmarks=(str(file),))
        manifest = run([source], str(place / "out"), config, BeamOptions())
        outputs.append({file.name: file.read_bytes() for file in (place / "out").iterdir()})
    assert outputs[0] == outputs[1]
    assert manifest.total("out", "documents") == 1
    assert manifest.config["benchmarks"][0][0] == "problems.jsonl"
    tables = [pq.read_table(tmp_path / "out" / name) for name in manifest.shards("drops")]
    assert pa.concat_tables(tables).column("path").to_pylist() == ["1.py", "0.py"]

    (tmp_path / "problems.jsonl").write_text(json.dumps(PROBLEMS[1]))
    config = DecontaminateConfig(benchmarks=(str(tmp_path / "problems.jsonl"),))
    assert run([source], str(tmp_path / "out"), config, BeamOptions()).total("out", "documents") == 3


def test_a_packed_benchmark(benchmark: str, tmp_path: Path) -> None:
    packed = tmp_path / "problems.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(benchmark).read_bytes()))
    assert Benchmark.read(str(packed)).problems == Benchmark.read(benchmark).problems
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"problems\.jsonl\.gz: can't be unpacked"):
        Benchmark.read(str(packed))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "bad.jsonl:2: not a JSON object"),
        (b"[1]", "bad.jsonl:2: not a JSON object"),
        (b"null", "bad.jsonl:2: not a JSON object"),
        (b'{"prompt": "\xff"}', "bad.jsonl:2: not a JSON object"),
        (b'{"task_id": "x"}', "bad.jsonl:2: has none of the fields prompt, canonical_solution,"),
        (b'{"prompt": null}', "bad.jsonl:2: has none of the fields"),
    ],
)
def test_a_bad_benchmark_names_file_and_line(line: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b'{"prompt": "a\xe2\x80\xa8b"}\n' + line + b"\n")  # U+2028 ends no line of JSON
    with pytest.raises(UserError, match=complaint.replace(".", r"\.")):
        Benchmark.read(str(file))


def test_what_the_user_can_get_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmark file nowhere\.jsonl: no such file"):
        Benchmark.read("nowhere.jsonl")
    with pytest.raises(ValueError, match="benchmarks is empty"):
        DecontaminateConfig(benchmarks=())
    with pytest.raises(ValueError, match=r"distinct_words must lie in 1\.\.ngram=10: got 11"):
        DecontaminateConfig(distinct_words=11)
    with pytest.raises(UserError, match="reads one directory: got 0"):
        run([], str(tmp_path), DecontaminateConfig(), BeamOptions())
