"""Joining metadata with a corpus: against a dictionary, against Arrow's own join, and through kills and bad input."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.documents import SCHEMA
from opencoder_jax.beam_pipelines.core.manifest import Manifest, check_balance
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources import join_metadata
from opencoder_jax.beam_pipelines.sources.join_metadata import REASONS, JoinMetadataConfig, join, run
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.recipe import UserError

OPTIONS = BeamOptions()

MakeStage = Callable[..., str]

# ------------------------------------------------------------------------------------------------------- the kernel

# Few repositories and paths, so that rows and documents meet, repeat and miss each other.
PLACES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), max_size=30)


@given(PLACES, PLACES)
def test_each_row_gets_the_best_document_of_its_place(
    rows: list[tuple[int, int, int]], documents: list[tuple[int, int, int]]
) -> None:
    def table(places: list[tuple[int, int, int]], last: int) -> np.ndarray:
        columns = [(place[0], place[0], place[1], place[2], last + number) for number, place in enumerate(places)]
        return np.array(columns, np.uint64).reshape(-1, 5)

    taken, dropped = join(table(rows, 100), table(documents, 200))

    best: dict[tuple[int, int], tuple[int, int]] = {}
    for number, (repository, path, rank) in enumerate(documents):
        best[repository, path] = min(best.get((repository, path), (9, 9)), (rank, 200 + number))
    expected_taken, expected_dropped, seen = {}, {}, set()
    for number, (repository, path, size) in enumerate(rows):
        if (repository, path) in seen:
            expected_dropped[100 + number] = "repeated"
        elif (repository, path) in best:
            expected_taken[best[repository, path][1]] = size
        elif repository in {place[0] for place in documents}:
            expected_dropped[100 + number] = "no_path"
        else:
            expected_dropped[100 + number] = "no_repository"
        seen.add((repository, path))
    assert dict(taken.tolist()) == expected_taken
    assert {row: REASONS[reason] for row, reason in dropped.tolist()} == expected_dropped
    assert len(taken) + len(dropped) == len(rows)


# -------------------------------------------------------------------------------------------------------- the stage


def metadata(place: Path, rows: Sequence[tuple[str | None, str | None, int]], **more: Any) -> Path:
    """A table with the columns of the release."""
    place.parent.mkdir(parents=True, exist_ok=True)
    named = [
        {"repo_name": repository, "sub_path": path, "file_size_in_byte": size, "program_lang": "python", **more}
        for repository, path, size in rows
    ]
    if place.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(named), place, row_group_size=7)
    else:
        place.write_text("\n".join(map(json.dumps, named)) + "\n")
    return place


@pytest.fixture
def corpus(batch: Callable[..., pa.RecordBatch], stage_directory: MakeStage, tmp_path: Path) -> list[str]:
    """Two stages of documents: 5 repositories of 12 files, some of them in both, with other stars."""

    def documents(stars: int, repositories: Sequence[int]) -> list[pa.RecordBatch]:
        return [
            batch(
                *(
                    {
                        "text": f"x{stars} = {path}\n",
                        "repository": f"o/r{repository}",
                        "path": f"{path}.py",
                        "stars": stars,
                    }
                    for path in range(12)
                )
            )
            for repository in repositories
        ]

    few, many = documents(1, [0, 1, 2]), documents(5, [2, 3, 4])
    return [
        stage_directory(tmp_path / "few", [few[:2], few[2:]]),
        stage_directory(tmp_path / "many", [many[:1], [], many[1:]]),
    ]


def rows_of(manifest: Manifest, output: Path, table: str) -> list[dict[str, Any]]:
    return [row for name in manifest.shards(table) for row in pq.read_table(output / name).to_pylist()]


NAMED: list[tuple[str | None, str | None, int]] = [
    (f"o/r{repository}", f"/{path}.py", 7) for path in range(2, 15) for repository in range(6)
]  # there is no r5, and no path above 11
ROWS = [*NAMED, *NAMED[10:19], (None, "a.py", 1), ("o/r1", "", 1)]


def test_it_agrees_with_arrows_join(corpus: list[str], tmp_path: Path) -> None:
    metadata(tmp_path / "meta" / "a.parquet", ROWS[:25])
    metadata(tmp_path / "meta" / "b.jsonl", ROWS[25:])
    manifest = run([str(tmp_path / "meta")], corpus, str(tmp_path / "out"), JoinMetadataConfig(), OPTIONS)

    tables = [table for place in corpus for table in map(pq.read_table, sorted(Path(place).glob("documents-*")))]
    sorted_corpus = pa.concat_tables(tables).cast(SCHEMA).sort_by([("stars", "descending")])
    best = sorted_corpus.group_by(["repository", "path"], use_threads=False).aggregate([("text", "first")])
    places = [{"repository": repository, "path": path[1:]} for repository, path, _ in NAMED if path]
    wanted = pa.Table.from_pylist(places)
    expected = wanted.join(best, ["repository", "path"], join_type="inner").to_pylist()

    documents = rows_of(manifest, tmp_path / "out", "documents")
    assert len(documents) == len(expected) == 50
    assert {(row["repository"], row["path"], row["text"]) for row in documents} == {
        (row["repository"], row["path"], row["text_first"]) for row in expected
    }
    drops = rows_of(manifest, tmp_path / "out", "drops")
    reasons = manifest.table("drop", "documents")
    assert reasons == {"no_place": 2, "no_repository": 13, "no_path": 15, "repeated": 9}
    assert len(documents) + len(drops) == len(ROWS) == manifest.total("in", "documents")
    assert {row["path"] for row in drops if row["reason"] == "no_path"} <= {"12.py", "13.py", "14.py"}
    counts = {"of the recorded size": 40, "of another size": 10, "left in the corpus": 22}
    assert manifest.table("count") == counts


def test_workers_and_the_order_of_inputs_change_no_byte(corpus: list[str], tmp_path: Path) -> None:
    for name, rows in (("a", ROWS[:20]), ("b", ROWS[20:])):
        metadata(tmp_path / name / f"{name}.parquet", rows)
    tables = [str(tmp_path / "a"), str(tmp_path / "b")]
    config = JoinMetadataConfig(segments=4)
    first = run(tables, corpus, str(tmp_path / "one"), config, BeamOptions(("--direct_num_workers=1",)))
    second = run(tables[::-1], corpus[::-1], str(tmp_path / "two"), config, BeamOptions(("--direct_num_workers=2",)))
    assert first == second
    for name in first.files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {*first.files, "stage.json"}


def test_rows_of_metadata_in_another_order_give_the_same_documents(corpus: list[str], tmp_path: Path) -> None:
    outputs = []
    for number, rows in enumerate((ROWS, ROWS[::-1])):
        table = metadata(tmp_path / str(number) / "t.parquet", rows)
        manifest = run([str(table)], corpus, str(tmp_path / f"out{number}"), JoinMetadataConfig(), OPTIONS)
        outputs.append({name: digest for name, digest in manifest.files.items() if name.startswith("documents")})
    assert outputs[0] == outputs[1]


def test_killed_while_it_writes_it_goes_on_where_it_stopped(
    corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [str(metadata(tmp_path / "meta" / "a.parquet", ROWS))]
    whole = run(tables, corpus, str(tmp_path / "whole"), JoinMetadataConfig(), OPTIONS)

    output = tmp_path / "killed"
    read, seen = join_metadata.read_shard, []

    def fail_late(directory: Any, name: str) -> Any:
        seen.append(name)
        if len(seen) == 3:
            raise RuntimeError("killed")
        return read(directory, name)

    monkeypatch.setattr(join_metadata, "read_shard", fail_late)
    with pytest.raises(RuntimeError, match="killed"):
        run(tables, corpus, str(output), JoinMetadataConfig(), OPTIONS)
    times = {path: path.stat().st_mtime_ns for path in output.glob("documents-*")}
    assert len(times) == 2
    monkeypatch.setattr(join_metadata, "read_shard", read)
    assert run(tables, corpus, str(output), JoinMetadataConfig(), OPTIONS) == whole
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert {path.name for path in output.iterdir()} == {*whole.files, "stage.json"}


def test_it_runs_once(corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = metadata(tmp_path / "meta" / "a.parquet", ROWS)
    run([str(table)], corpus, str(tmp_path / "out"), JoinMetadataConfig(), OPTIONS)
    run([str(table)], corpus[::-1], str(tmp_path / "out"), JoinMetadataConfig(), OPTIONS)
    assert "up to date" in capsys.readouterr().err
    metadata(table, ROWS[:-5])
    shorter = run([str(table)], corpus[::-1], str(tmp_path / "out"), JoinMetadataConfig(), OPTIONS)
    assert shorter.total("in", "documents") == len(ROWS) - 5


def test_broken_lines_and_other_columns(corpus: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"r": "o/r1", "p": "1.py"}\n{broken\n[]\n{"r": 3, "p": "x.go"}\n')
    config = JoinMetadataConfig(repository="r", path="p")
    manifest = run([str(tmp_path / "m.jsonl")], corpus, str(tmp_path / "out"), config, OPTIONS)
    assert manifest.table("drop", "documents") == {"broken_json": 2, "no_repository": 1}
    drops = rows_of(manifest, tmp_path / "out", "drops")
    assert [(row["path"], row["language"]) for row in drops if row["reason"] == "no_repository"] == [("x.go", "Go")]
    assert manifest.total("out", "documents") == 1


def test_a_damaged_table_costs_itself(corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that ends early, one whose checksum fails, one without the columns, one that is none, and odd rows."""
    place = tmp_path / "meta"
    metadata(place / "good.parquet", [("o/r0", "1.py", 7)])
    lines = [{"repo_name": "o/r1", "sub_path": f"{path}.py", "file_size_in_byte": 2**70} for path in range(9)]
    packed = bytearray(gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))
    (place / "cut.jsonl.gz").write_bytes(packed[:-12])
    packed[-6] ^= 1
    (place / "denied.jsonl.gz").write_bytes(packed)
    (place / "other.jsonl").write_text('{"a": 1}\n')
    (place / "none.parquet").write_bytes(b"PAR1 none PAR1")
    (place / "notes.txt").write_text("x")
    odd = [
        '{"repo_name": "o/r2", "sub_path": "\\ud800.py"}',
        '{"repo_name": ["o"], "sub_path": {"a": 1}}',
        '{"a": NaN}',
    ]
    (place / "odd.jsonl").write_text("\n".join(odd))
    manifest = run(
        [str(place)], corpus, str(tmp_path / "out"), JoinMetadataConfig(), OPTIONS, QuarantineConfig(max_share=1)
    )
    documents = rows_of(manifest, tmp_path / "out", "documents")
    cut = {row["path"] for row in documents if row["repository"] == "o/r1"}
    assert {row["repository"] for row in documents} == {"o/r0", "o/r1"}
    assert {"0.py", "1.py"} <= cut < {f"{path}.py" for path in range(9)}  # what it holds before its end
    assert manifest.table("quarantine", "units") == {"Damaged": 2, "Untrusted": 1, "UserError": 1}
    assert manifest.table("drop", "documents") == {"unknown_format": 1, "no_path": 1, "no_repository": 1, "no_place": 1}
    check_balance("join_metadata", manifest.tally)
    assert "4 of 6 units as a whole" in capsys.readouterr().err
    told = [json.loads(file.read_text()) for file in (tmp_path / "out/quarantine").iterdir()]
    assert {row["unit"] for row in told} == {"cut.jsonl.gz", "denied.jsonl.gz", "none.parquet", "other.jsonl"}
    with pytest.raises(UserError, match=r"4 of 6 units as a whole .*more than 1\.00%"):
        run([str(place)], corpus, str(tmp_path / "out"), JoinMetadataConfig(), OPTIONS)


