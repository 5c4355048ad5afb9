"""A file that isn't as its stage wrote it is never read as good; what was lost is made again, and nothing else."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.documents import read_shard, read_shard_columns
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, Manifest
from opencoder_jax.beam_pipelines.core.maps import Result, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

CALLS: list[str] = []  # the first texts of the batches that a kernel saw


@dataclass(frozen=True)
class NoConfig:
    pass


def keep(documents: pa.RecordBatch) -> Result:
    CALLS.append(documents.column("text")[0].as_py())
    return Result(documents)


def run(source: str, output: Path) -> Manifest:
    CALLS.clear()
    return map_stage("keep", keep, [source], str(output), NoConfig(), BeamOptions(("--direct_num_workers=1",)))


def content(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


def read_all(directory: str) -> None:
    for shard in Manifest.read(directory).shards():
        list(read_shard(Directory(directory), shard))


def read_ids(directory: str, name: str) -> pa.Table:
    return read_shard_columns(Directory(directory), name, ["id"])


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


@pytest.fixture
def source(tmp_path: Path, batch: Callable[..., pa.RecordBatch], stage_directory: Callable[..., str]) -> str:
    shards = [[batch("a\n" * 300, "b"), batch("c")], [batch("d")], [batch("e", "größe")]]
    return stage_directory(tmp_path / "source", shards)


def test_a_flipped_bit_anywhere_is_an_error_that_names_the_file(
    source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(0)
    for name in sorted(content(Path(source))):
        file = Path(source) / name
        whole = file.read_bytes()
        for bit in {0, 8 * len(whole) - 1, *(chance.randrange(8 * len(whole)) for _ in range(40))}:
            flip(file, bit)
            with pytest.raises(UserError, match=rf"{name}: "):
                read_all(source)
            with pytest.raises(UserError, match=rf"^1 files aren't as they were written .*{name}: "):
                main(["verify", source])
            file.write_bytes(whole)
    main(["verify", source])
    assert f"{source}: whole" in capsys.readouterr().out


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_shard_is_not_read(source: str, cut: int) -> None:
    file = Path(source) / "documents-00000-of-00003.parquet"
    file.write_bytes(file.read_bytes()[:cut])
    for read in (lambda: list(read_shard(Directory(source), file.name)), lambda: read_ids(source, file.name)):
        with pytest.raises(UserError, match=r"documents-00000-of-00003.parquet: damaged .* --delete"):
            read()


def test_a_damaged_input_stops_the_stage_that_reads_it(source: str, tmp_path: Path) -> None:
    flip(Path(source) / "documents-00001-of-00003.parquet", 999)
    with pytest.raises(UserError, match=r"source/documents-00001-of-00003.parquet: damaged after it was written"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize("how", ["deleted", "truncated", "found by verify"])
def test_only_the_lost_shard_is_made_again(source: str, tmp_path: Path, how: str) -> None:
    out = tmp_path / "out"
    run(source, out)
    whole = content(out)
    file = out / "documents-00002-of-00003.parquet"
    if how == "deleted":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        flip(file, 500)
        with pytest.raises(UserError, match=r"deleted; run the commands that wrote them again\).*00002-of-00003"):
            main(["verify", str(tmp_path), "--delete"])
        assert not file.exists()
    manifest = run(source, out)
    assert CALLS == ["e"]
    assert content(out) == whole
    assert manifest.total("out", "documents") == 6


def test_a_stage_whose_manifest_is_damaged_is_made_again_on_request(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out)
    whole = content(out)
    flip(out / MANIFEST, 8 * whole[MANIFEST].index(b'"documents"') + 80)
    with pytest.raises(UserError, match=r"stage\.json: "):
        run(source, out)
    with pytest.raises(UserError, match=r"stage\.json: "):
        main(["verify", str(out), "--delete"])
    run(source, out)
    assert CALLS == ["a\n" * 300, "c", "d", "e"]
    assert content(out) == whole


def test_where_other_bytes_come_out_all_is_made_again(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with another version of the library that writes the files."""
    out = tmp_path / "out"
    manifest = run(source, out)
    whole = content(out)
    Manifest(**asdict(manifest) | {"files": manifest.files | {"documents-00002-of-00003.parquet": "0" * 32}}).write(
        Directory(str(out))
    )
    (out / "documents-00002-of-00003.parquet").unlink()
    assert run(source, out).files == manifest.files
    assert "comes out otherwise than before" in capsys.readouterr().err
    assert content(out) == whole


def test_a_manifest_without_a_seal_is_an_older_one(source: str) -> None:
    known = Directory(source).read_json(MANIFEST)
    del known["seal"], known["sizes"]
    Directory(source).write_json(MANIFEST, known)
    assert Manifest.read(source).sizes == {}
    main(["verify", source])
    flip(Path(source) / "documents-00001-of-00003.parquet", 77)
    with pytest.raises(UserError, match="00001-of-00003"):
        main(["verify", source])


def test_there_must_be_something_to_verify(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished stage and no token records"):
        main(["verify", str(tmp_path)])
    with pytest.raises(UserError, match="nowhere"):
        main(["verify", str(tmp_path / "nowhere")])
