"""`verify` over a whole run: stages, their summary, and token records that no stage wrote."""

import random
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.chains import summary_of
from opencoder_jax.beam_pipelines.core.documents import read_shard
from opencoder_jax.beam_pipelines.core.manifest import PARTS, Manifest, read_finished
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.refinecode import SUMMARY
from opencoder_jax.data.token_records import TokenRecords, write_records
from opencoder_jax.recipe import UserError


def token_records(place: Path) -> Path:
    """Two shards, the second of several blocks."""
    chance = np.random.default_rng(0)
    lengths = [[3, 1], [9000, 5, 70]]
    shards = [[(chance.integers(0, 9999, length), None) for length in shard] for shard in lengths]
    write_records(place, shards, b"a tokenizer", 2**31)
    return place


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def refused(action: Callable[[], object], name: str) -> bool:
    try:
        action()
    except UserError as error:
        return name in str(error)
    return False


def test_token_records_are_verified_to_the_last_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = token_records(tmp_path / "tokens")
    main(["verify", str(tmp_path)])
    assert f"{records}: whole" in capsys.readouterr().out
    chance = random.Random(0)
    for file in sorted(records.iterdir()):
        bits = 8 * file.stat().st_size
        for bit in {0, bits - 1, *(chance.randrange(bits) for _ in range(10))}:
            flip(file, bit)
            assert refused(lambda: main(["verify", str(tmp_path)]), file.name), (file.name, bit)
            flip(file, bit)
    (records / "features.json").unlink()
    assert refused(lambda: main(["verify", str(tmp_path)]), "features.json: ")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished chain over a few real files, and token records beside it."""
    library = Path(sysconfig.get_paths()["stdlib"])
    main(["refinecode", f"--folders={library / 'json'}", f"--output={tmp_path / 'run'}", "--direct_num_workers=1"])
    token_records(tmp_path / "run" / "tokens")
    return tmp_path / "run"


def test_a_summary_is_held_against_the_stages(run: Path) -> None:
    main(["verify", str(run)])
    flip(run / SUMMARY, 8 * 2000)
    assert refused(lambda: main(["verify", str(run)]), f"{SUMMARY}: ")


@pytest.mark.slow
def test_a_summary_of_stages_in_folders_of_folders_is_held_against_them(run: Path, tmp_path: Path) -> None:
    """As that of web recall, whose rounds have stages of one name each."""
    (tmp_path / "web").mkdir()
    run.rename(tmp_path / "web" / "round_1")
    (tmp_path / "web" / "round_1" / SUMMARY).unlink()
    place = Directory(str(tmp_path / "web"))
    summary = summary_of(place.uri, ["round_1/collect", "round_1/filter"])
    assert [stage["directory"] for stage in summary["stages"]] == ["round_1/collect", "round_1/filter"]
    place.write_sealed("web.json", summary)
    main(["verify", place.uri])
    summary["stages"][0]["fingerprint"] = "another"
    place.write_sealed("web.json", summary)
    assert refused(lambda: main(["verify", place.uri]), "web.json: isn't the summary of the stages")


@pytest.mark.slow
def test_two_hundred_flipped_bits_are_never_read_as_good(run: Path) -> None:
    """One at a time, over all files by their sizes: who reads the file refuses it, and `verify` names it."""
    files = [file for file in sorted(run.rglob("*")) if file.is_file()]
    chance = random.Random(1)
    # Half are drawn by size, half evenly: small files matter too.
    drawn = chance.choices(files, [file.stat().st_size for file in files], k=100) + chance.choices(files, k=100)

    def read(file: Path) -> None:
        directory = Directory(str(file.parent))
        if file.parent.name == "tokens":
            records = TokenRecords.open(file.parent)
            for record in range(len(records)):
                records.read(record)
            # What only TFDS reads.
            if file.name in ("features.json", "dataset_info.json", "metadata.json"):
                main(["verify", str(file.parent)])
        elif file.suffix == ".parquet":
            assert file.name in Manifest.read(directory.uri).files
            list(read_shard(directory, file.name))
        elif file.name == SUMMARY:
            main(["verify", str(run)])
        elif file.name == PARTS:
            directory.read_sealed(PARTS)
        else:
            Manifest.read(directory.uri)
            read_finished(directory, file.name)

    for file in drawn:
        bit = chance.randrange(8 * file.stat().st_size)
        flip(file, bit)
        assert refused(partial(read, file), file.name), (file, bit)
        assert refused(lambda: main(["verify", str(run)]), file.name), (file, bit)
        flip(file, bit)
    main(["verify", str(run)])
