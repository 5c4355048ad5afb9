"""Ids that several units hold: the first keeps it, however often units come, go and are mended."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources import tables
from opencoder_jax.beam_pipelines.sources.formats import clashes
from opencoder_jax.beam_pipelines.sources.formats.clashes import REASON


def table(place: Path, paths: str, name: str = "") -> None:
    """A table with a row a letter of `paths`, whose texts name the table."""
    place.parent.mkdir(exist_ok=True)
    rows = ({"text": f"x = '{name or place.stem}{path}'\n", "path": f"{path}.py"} for path in paths)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))


def collect(source: Path, output: Path) -> Manifest:
    return tables.run([str(source)], str(output), tables.TablesConfig(path="path"), BeamOptions())


def texts(output: Path, manifest: Manifest) -> dict[str, str]:
    rows = [row for name in manifest.shards() for row in pq.read_table(output / name).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["path"][:1]: row["text"][5] for row in rows}


def files(output: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in output.iterdir() if file.suffix == ".parquet"}


def test_the_first_unit_keeps_an_id_and_the_clash_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    table(source / "b.jsonl", "mnop")
    table(source / "c.jsonl", "opq")
    manifest = collect(source, out)
    assert texts(out, manifest) == {**dict.fromkeys("mnop", "b"), "q": "c"}
    assert manifest.table("drop", "documents") == {REASON: 2}
    assert manifest.total("in", "documents") == 7
    assert "2 documents have the repository and path of one in an earlier unit" in capsys.readouterr().err
    [drops] = [pq.read_table(out / name).to_pylist() for name in manifest.shards("drops")]
    assert {row["path"]: row["detail"] for row in drops} == dict.fromkeys(
        ("o.py", "p.py"), "b.jsonl, too, has its repository and path"
    )


@pytest.mark.slow
def test_units_come_and_go(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    table(source / "b.jsonl", "mnop")
    table(source / "c.jsonl", "opq")
    collect(source, out)
    table(source / "a.jsonl", "pqx")
    manifest = collect(source, out)
    assert texts(out, manifest) == {**dict.fromkeys("mno", "b"), **dict.fromkeys("pqx", "a")}
    assert manifest.table("drop", "documents") == {REASON: 4}
    scratch = collect(source, tmp_path / "scratch")
    assert files(out) == files(tmp_path / "scratch")
    assert (manifest.tally, manifest.files) == (scratch.tally, scratch.files)

    (source / "b.jsonl").unlink()
    manifest = collect(source, out)
    assert texts(out, manifest) == {"o": "c", **dict.fromkeys("pqx", "a")}
    collect(source, tmp_path / "again")
    assert files(out) == files(tmp_path / "again")


@pytest.mark.slow
def test_killed_while_it_takes_ids_it_reads_the_unit_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in "abc":
        table(source / f"{name}.jsonl", "mno")
    whole = collect(source, tmp_path / "whole")
    write, seen = clashes.ShardWriter.__exit__, []

    def killed(writer: clashes.ShardWriter, *error: object) -> None:
        write(writer, *error)
        seen.append(writer.name)
        if len(seen) == 7:  # the documents of b without what a has; its drops aren't written yet
            raise KeyboardInterrupt

    monkeypatch.setattr(clashes.ShardWriter, "__exit__", killed)
    with pytest.raises(BaseException, match="KeyboardInterrupt"):
        collect(source, out)
    monkeypatch.undo()
    assert seen[-1].startswith("documents-b")
    manifest = collect(source, out)
    assert (manifest.tally, manifest.files) == (whole.tally, whole.files)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_shard_that_is_lost_is_made_as_it_was(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    table(source / "a.jsonl", "mn")
    table(source / "b.jsonl", "no")
    first = collect(source, out)
    next(out.glob("documents-b*")).unlink()
    assert collect(source, out) == first
    assert texts(out, first) == {"m": "a", "n": "a", "o": "b"}


def test_documents_that_another_attempt_took_are_no_drops_of_this_one(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    table(source / "a.jsonl", "mn")
    collect(source, out)
    manifest = Manifest.read(str(out))
    label = manifest.shards()[0].removeprefix("documents-").removesuffix(".parquet")
    with pytest.raises(RuntimeError, match="drops don't name"):
        clashes.without_ids(Directory(str(out)), label, {"0" * 32: "x"}, manifest.tally, manifest.files)
    others = dict.fromkeys(manifest.files, "0")
    with pytest.raises(RuntimeError, match="damaged after it was written"):
        clashes.without_ids(Directory(str(out)), label, {"0" * 32: "x"}, manifest.tally, others)
    assert files(out).keys() == set(manifest.files)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)), max_size=30, unique=True))
def test_of_each_id_all_but_the_first_unit_lose(rows: list[tuple[int, int, int]]) -> None:
    losers, found = clashes.clashes(np.array(rows, np.uint64).reshape(-1, clashes.CLASH))
    held: dict[tuple[int, int], list[int]] = {}
    for high, low, unit in rows:
        held.setdefault((high, low), []).append(unit)
    expected = {(*key, min(units), unit) for key, units in held.items() for unit in units if unit != min(units)}
    assert {(*map(int, row), int(loser)) for loser, row in zip(losers, found, strict=True)} == expected
    assert len(losers) == len(expected)
