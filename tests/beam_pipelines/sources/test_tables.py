"""Tables as a source: real Parquet, gzip and zstd bytes, the presets, and what is wrong with a file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA, SCHEMA
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages import detect as languages
from opencoder_jax.beam_pipelines.languages.detect import by_name
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES
from opencoder_jax.beam_pipelines.sources.inputs import list_units
from opencoder_jax.beam_pipelines.sources.tables import PRESETS, TablesConfig, run
from opencoder_jax.recipe import UserError

Collected = tuple[Manifest, list[dict[str, Any]], list[dict[str, Any]]]


def collect(source: Path, output: Path, **config: Any) -> Collected:
    manifest = run(tables=[str(source)], output=str(output), config=TablesConfig(**config), options=BeamOptions())

    def rows(table: str, schema: pa.Schema) -> list[dict[str, Any]]:
        return [row for name in manifest.shards(table) for row in pq.read_table(output / name).cast(schema).to_pylist()]

    return manifest, rows("documents", SCHEMA), rows("drops", DROP_SCHEMA)


STACK = [
    {
        "content": f"print({number})\n",
        "max_stars_repo_path": f"src/{number}.py",
        "max_stars_repo_name": "someone/tool",
        "max_stars_count": number,
        "lang": "Python",
        "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
        "hexsha": "unused",
    }
    for number in range(5)
]


def test_the_stack(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(STACK), tmp_path / "part-0.parquet", row_group_size=2)
    manifest, documents, drops = collect(tmp_path, tmp_path / "out", preset="the_stack_v1")
    assert [row["text"] for row in documents] == [row["content"] for row in STACK]
    assert documents[3] == documents[3] | {
        "path": "src/3.py",
        "repository": "someone/tool",
        "stars": 3,
        "language": "Python",
        "kind": "code",
        "license": "MIT, Apache-2.0",
        "source": "the_stack_v1",
        "bytes": 9,
    }
    assert not drops
    assert manifest.total("out", "documents") == 5


def compressed(kind: str, data: bytes) -> bytes:
    if kind == ".gz":
        return gzip.compress(data)
    if kind == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()
    return data


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_lines_of_json(ending: str, tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": "def f(): pass", "program_lang": "python"}),
        "{broken",
        "",
        "[1, 2]",
        json.dumps({"text": None, "program_lang": "python"}),
        json.dumps({"text": "  ", "program_lang": "python"}),
        json.dumps({"text": "x" * 200, "program_lang": "python"}),
        json.dumps({"text": "x", "program_lang": "no such language"}),
        json.dumps({"text": "a\ud800b", "program_lang": "python"}),
        json.dumps({"text": "int x;", "program_lang": "cpp"}),  # without a line break at the end
    ]
    (tmp_path / f"a.jsonl{ending}").write_bytes(compressed(ending, "\n".join(lines).encode()))
    manifest, documents, drops = collect(tmp_path, tmp_path / "out", language="program_lang", max_file_bytes=100)
    assert [(row["text"], row["language"]) for row in documents] == [("def f(): pass", "Python"), ("int x;", "C++")]
    reasons = {"broken_json": 2, "no_text": 1, "empty": 1, "too_large": 1, "unknown_language": 1, "not_utf8": 1}
    assert manifest.table("drop", "documents") == reasons
    assert "line 2" in next(row["detail"] for row in drops if row["reason"] == "broken_json")
    assert manifest.total("in", "documents") == len(documents) + len(drops)


def test_times_nested_columns_and_a_table_of_stars(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        {"text": "x = 1", "meta": {"repo": "a/b", "file": "x.py"}, "when": "2023-11-14T22:13:20Z"},
        {"text": "y = 1", "meta": {"repo": "c/d", "file": "y.py"}, "when": 5},
        {"text": "z = 1", "meta": {"repo": "c/d", "file": "z.py"}, "when": None},
    ]
    (tmp_path / "in" / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "stars.csv").write_text("repository,stars\nc/d,77\n")
    columns = {"repository": "meta.repo", "path": "meta.file", "commit_time": "when"}
    _, documents, _ = collect(tmp_path / "in", tmp_path / "out", **columns, stars_table=str(tmp_path / "stars.csv"))
    found = [(row["repository"], row["path"], row["commit_time"], row["stars"]) for row in documents]
    assert found == [("a/b", "x.py", 1_700_000_000, 0), ("c/d", "y.py", 5, 77), ("c/d", "z.py", 0, 77)]


def test_a_table_of_one_kind_needs_no_language(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": "a page", "url": "https://example.com"}))
    _, documents, _ = collect(tmp_path, tmp_path / "out", preset="opencoder_web", kind="web")
    assert [(row["kind"], row["url"], row["language"]) for row in documents] == [("web", "https://example.com", "Text")]


def test_a_text_alone_is_text(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/w.json").write_text(json.dumps([{"text": "a page"}, {"text": "another"}]))
    _, documents, drops = collect(tmp_path / "in", tmp_path / "out")
    assert [(row["path"], row["kind"], row["language"]) for row in documents] == [
        ("deep/w.json/1", "text", "Text"),
        ("deep/w.json/2", "text", "Text"),
    ]
    assert not drops


def test_the_right_preset_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(STACK), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'text' in .*preset=the_stack_v1"):
        collect(tmp_path, tmp_path / "out")


def test_the_order_of_inputs_changes_no_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(STACK), tmp_path / name / f"{name}.parquet")
    inputs = [str(tmp_path / "one"), str(tmp_path / "two")]
    config = TablesConfig(preset="the_stack_v1")
    first = run(tables=inputs, output=str(tmp_path / "first"), config=config, options=BeamOptions())
    workers = BeamOptions(("--direct_num_workers=2",))
    second = run(tables=inputs[::-1], output=str(tmp_path / "second"), config=config, options=workers)
    assert first == second


def write_metadata(folder: Path) -> None:
    pq.write_table(pa.table({"repo_name": ["a"], "sub_path": ["b"]}), folder / "meta.parquet")


def write_blobs(folder: Path) -> None:
    pq.write_table(pa.table({"blob_id": ["a"], "path": ["b"]}), folder / "blobs.parquet")


def write_truncated(folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(STACK * 50), folder / "cut.parquet")
    whole = (folder / "cut.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])


def write_truncated_gzip(folder: Path) -> None:
    whole = gzip.compress("\n".join(json.dumps({"text": str(number)}) for number in range(10_000)).encode())
    (folder / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])


def write_nothing(folder: Path) -> None:
    (folder / "notes.md").write_text("no table")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_metadata, "meta.parquet: no column 'text' in repo_name, sub_path; it's RefineCode's metadata"),
        (write_blobs, "only the blobs' ids; fetch their contents"),
        (write_truncated, "cut.parquet: damaged or cut short"),
        (write_truncated_gzip, "cut.jsonl.gz: damaged or cut short"),
        (write_nothing, "no file ends in .parquet"),
    ],
)
def test_a_wrong_table_is_named(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        collect(tmp_path / "in", tmp_path / "out")


def test_a_missing_input_a_missing_side_table_and_two_files_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        list_units([str(tmp_path / "nowhere")], TABLES)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.jsonl").write_text('{"text": "x"}')
    with pytest.raises(UserError, match=r"both hold t\.jsonl; give a folder that holds them both"):
        list_units([str(tmp_path / "one"), str(tmp_path / "two")], TABLES)
    with pytest.raises(UserError, match=r"stars_table .*nowhere\.csv: no such file"):
        collect(tmp_path / "one", tmp_path / "out", stars_table=str(tmp_path / "nowhere.csv"))


def test_names_of_languages() -> None:
    assert by_name("javascript").name == "JavaScript"
    assert by_name("common-lisp").name == "Common Lisp"
    assert by_name("csharp") == by_name("C#")
    assert by_name("klingon") == languages.UNKNOWN


def test_a_preset_has_a_text() -> None:
    assert all("text" in columns for columns in PRESETS.values())
    with pytest.raises(ValueError, match="preset='stack': must be one of text, the_stack_v1"):
        TablesConfig(preset="stack")
