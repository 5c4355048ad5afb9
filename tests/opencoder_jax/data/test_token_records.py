"""Records come back as they were written, or not at all."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.data.token_records import ShardWriter, TokenRecords, shard_names, write_records
from opencoder_jax.recipe import UserError

Pairs = list[tuple[np.ndarray, np.ndarray | None]]


def random_pairs(lengths: list[int], seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, 2**31, length, np.int32), rng.integers(0, 2, length, np.uint8) if length % 2 else None)
        for length in lengths
    ]


def read_all(directory: Path) -> list[tuple[list[int], list[int]]]:
    records = TokenRecords.open(directory)
    pairs = [records.read(record) for record in range(len(records))]
    return [(tokens.tolist(), mask.tolist()) for tokens, mask in pairs]


def expected(shards: list[Pairs]) -> list[tuple[list[int], list[int]]]:
    return [
        (tokens.tolist(), [1] * len(tokens) if mask is None else mask.tolist())
        for pairs in shards
        for tokens, mask in pairs
    ]


# Lengths around which the framing's varints grow: a message's, an entry's and a value's length pass 128 and 16384.
lengths = st.lists(
    st.one_of(st.integers(1, 60), st.sampled_from([127, 128, 3270, 3280, 4095, 4096, 16384])), max_size=5
)


@settings(max_examples=40)
@given(shards=st.lists(lengths, min_size=1, max_size=4), seed=st.integers(0, 9))
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], seed: int) -> None:
    pairs = [random_pairs(shard, seed) for shard in [*shards, [5]]]
    directory = tmp_path_factory.mktemp("records")
    write_records(directory, pairs, b"tokenizer")
    assert read_all(directory) == expected(pairs)
    records = TokenRecords.open(directory)
    assert records.lengths.tolist() == [len(tokens) for tokens, _ in expected(pairs)]
    assert records.tokens == sum(records.lengths)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written")
    write_records(directory, [random_pairs([3, 40, 200], 1), [], random_pairs([1, 30], 2)], b"tokenizer")
    return directory


def test_equal_records_are_equal_bytes(written: Path, tmp_path: Path) -> None:
    write_records(tmp_path, [random_pairs([3, 40, 200], 1), [], random_pairs([1, 30], 2)], b"tokenizer")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in written.iterdir()
    }


def test_fingerprint_changes_with_one_token(written: Path, tmp_path: Path) -> None:
    pairs = random_pairs([3, 40, 200], 1)
    pairs[1][0][7] ^= 1
    write_records(tmp_path, [pairs, [], random_pairs([1, 30], 2)], b"tokenizer")
    changed, records = TokenRecords.open(tmp_path), TokenRecords.open(written)
    assert changed.fingerprint != records.fingerprint
    assert changed.tokenizer_fingerprint == records.tokenizer_fingerprint


@settings(max_examples=150)
@given(data=st.data())
def test_one_flipped_bit_never_gives_wrong_tokens(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("flipped") / "records"
    shutil.copytree(written, directory)
    files = sorted(file.name for file in directory.iterdir() if file.stat().st_size)
    file = directory / data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        read = read_all(directory)
    except UserError:
        return
    # TFDS's files say nothing that we read, and JSON and NumPy's header have white space.
    assert file.suffix in (".json", ".npy")
    assert read == read_all(written)


@pytest.mark.parametrize("shard", [0, 2])
def test_damaged_record_names_file_and_offset(written: Path, tmp_path: Path, shard: int) -> None:
    directory = tmp_path / "records"
    shutil.copytree(written, directory)
    file = directory / shard_names(shard, 3)[0]
    content = bytearray(file.read_bytes())
    content[-10] ^= 0x40
    file.write_bytes(content)
    records = TokenRecords.open(directory)
    last = 2 if shard == 0 else 4
    records.read(last - 1)
    index = np.load(directory / shard_names(shard, 3)[1])
    with pytest.raises(UserError, match=rf"{file}: damaged record {last} at byte (\d+)") as error:
        records.read(last)
    start = int(str(error.value).split("at byte ")[1].split()[0])
    assert index[-2, 0] + 5 * index[-2, 1] < start < index[-1, 0]


def test_truncated_shard_is_refused(written: Path, tmp_path: Path) -> None:
    directory = tmp_path / "records"
    shutil.copytree(written, directory)
    file = directory / shard_names(0, 3)[0]
    content = file.read_bytes()
    for length in random.Random(0).sample(range(len(content)), 20):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"{file}: not {len(content)} bytes as its index says: truncated"):
            TokenRecords.open(directory)


def test_missing_file_is_named(written: Path, tmp_path: Path) -> None:
    for name in sorted(file.name for file in written.iterdir()):
        directory = tmp_path / name
        shutil.copytree(written, directory)
        (directory / name).unlink()
        if name in ("features.json", "dataset_info.json"):  # TFDS's own
            TokenRecords.open(directory)
        else:
            with pytest.raises(UserError, match=f"{directory / name}: missing"):
                TokenRecords.open(directory)
    for place in (tmp_path / "nowhere", written / "features.json"):
        with pytest.raises(UserError, match="isn't a finished directory of token records"):
            TokenRecords.open(place)


def test_shard_of_another_data_set_is_refused(written: Path, tmp_path: Path) -> None:
    """Equally long records of other tokens: every size fits, only the CRCs don't."""
    directory, other = tmp_path / "records", tmp_path / "other"
    shutil.copytree(written, directory)
    write_records(other, [random_pairs([3, 40, 200], 7), [], random_pairs([1, 30], 8)], b"tokenizer")
    name, index_name = shard_names(0, 3)
    shutil.copy(other / name, directory / name)
    with pytest.raises(UserError, match="damaged"):
        TokenRecords.open(directory).read(0)
    shutil.copy(other / index_name, directory / index_name)
    with pytest.raises(UserError, match="indices don't belong"):
        TokenRecords.open(directory)


