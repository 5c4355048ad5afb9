"""Records come back as they were written, or not at all."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.data import token_records as module
from opencoder_jax.data.token_records import BLOCK, RecordWriter, TokenRecords, shard_names, write_records
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
    write_records(directory, pairs, b"tokenizer", 2**31)
    assert read_all(directory) == expected(pairs)
    records = TokenRecords.open(directory)
    sizes = [len(tokens) for tokens, _ in expected(pairs)]
    assert records.lengths(0, len(records)).tolist() == sizes
    assert records.tokens == sum(sizes)
    assert [records.start(record) for record in range(len(records) + 1)] == np.cumsum([0, *sizes]).tolist()


@settings(max_examples=60)
@given(data=st.data(), shards=st.lists(lengths, min_size=1, max_size=4))
def test_any_part_is_read_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: list[list[int]]
) -> None:
    """A stretch through records and shards, or a part of a record, is what all records one after the other hold."""
    pairs = [random_pairs(shard, 3) for shard in [*shards, [5]]]
    directory = tmp_path_factory.mktemp("parts")
    write_records(directory, pairs, b"tokenizer", 2**31)
    records = TokenRecords.open(directory)
    whole = expected(pairs)
    tokens, mask = (np.concatenate([pair[part] for pair in whole]) for part in (0, 1))
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in whole)])
    for _ in range(3):
        first = data.draw(st.integers(0, records.tokens - 1))
        count = data.draw(st.integers(1, records.tokens - first))
        found, found_mask = np.zeros(count, np.int32), np.zeros(count, np.uint8)
        begins = records.read_from(first, found, found_mask)
        assert np.array_equal(found, tokens[first : first + count])
        assert np.array_equal(found_mask, mask[first : first + count])
        assert begins == [start - first for start in starts if first <= start < first + count]
        record = records.record_at(first)
        assert starts[record] <= first < starts[record + 1]
        start, stop = sorted(data.draw(st.tuples(st.integers(0, 20000), st.integers(0, 20000))))
        part, part_mask = records.read(record, start, stop)
        assert part.tolist() == whole[record][0][start:stop]
        assert part_mask.tolist() == whole[record][1][start:stop]
        low, high = sorted(data.draw(st.tuples(st.integers(0, len(records)), st.integers(0, len(records)))))
        assert records.lengths(low, high).tolist() == np.diff(starts)[low:high].tolist()


def test_only_blocks_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a document of a million tokens (5 MB), a row of 4096 costs a few blocks."""
    write_records(tmp_path, [[(np.arange(1_000_000), None), (np.arange(10), None)]], b"tokenizer", 2**31)
    records = TokenRecords.open(tmp_path)
    sizes: list[int] = []
    pread = module.os.pread

    def counted(file: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return pread(file, size, offset)

    monkeypatch.setattr(module.os, "pread", counted)
    for position in (0, 123_456, 1_000_000 - 4096):
        sizes.clear()
        tokens = np.zeros(4096, np.int32)
        records.read_from(position, tokens, np.zeros(4096, np.uint8))
        assert tokens.tolist() == list(range(position, position + 4096))
        assert sum(sizes) <= 2 * BLOCK + 2 * BLOCK


@pytest.mark.parametrize("outside", [300, -1, 2**31])
def test_a_token_outside_the_vocabulary_is_no_record(tmp_path: Path, outside: int) -> None:
    with pytest.raises(ValueError, match=rf"below 300.*; got int64 from {min(7, outside)} to {max(7, outside)}"):
        write_records(tmp_path, [[(np.array([7, outside]), None)]], b"tokenizer", 300)
    with pytest.raises(UserError):
        TokenRecords.open(tmp_path)
    write_records(tmp_path, [[(np.array([0, 299]), None)]], b"tokenizer", 300)
    assert read_all(tmp_path) == [([0, 299], [1, 1])]


def test_more_shards_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_SHARDS", 2)
    pairs = [random_pairs([3, 9], shard) for shard in range(7)]
    write_records(tmp_path, pairs, b"tokenizer", 2**31)
    assert read_all(tmp_path) == expected(pairs)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written")
    write_records(directory, [random_pairs([3, 40, 200], 1), [], random_pairs([1, 30], 2)], b"tokenizer", 2**31)
    return directory


def test_equal_records_are_equal_bytes(written: Path, tmp_path: Path) -> None:
    write_records(tmp_path, [random_pairs([3, 40, 200], 1), [], random_pairs([1, 30], 2)], b"tokenizer", 2**31)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in written.iterdir()
    }


def test_fingerprint_changes_with_one_token(written: Path, tmp_path: Path) -> None:
    pairs = random_pairs([3, 40, 200], 1)
    pairs[1][0][7] ^= 1
    write_records(tmp_path, [pairs, [], random_pairs([1, 30], 2)], b"tokenizer", 2**31)
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
    # TFDS's files say nothing that we read, JSON has white space, and of a shard without records nothing is read.
    assert file.suffix == ".json" or file.name in shard_names(1, 3)
    assert read == read_all(written)


