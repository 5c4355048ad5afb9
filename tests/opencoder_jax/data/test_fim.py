"""A document cut in three is still the document, in the order that the paper gives, the same for whoever reads it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.fim import FillInTheMiddle, FimRecords, fim_tokens
from opencoder_jax.data.token_records import TokenRecords, write_records
from opencoder_jax.recipe import UserError

PREFIX, SUFFIX, MIDDLE, END = 5, 6, 7, 2


def make(rate: float = 0.5, spm_rate: float = 0.5, seed: int = 0) -> FillInTheMiddle:
    return FillInTheMiddle(rate, spm_rate, seed, PREFIX, SUFFIX, MIDDLE)


def document(length: int, first: int = 10) -> np.ndarray:
    return np.array([*range(first, first + length - 1), END], np.int32)


@settings(max_examples=200)
@given(length=st.integers(1, 60), record=st.integers(0, 10**9), spm=st.booleans(), seed=st.integers(0, 5))
def test_the_three_parts_are_the_document(length: int, record: int, spm: bool, seed: int) -> None:
    tokens, mask = make(1.0, float(spm), seed).apply(record, document(length), np.ones(length, np.uint8))
    assert len(tokens) == len(mask) == length + 3
    assert mask.all()
    content = tokens.tolist()
    assert content[0] == PREFIX
    assert content[-1] == END
    suffix, middle = content.index(SUFFIX), content.index(MIDDLE)
    assert suffix < middle
    if spm:
        assert suffix == 1
        joined = content[middle + 1 : -1] + content[suffix + 1 : middle]
    else:
        joined = content[1:suffix] + content[middle + 1 : -1] + content[suffix + 1 : middle]
    assert [*joined, END] == document(length).tolist()


@settings(max_examples=100)
@given(rate=st.floats(0, 1), seed=st.integers(0, 9), first=st.integers(0, 10**9))
def test_the_rate_is_kept_everywhere(rate: float, seed: int, first: int) -> None:
    fim = make(rate, seed=seed)
    assert fim.before(0) == 0
    chosen = [len(fim.pieces(record, 9)) > 1 for record in range(first, first + 100)]
    assert sum(chosen) == fim.before(first + 100) - fim.before(first)
    assert abs(sum(chosen) - 100 * rate) <= 1


def test_cuts_are_even_and_half_are_spm() -> None:
    fim = make(1.0)
    starts, stops, spm = [], [], 0
    for record in range(2000):
        pieces = fim.pieces(record, 101)
        suffix = pieces.index(SUFFIX)
        spm += suffix == 1
        slices = [piece for piece in pieces if isinstance(piece, slice)]
        head, middle = (slices[1], slices[2]) if suffix == 1 else (slices[0], slices[2])
        assert head.stop == middle.start
        starts.append(middle.start)
        stops.append(middle.stop)
    # The smaller and the larger of two numbers drawn from 0 .. 100.
    assert np.mean(starts) == pytest.approx(100 / 3, abs=2)
    assert np.mean(stops) == pytest.approx(200 / 3, abs=2)
    assert 0.45 < spm / 2000 < 0.55
    assert fim.pieces(0, 101) != make(1.0, seed=1).pieces(0, 101)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    rate=st.sampled_from([0.1, 0.5, 1.0]),
    data=st.data(),
)
def test_any_part_is_read_alone(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], rate: float, data: st.DataObject
) -> None:
    """Records with fill-in-the-middle are those that `apply` makes, wherever reading begins and ends."""
    directory = tmp_path_factory.mktemp("fim")
    documents = [document(length, 10 + 50 * number) for number, length in enumerate(lengths)]
    write_records(directory, [[(tokens, None) for tokens in documents]], b"tokenizer", 2**31)
    fim = make(rate)
    records = FimRecords(TokenRecords.open(directory), fim)
    whole = [fim.apply(record, tokens, np.ones(len(tokens), np.uint8)) for record, tokens in enumerate(documents)]
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in whole)]).tolist()
    string = np.concatenate([tokens for tokens, _ in whole])
    assert records.tokens == len(string)
    assert [records.start(record) for record in range(len(records) + 1)] == starts
    assert records.lengths(0, len(records)).tolist() == np.diff(starts).tolist()
    first = data.draw(st.integers(0, len(string) - 1))
    count = data.draw(st.integers(1, len(string) - first))
    tokens, mask = np.zeros(count, np.int32), np.zeros(count, np.uint8)
    begins = records.read_from(first, tokens, mask)
    assert np.array_equal(tokens, string[first : first + count])
    assert mask.all()
    assert begins == [start - first for start in starts[:-1] if first <= start < first + count]
    record = records.record_at(first)
    assert starts[record] <= first < starts[record + 1]
    low, high = sorted(data.draw(st.tuples(st.integers(0, 45), st.integers(0, 45))))
    assert records.read(record, low, high)[0].tolist() == whole[record][0][low:high].tolist()


@pytest.mark.parametrize("packing", ["cut", "pack"])
def test_batches_hold_every_document_once_an_epoch(tmp_path: Path, packing: str) -> None:
    documents = [document(5 + number % 7, 10 + 50 * number) for number in range(40)]
    write_records(tmp_path / "a", [[(tokens, None) for tokens in documents]], b"tokenizer", 2**31)
    config = DataConfig({"a": 1.0}, ((0, 16, 4),), packing, fim_rate=0.5)
    batches = Batches(config, tmp_path, 3, END, (PREFIX, SUFFIX, MIDDLE))
    tokens = np.concatenate(documents)
    epoch: list[int] = []
    step = 0
    while batches.epochs_before(step)["a"] < 1:
        batch = batches(step)
        rows = batch.tokens if packing == "cut" else np.concatenate([batch.tokens, batch.targets[:, -1:]], axis=1)
        epoch += rows.ravel().tolist()
        step += 1
    counts = np.bincount(epoch, minlength=2100)
    assert (counts[tokens] >= 1).all()
    assert counts[PREFIX] >= 20
    assert counts[PREFIX] == pytest.approx(counts[SUFFIX], abs=4)
    assert batches.dropped == 0


def test_it_needs_documents_and_a_tokenizer_that_knows_it(tmp_path: Path) -> None:
    write_records(tmp_path / "a", [[(np.array([8, 9]), None)]], b"tokenizer", 2**31)
    config = DataConfig({"a": 1.0}, packing="pack", fim_rate=0.5)
    with pytest.raises(UserError, match=r"fim_rate is 0\.5, but the tokenizer has no tokens"):
        Batches(config, tmp_path, 3, END)
    with pytest.raises(UserError, match="record 0 ends with token 9"):
        Batches(config, tmp_path, 3, END, (PREFIX, SUFFIX, MIDDLE))


def test_tokens_are_found_by_their_names() -> None:
    assert fim_tokens({"<|fim_prefix|>": 5, "<|fim_middle|>": 7, "<|fim_suffix|>": 6, "<pad>": 3}) == (5, 6, 7)
    assert fim_tokens({"<|fim_prefix|>": 5, "<pad>": 3}) is None