def test_foreign_tokenizer_is_refused(written: Path, tmp_path: Path) -> None:
    directory = tmp_path / "records"
    shutil.copytree(written, directory)
    (directory / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(UserError, match=r"tokenizer\.model: not the tokenizer that made these records"):
        TokenRecords.open(directory)


def test_empty_directory_of_records_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path, [[], []], b"tokenizer")
    with pytest.raises(UserError, match="holds no records"):
        TokenRecords.open(tmp_path)


def test_there_are_no_records_beyond_the_last(written: Path) -> None:
    records = TokenRecords.open(written)
    for record in (-1, 5):
        with pytest.raises(IndexError, match=f"record {record} of 5"):
            records.read(record)


def test_records_cannot_be_changed_by_their_reader(written: Path) -> None:
    tokens, mask = TokenRecords.open(written).read(0)
    for array in (tokens, mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    ("tokens", "mask"),
    [
        ([], None),
        ([1, 2], [1]),
        ([[1]], None),
        ([-1], None),
        ([2**31], None),
        ([1], [2]),
        ([1], [-1]),
    ],
)
def test_writer_refuses_what_is_no_record(tmp_path: Path, tokens: list[int], mask: list[int] | None) -> None:
    with open(tmp_path / "shard", "wb") as stream, pytest.raises(ValueError, match=r"a record needs|must lie"):
        ShardWriter(stream).write(np.array(tokens, np.int64), None if mask is None else np.array(mask))


def test_metadata_says_what_there_is(written: Path) -> None:
    metadata = json.loads((written / "metadata.json").read_text())
    assert metadata["records"] == [3, 0, 2]
    assert metadata["tokens"] == 274
    info = json.loads((written / "dataset_info.json").read_text())
    sizes = [(written / shard_names(shard, 3)[0]).stat().st_size for shard in range(3)]
    assert int(info["splits"][0]["numBytes"]) == sum(sizes) - 5 * 16