def test_what_is_missing_is_one_clear_line(corpus: list[str], tmp_path: Path) -> None:
    table = str(metadata(tmp_path / "meta" / "a.parquet", ROWS))
    output, config = str(tmp_path / "out"), JoinMetadataConfig()
    with pytest.raises(UserError, match=r"meta: holds no stage\.json; run the stage that writes it first"):
        run([table], [str(tmp_path / "meta")], output, config, OPTIONS)
    with pytest.raises(UserError, match=r"no row of .*has its text .*; documents-.*: no column 'repo_name' in id, te"):
        run(corpus[:1], corpus, output, config, OPTIONS)
    with pytest.raises(UserError, match="no input is given"):
        run([], corpus, output, config, OPTIONS)
    with pytest.raises(UserError, match="no column 'repo' in repo_name, sub_path"):
        run([table], corpus, output, JoinMetadataConfig(repository="repo"), OPTIONS)
    nowhere = metadata(tmp_path / "other" / "b.parquet", [("else/where", "a.py", 3)])
    with pytest.raises(UserError, match=r"no row of .* has its text in the corpus; dropped as no_repository 1"):
        run([str(nowhere)], corpus, output, config, OPTIONS)
    with pytest.raises(ValueError, match="power of two"):
        JoinMetadataConfig(segments=3)
    assert not (tmp_path / "out" / "stage.json").exists()