@pytest.mark.parametrize("shard", [0, 2])
def test_damage_names_file_and_offset(tmp_path: Path, shard: int) -> None:
    write_records(tmp_path, [random_pairs([30000, 40], 1), [], random_pairs([1, 30000], 2)], b"tokenizer", 2**31)
    file = tmp_path / shard_names(shard, 3).tokens
    content = bytearray(file.read_bytes())
    content[4 * BLOCK + 5] ^= 0x40
    file.write_bytes(content)
    records = TokenRecords.open(tmp_path)
    sound, broken = (1, 0) if shard == 0 else (2, 3)
    records.read(sound)
    # A part of the record that lies in other blocks is sound, and read.
    assert len(records.read(broken, 0, 100)[0]) == 100
    with pytest.raises(UserError, match=f"{file}: damaged between byte {4 * BLOCK} and {5 * BLOCK} "):
        records.read(broken)
    position = records.start(broken)
    with pytest.raises(UserError, match=f"{file}: damaged between byte {4 * BLOCK} and {5 * BLOCK} "):
        records.read_from(position, np.zeros(30000, np.int32), np.zeros(30000, np.uint8))


def test_damaged_index_is_named(written: Path, tmp_path: Path) -> None:
    """In whichever number of it: the search in it is led astray, but not to wrong tokens."""
    directory = tmp_path / "records"
    shutil.copytree(written, directory)
    file = directory / shard_names(0, 3).places
    content = file.read_bytes()
    for place in range(128, len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        records = TokenRecords.open(directory)
        with pytest.raises(UserError, match=f"{file}: damaged between byte 0 and {BLOCK}"):
            records.read_from(7, np.zeros(60, np.int32), np.zeros(60, np.uint8))
        with pytest.raises(UserError, match=f"{file}: damaged"):
            records.read(1)


def test_truncated_shard_is_refused(written: Path, tmp_path: Path) -> None:
    directory = tmp_path / "records"
    shutil.copytree(written, directory)
    for name in shard_names(0, 3):
        file = directory / name
        content = file.read_bytes()
        for length in {0, *random.Random(0).sample(range(len(content)), min(12, len(content)))}:
            file.write_bytes(content[:length])
            with pytest.raises(UserError, match=f"{file}: has {length} bytes and not {len(content)}: truncated"):
                TokenRecords.open(directory)
        file.write_bytes(content)


def test_shard_that_is_truncated_while_it_is_read_is_named(tmp_path: Path) -> None:
    write_records(tmp_path, [random_pairs([9000, 40], 1)], b"tokenizer", 2**31)
    records = TokenRecords.open(tmp_path)
    records.read(0)
    file = tmp_path / shard_names(0, 1).tokens
    with open(file, "r+b") as stream:
        stream.truncate(20_000)
    with pytest.raises(UserError, match=f"{file}: ends at byte 20000, in the middle"):
        records.read(0)


def test_a_read_that_gives_less_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path, [[(np.arange(9000), None)]], b"tokenizer", 2**31)
    pread = module.os.pread
    monkeypatch.setattr(module.os, "pread", lambda file, size, offset: pread(file, min(size, 1000), offset))
    assert TokenRecords.open(tmp_path).read(0)[0].tolist() == list(range(9000))


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
    """Equally long records of other tokens: every size fits, and with its checksums beside it the shard is sound."""
    directory, other = tmp_path / "records", tmp_path / "other"
    shutil.copytree(written, directory)
    write_records(other, [random_pairs([3, 40, 200], 7), [], random_pairs([1, 30], 8)], b"tokenizer", 2**31)
    names = shard_names(0, 3)
    shutil.copy(other / names.tokens, directory / names.tokens)
    with pytest.raises(UserError, match=f"{directory / names.tokens}: damaged"):
        TokenRecords.open(directory).read(0)
    shutil.copy(other / names.checksums, directory / names.checksums)
    with pytest.raises(UserError, match=f"{directory / names.checksums}: damaged, or of another data set"):
        TokenRecords.open(directory).read(0)


def test_foreign_tokenizer_is_refused(written: Path, tmp_path: Path) -> None:
    directory = tmp_path / "records"
    shutil.copytree(written, directory)
    (directory / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(UserError, match=r"tokenizer\.model: not the tokenizer that made these records"):
        TokenRecords.open(directory)


def test_empty_directory_of_records_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path, [[], []], b"tokenizer", 2**31)
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
        ([6.5], None),
        ([1], [0.5]),
    ],
)
def test_writer_refuses_what_is_no_record(tmp_path: Path, tokens: list[float], mask: list[float] | None) -> None:
    with open(tmp_path / "shard", "wb") as stream, pytest.raises(ValueError, match=r"a record needs|that lie in"):
        RecordWriter(stream).write(np.array(tokens), None if mask is None else np.array(mask))


def test_metadata_says_what_there_is(written: Path) -> None:
    metadata = json.loads((written / "metadata.json").read_text())
    assert [shard[0] for shard in metadata["shards"]] == [3, 0, 2]
    assert metadata["records"] == 5
    assert metadata["tokens"] == 274
    info = json.loads((written / "dataset_info.json").read_text())
    sizes = [(written / shard_names(shard, 3).tokens).stat().st_size for shard in range(3)]
    assert int(info["splits"][0]["numBytes"]) == sum(sizes) - 5 * 16
