"""Directories in buckets, on servers that speak as S3 and Google's storage do: as on a disk, file by file."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from buckets import SCHEMES, bucket, objects

from opencoder_jax.beam_pipelines.core import owner
from opencoder_jax.beam_pipelines.core.owner import owned
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError


@pytest.fixture(scope="module", params=SCHEMES)
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    with bucket(request.param) as (address, _):
        yield address


@pytest.fixture
def directory(store: str, request: pytest.FixtureRequest) -> Directory:
    """One that isn't there yet."""
    return Directory(f"{store}/{re.sub(r'[^a-z_]', '-', request.node.name)}/out")


@pytest.mark.slow
def test_files_come_and_go(directory: Directory) -> None:
    assert directory.names() == []
    assert directory.local() is None
    assert not directory.exists()
    directory.write_bytes("file", b"content")
    directory.child("folder").write_json("100% ü#?.json", {"a": 1})
    directory.write_bytes("empty", b"")
    assert (directory.exists(), directory.exists("file"), directory.exists("other")) == (True, True, False)
    assert directory.sizes() == {"empty": 0, "file": 7}
    assert directory.child("folder").names() == ["100% ü#?.json"]
    assert directory.tree() == ["empty", "file", "folder/100% ü#?.json"]
    assert directory.read_bytes("file") == b"content"
    assert directory.child("folder").read_json("100% ü#?.json") == {"a": 1}
    assert directory.changed("file") > 1_700_000_000 * 10**9
    directory.remove("file")
    directory.remove("file")  # gone already
    assert directory.names() == ["empty"]
    directory.child("folder").remove_tree()
    directory.child("folder").remove_tree()
    assert directory.tree() == ["empty"]
    directory.clear()
    assert directory.tree() == []


@pytest.mark.slow
def test_a_file_can_be_read_in_parts_and_fetched(directory: Directory) -> None:
    content = os.urandom(1 << 20) * 20  # which is sent in several parts
    directory.write_bytes("file", content)
    with directory.read("file") as stream:
        assert stream.read_at(5, len(content) - 5) == content[-5:]
    with directory.fetch("file") as stream:
        stream.seek(7)
        assert stream.read() == content[7:]
    for opened in (directory.read, directory.fetch):
        with pytest.raises(FileNotFoundError, match="missing"):
            opened("missing")


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no such tea"), UserError("stop")])
def test_what_was_not_written_to_its_end_does_not_appear(directory: Directory, error: BaseException) -> None:
    directory.write_bytes("file", b"old")
    for name in ("file", "new"):
        with contextlib.suppress(BaseException), directory.atomic(name) as stream:
            stream.write(b"half")
            raise error
    assert {path: data for path, data in objects(directory.uri).items() if not path.endswith("/")} == {"file": b"old"}


@pytest.mark.slow
def test_two_attempts_at_a_file_never_mix(directory: Directory) -> None:
    """A retried task and its orphan: whoever ends last, the object is that attempt's whole."""
    with directory.atomic("shard") as orphan:
        orphan.write(b"A" * 12_000_000)
        with directory.atomic("shard") as retried:
            retried.write(b"B" * 1_000_000)
        assert set(directory.read_bytes("shard")) == {ord("B")}
    assert directory.read_bytes("shard") == b"A" * 12_000_000
    assert directory.names() == ["shard"]


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_told(store: str) -> None:
    elsewhere = Directory(f"{store}-of-nobody/out")
    assert elsewhere.names() == []
    with pytest.raises(OSError, match="bucket-of-nobody"):
        elsewhere.write_bytes("file", b"")


@pytest.mark.slow
def test_the_second_owner_is_told_of_the_first(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.2)
    monkeypatch.setattr(owner, "SILENCE", 5.0)
    with owned(directory), pytest.raises(UserError, match=f"process {os.getpid()} on .* has been writing there"):
        owned(directory).__enter__()
    assert directory.names() == []
    directory.write_json("owner-dead.json", {"host": "gone"})
    monkeypatch.setattr(owner, "SILENCE", 0.5)
    with owned(directory):
        assert "owner-dead.json" not in directory.names()


def test_a_local_address_needs_no_server(tmp_path: Path) -> None:
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        with Directory(uri).atomic("file") as stream:
            assert isinstance(stream, pa.NativeFile)
            stream.write(b"x")
        assert Directory(uri).fetch("file").read() == b"x"
