"""Directories: a file appears whole or not at all, and an error names the file."""

from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError


@pytest.mark.parametrize("name", ["plain", "with blank", "100%#?&ü", "a/../b"])
def test_any_path_is_a_directory(tmp_path: Path, name: str) -> None:
    directory = Directory(f"{tmp_path}/{name}")
    assert directory.names() == []
    assert not directory.exists()
    directory.write_bytes("file", b"content")
    assert directory.names() == ["file"]
    assert directory.read_bytes("file") == b"content"
    assert (tmp_path / name / "file").read_bytes() == b"content"
    directory.remove("file")
    directory.remove("file")  # gone already
    assert directory.names() == []


def test_a_relative_path_is_one_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Directory("out").write_bytes("file", b"")
    assert (tmp_path / "out/file").is_file()
    assert Directory("out").same_as(Directory(f"{tmp_path}/x/../out/"))
    assert not Directory("out").same_as(Directory("out/verdicts"))
    assert Directory("gs://bucket/a/").same_as(Directory("gs://bucket/a"))


def test_a_uri_names_the_same_directory(tmp_path: Path) -> None:
    Directory(f"file://{tmp_path}/out").write_bytes("file", b"x")
    assert Directory(f"{tmp_path}/out").child("..").child("out").read_bytes("file") == b"x"


def test_a_file_that_was_not_written_to_its_end_does_not_appear(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path))
    directory.write_bytes("file", b"old")

    def fail() -> None:
        with directory.atomic("file") as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert directory.names() == ["file"]
    assert directory.read_bytes("file") == b"old"


def test_two_attempts_at_a_file_never_mix(tmp_path: Path) -> None:
    """A retried task and its orphan: whoever ends last, the file is that attempt's whole."""
    directory = Directory(str(tmp_path))
    with directory.atomic("shard") as orphan:
        orphan.write(b"A" * 3_000_000)
        with directory.atomic("shard") as retried:
            retried.write(b"B" * 1_000_000)
        assert set(directory.read_bytes("shard")) == {ord("B")}
        orphan.write(b"A" * 3_000_000)
    assert directory.read_bytes("shard") == b"A" * 6_000_000
    assert directory.names() == ["shard"]


def test_an_error_of_the_file_system_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/inside"):
        Directory(f"{tmp_path}/file").write_bytes("inside", b"")
    with pytest.raises(FileNotFoundError, match="missing"):
        Directory(str(tmp_path)).read_bytes("missing")


def test_json_is_the_same_for_equal_values(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path))
    directory.write_json("one", {"b": 1, "a": [2]})
    directory.write_json("two", {"a": [2], "b": 1})
    assert directory.read_bytes("one") == directory.read_bytes("two")
    assert directory.read_json("one") == {"a": [2], "b": 1}
    directory.write_bytes("broken", b"{")
    with pytest.raises(UserError, match=r"broken: not JSON"):
        directory.read_json("broken")


def test_clearing_and_removing(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path / "out"))
    directory.child("reports").write_bytes("file", b"")
    directory.clear()
    assert list((tmp_path / "out").iterdir()) == []
    directory.remove_tree()
    directory.remove_tree()
    assert not directory.exists()
