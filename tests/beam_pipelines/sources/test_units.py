"""Units of a source: what one throws costs itself, and what was made of one stays whatever becomes of the others."""

import errno
import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from opencoder_jax.beam_pipelines.core.manifest import Manifest, check_balance
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources import archives
from opencoder_jax.beam_pipelines.sources.builder import document
from opencoder_jax.beam_pipelines.sources.formats.batches import guarded
from opencoder_jax.beam_pipelines.sources.formats.members import Late, Row, Unit, Untrusted
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.recipe import UserError


def tarred(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def collect(source: Path, output: Path, max_share: float = 1.0) -> Manifest:
    return archives.run(
        archives=[str(source)],
        output=str(output),
        config=archives.ArchivesConfig(),
        options=BeamOptions(),
        quarantine=QuarantineConfig(max_share),
    )


def paths(output: Path, manifest: Manifest) -> set[str]:
    return {row for name in manifest.shards() for row in pq.read_table(output / name)["path"].to_pylist()}


def times(output: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in output.glob("documents-*")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two good archives and a damaged one between them, and what is no archive."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    (folder / "a.tar").write_bytes(tarred({"a.py": b"a = 1\n"}))
    (folder / "b.tar").write_bytes(tarred({"b.py": b"b = 1\n", "c.py": b"c = 1\n"})[:1300])
    (folder / "below/d.TAR").write_bytes(tarred({"d.py": b"d = 1\n"}))
    (folder / "e.rar").write_bytes(b"Rar!")
    return folder


def test_another_unit_changes_no_other(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    first = collect(source, out)
    before = times(out)
    assert paths(out, first) == {"a.py", "b.py", "d.py"}
    assert first.table("drop", "documents") == {"unknown_format": 1}
    assert first.table("quarantine", "units") == {"Damaged": 1}
    assert "archives: 1 of 5 in quarantine, 1 of 4 units as a whole (Damaged 1)" in capsys.readouterr().err

    (source / "b.tar").write_bytes(tarred({"b.py": b"b = 1\n", "c.py": b"c = 1\n"}))
    mended = collect(source, out)
    assert paths(out, mended) == {"a.py", "b.py", "c.py", "d.py"}
    assert mended.total("quarantine") == 0
    assert not list(out.glob("quarantine/*"))
    changed = {name for name, time in times(out).items() if before.get(name) != time}
    assert [name.split("-")[1] for name in changed] == ["b.tar"]

    (source / "b.tar").unlink()
    without = collect(source, out)
    assert paths(out, without) == {"a.py", "d.py"}
    assert times(out).items() < before.items()
    scratch = collect(source, tmp_path / "scratch")
    assert without == Manifest(**{**vars(scratch), "stale": without.stale})
    assert {file.name for file in out.iterdir()} == {file.name for file in (tmp_path / "scratch").iterdir()}


def test_a_run_that_was_killed_keeps_its_units_for_others(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, read = tmp_path / "out", archives.read_archive

    def killed(archive: Unit, config: Any) -> Iterator[Row | Late]:
        if archive.name.startswith("below"):
            raise KeyboardInterrupt
        return read(archive, config)

    monkeypatch.setattr(archives, "read_archive", killed)
    with pytest.raises(BaseException, match="KeyboardInterrupt"):
        collect(source, out)
    before = times(out)
    assert len(before) == 2
    monkeypatch.undo()
    (source / "f.tar").write_bytes(tarred({"f.py": b"f = 1\n"}))
    assert paths(out, collect(source, out)) == {"a.py", "b.py", "d.py", "f.py"}
    assert before.items() < times(out).items()


def test_more_than_a_share_is_an_error_once_the_rest_is_done(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        UserError, match=r"1 of 4 units as a whole .*more than 1\.00%.*b\.tar: .*ends early.*quarantine"
    ):
        collect(source, out, 0.01)
    assert paths(out, Manifest.read(str(out))) == {"a.py", "b.py", "d.py"}
    [line] = (out / "quarantine").glob("b.tar-*.jsonl")
    assert json.loads(line.read_text()).items() >= {"unit": "b.tar", "path": "", "exception": "Damaged"}.items()


def test_no_two_documents_have_one_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    once, again = tarred({"x.py": b"x = 1\n"}), tarred({"x.py": b"x = 2\n"})
    for name in ("a.tar", "a.tgz", "b.tar"):
        (tmp_path / "in" / name).write_bytes(once + again)
    manifest = collect(tmp_path / "in", tmp_path / "out")
    assert "a.tar, a.tgz are called so in whole" in capsys.readouterr().err
    rows = [row for name in manifest.shards() for row in pq.read_table(tmp_path / "out" / name).to_pylist()]
    assert {(row["repository"], row["text"]) for row in rows} == {(name, "x = 1\n") for name in ("a.tar", "a.tgz", "b")}
    assert len({row["id"] for row in rows}) == 3
    assert manifest.table("drop", "documents") == {"same_id": 3}


def test_no_name_of_an_archive_is_what_another_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    """a.tar is called so in whole because of a.zip, and a.tar.jar would be called so without its ending."""
    names = ["a.tar", "a.tar.jar", "a.zip", "b.zip"]
    called = [unit.label or archives.repository_of(unit.name) for unit in archives.named_apart(units_of(names))]
    assert called == ["a.tar", "a.tar.jar", "a.zip", "b"]
    assert "a.tar, a.tar.jar, a.zip are called so in whole" in capsys.readouterr().err


def units_of(names: list[str]) -> list[Unit]:
    return [Unit("in", name, 1) for name in names]


def test_what_a_checksum_denies_is_not_believed(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(tarred({f"{number}.py": b"x = 1\n" * 100 for number in range(40)})))
    packed[-6] ^= 1  # of the checksum: everything unpacks
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.tgz").write_bytes(packed)
    (tmp_path / "in/good.tgz").write_bytes(gzip.compress(tarred({"good.py": b"x = 1\n"})))
    manifest = collect(tmp_path / "in", tmp_path / "out")
    assert paths(tmp_path / "out", manifest) == {"good.py"}
    assert manifest.table("quarantine", "documents") == {"Untrusted": 1}


def test_one_thing_costs_itself_and_the_machine_costs_nothing() -> None:
    def fails(error: Exception) -> Late:
        def make() -> Row:
            raise error

        return Late("b.py", make, 7)

    good = document("r", "a.py", "a = 1\n")

    def rows(*errors: Exception) -> Iterator[Row | Late]:
        yield good
        yield from map(fails, errors)
        yield good
        raise RecursionError("too deep")

    unit = Unit("/somewhere", "u", 9)
    found = list(guarded(unit, rows(ValueError("/somewhere/x is odd"), MemoryError())))
    assert found[0] == found[3] == good
    assert [row["quarantine"] for row in found if "quarantine" in row] == [
        {"unit": "u", "path": "b.py", "exception": "ValueError", "message": "x is odd"},
        {"unit": "u", "path": "b.py", "exception": "MemoryError", "message": ""},
        {"unit": "u", "path": "", "exception": "RecursionError", "message": "too deep"},
    ]
    with pytest.raises(OSError, match="full"):
        list(guarded(unit, rows(OSError(errno.ENOSPC, "full"))))
    with pytest.raises(Untrusted):
        list(guarded(unit, rows(Untrusted("of all"))))


def test_nothing_vanishes() -> None:
    check_balance("s", {"in": {"documents": {"C": 5}}, "out": {"documents": {"C": 3}}, "drop": {"documents": {"x": 2}}})
    with pytest.raises(AssertionError, match="5 in and 0 made, but 3 out, 1 dropped, 0 in quarantine"):
        check_balance(
            "s", {"in": {"documents": {"C": 5}}, "out": {"documents": {"C": 3}}, "drop": {"documents": {"x": 1}}}
        )
