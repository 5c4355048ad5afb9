"""Distributions on disk: what was written is read at any token, and what isn't it is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.token_records import TokenRecords, write_records
from opencoder_jax.distillation.distributions import Distributions, DistributionsWriter, Layout, seal
from opencoder_jax.distillation.taught import TaughtBatches
from opencoder_jax.recipe import UserError
from tests.opencoder_jax.training.small_run import write_teacher


def make_records(directory: Path, lengths: list[list[int]]) -> TokenRecords:
    """Records whose tokens count through all shards, each ended by 2."""
    shards, token = [], 4
    for shard in lengths:
        documents = []
        for length in shard:
            documents.append((np.append(np.arange(token, token + length), 2), None))
            token += length
        shards.append(documents)
    write_records(directory, shards, b"a tokenizer", 1 << 20)
    return TokenRecords.open(directory)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.lists(st.integers(1, 3000), max_size=4), min_size=1, max_size=4).filter(any),
    k=st.integers(1, 5),
    wide=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_any_tokens_are_read_as_they_were_written(
    lengths: list[list[int]], k: int, wide: bool, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the shards, empty ones too, in whatever pieces they were written and are read."""
    root = tmp_path_factory.mktemp("any")
    records = make_records(root / "records", lengths)
    numbers = np.random.default_rng(seed)
    ids = numbers.integers(0, 1 << (32 if wide else 16), (records.tokens, k)) & 0x7FFFFFFF
    shares = np.log(numbers.random((records.tokens, k))).astype(np.float16)
    layout, done = Layout(k, wide), 0
    for shard, documents in enumerate(lengths):
        writer = DistributionsWriter(root / "teacher", shard, records.shards, layout)
        stop = done + sum(documents) + len(documents)
        while done < stop:
            end = min(stop, done + int(numbers.integers(1, 2000)))
            writer.write(ids[done:end], shares[done:end])
            done = end
        writer.close()
    seal(root / "teacher", records, "somebody", layout)
    found = Distributions.open(root / "teacher", records)
    assert found.k == k
    some = numbers.integers(0, records.tokens, 20)
    stretch = np.arange(records.tokens)[int(some[0]) :][:5000]
    for wanted in (np.arange(records.tokens), some, np.concatenate([[-1, -1], stretch, [-1]])):
        known = wanted >= 0
        read_ids, read_shares = found.read(wanted)
        np.testing.assert_array_equal(read_ids[known], ids[wanted[known]])
        np.testing.assert_array_equal(read_shares[known], shares[wanted[known]].astype(np.float32))
        assert (read_ids[~known] == -1).all()
        assert np.isneginf(read_shares[~known]).all()


@pytest.fixture
def taught(tmp_path: Path) -> tuple[Path, TokenRecords]:
    records = make_records(tmp_path / "source", [[100, 200], [300]])
    write_teacher(tmp_path / "source_teacher", records)
    return tmp_path, records


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("distributions-00001-of-00002.bin", flip, "damaged between byte 0 and 16384"),
        ("distributions-00001-of-00002.bin", cut, "damaged, truncated or of another teacher"),
        ("distributions-00001-of-00002.bin", Path.unlink, "missing; make the distributions again"),
        ("distributions-00001-of-00002.crc32c", flip, "damaged, truncated or of another teacher"),
        ("teacher.json", cut, "not JSON"),
        ("teacher.json", lambda file: file.write_text("{}"), "damaged; make the distributions again"),
        ("teacher.json", Path.unlink, "python -m opencoder_jax teach --records="),
    ],
)
def test_damage_is_named_and_never_read(
    taught: tuple[Path, TokenRecords], name: str, damage: Callable[[Path], object], told: str
) -> None:
    root, records = taught
    damage(root / "source_teacher" / name)
    with pytest.raises(UserError, match=told) as error:
        Distributions.open(root / "source_teacher", records).read(np.arange(records.tokens))
    assert "source_teacher" in str(error.value)


def test_distributions_are_of_the_records_that_they_were_made_for(
    taught: tuple[Path, TokenRecords], tmp_path: Path
) -> None:
    root, _ = taught
    other = make_records(tmp_path / "other", [[100, 200], [301]])
    with pytest.raises(UserError, match=r"made for other token records than .*other"):
        Distributions.open(root / "source_teacher", other)


@pytest.mark.parametrize("packing", ["cut", "pack", "fragment", "pad"])
def test_each_target_of_a_batch_meets_what_was_expected_in_its_place(tmp_path: Path, packing: str) -> None:
    """By teachers who always expect the very token that comes, and padding, of which none knows anything."""
    for source, first in (("one", 10), ("two", 5000)):
        random = np.random.default_rng(first)
        documents = [(np.append(np.arange(first, first + length), 2), None) for length in random.integers(3, 90, 40)]
        write_records(tmp_path / source, [documents[:25], documents[25:]], b"a tokenizer", 1 << 20)
        records = TokenRecords.open(tmp_path / source)
        for shard, own in enumerate((documents[:25], documents[25:])):
            writer = DistributionsWriter(tmp_path / f"{source}_teacher", shard, 2, Layout(1, wide=False))
            tokens = np.concatenate([tokens for tokens, _ in own])
            writer.write(tokens[:, None], np.zeros((len(tokens), 1)))
            writer.close()
        seal(tmp_path / f"{source}_teacher", records, source, Layout(1, wide=False))
    mixture = {"one": 1.0, "two": 2.0}
    config = DataConfig(mixture=mixture, phases=((0, 32, 6),), packing=packing, teacher="_teacher")
    plain = Batches(config, tmp_path, pad=3, end_of_document=2)
    batches = TaughtBatches(plain, tmp_path)
    for step in range(8):
        batch = batches(step)
        np.testing.assert_array_equal(batch.tokens, plain(step).tokens)
        here = batch.targets != 3
        assert batch.teacher_ids.shape == (6, 32, 1)
        np.testing.assert_array_equal(batch.teacher_ids[..., 0], np.where(here, batch.targets, -1))
        np.testing.assert_array_equal(batch.teacher_log_probabilities[..., 0], np.where(here, 0, -np.inf))
        half = batches(step, 2, 4)
        np.testing.assert_array_equal(half.teacher_ids, batch.teacher_ids[2:4])


def test_sources_must_agree_on_how_much_is_kept(taught: tuple[Path, TokenRecords]) -> None:
    root, records = taught
    shutil.copytree(root / "source", root / "other")
    write_teacher(root / "other_teacher", records, k=7)
    config = DataConfig(mixture={"source": 1.0, "other": 1.0}, phases=((0, 8, 2),), teacher="_teacher")
    with pytest.raises(UserError, match=r"other_teacher: keeps 7 tokens of each distribution, .*source_teacher 4"):
        TaughtBatches(Batches(config, root, pad=3, end_of_document=2), root)


def test_filling_in_the_middle_has_no_distributions() -> None:
    with pytest.raises(ValueError, match="set fim_rate to 0"):
        DataConfig(fim_rate=0.5, teacher="_teacher")
