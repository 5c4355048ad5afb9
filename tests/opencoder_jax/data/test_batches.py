"""Batches are arithmetic: every token once an epoch, the same rows for any hosts, shares kept, seeking free."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.data import batches as module
from opencoder_jax.data.batches import Batch, Batches, DataConfig
from opencoder_jax.data.token_records import write_records
from opencoder_jax.recipe import UserError

Phases = tuple[tuple[int, int, int], ...]

END_OF_DOCUMENT = 2
PAD = 3


def number_records(
    directory: Path, lengths: Sequence[int], first: int = 10, masks: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Writes records that count upwards from `first`, each closed by end-of-document, into two shards."""
    records: list[list[int]] = []
    for length in lengths:
        records.append([*range(first, first + length - 1), END_OF_DOCUMENT])
        first += length - 1
    loss_masks = [None] * len(records) if masks is None else [np.array(mask) for mask in masks]
    pairs = list(zip(map(np.array, records), loss_masks, strict=True))
    write_records(directory, [pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]], b"a tokenizer")
    return records


def make(root: Path, phases: Phases, mixture: dict[str, float] | None = None, **fields: object) -> Batches:
    config = DataConfig(mixture=mixture or {"a": 1.0}, phases=phases, **{"shuffle_rows": 1} | fields)
    return Batches(config, root, PAD, END_OF_DOCUMENT)


def documents_of(stream: Sequence[int]) -> list[list[int]]:
    """Cuts behind every end-of-document."""
    ends = [index + 1 for index, token in enumerate(stream) if token == END_OF_DOCUMENT]
    return [list(stream[start:stop]) for start, stop in zip([0, *ends], ends, strict=False)]


def same(left: Batch, right: Batch) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(left, right, strict=True))


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)
phases = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 5)), min_size=1, max_size=3).map(
    lambda steps: tuple(
        (sum(count for count, _, _ in steps[:number]), length, rows) for number, (_, length, rows) in enumerate(steps)
    )
)


# ------------------------------------------------------------------------------------------------------- packing "cut"


@settings(max_examples=60)
@given(lengths=lengths, phases=phases, seed=st.integers(0, 3), across=st.booleans())
def test_cut_gives_every_token_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], phases: Phases, seed: int, across: bool
) -> None:
    """Over all phases, the inputs are one epoch after the other, each of them all documents in some order."""
    root = tmp_path_factory.mktemp("cut")
    documents = number_records(root / "a", lengths)
    total = sum(lengths)
    batches = make(root, phases, seed=seed, attend_across_documents=across)
    steps = phases[-1][0] + 1 + 2 * total // (phases[-1][1] * phases[-1][2])
    rows = [row for step in range(steps) for row in zip(*batches(step), strict=True)]
    stream = np.concatenate([tokens for tokens, _, _, _ in rows])
    # The target of each token is the next of the stream, through rows, steps, phases and epochs.
    assert np.array_equal(np.concatenate([targets for _, targets, _, _ in rows])[:-1], stream[1:])
    epochs = len(stream) // total
    assert epochs >= 2
    for epoch in range(epochs):
        assert sorted(documents_of(stream[epoch * total : (epoch + 1) * total])) == sorted(documents)
    begin = 0
    for tokens, _, positions, mask in rows:
        begins = {0, *(index + 1 for index, token in enumerate(tokens) if token == END_OF_DOCUMENT)}
        if across:
            assert positions.tolist() == list(range(len(tokens)))
            assert mask.all()
        else:
            expected = [index - max(start for start in begins if start <= index) for index in range(len(tokens))]
            assert positions.tolist() == expected
            # What follows the end of a document isn't to be learnt.
            assert mask.tolist() == [float(token != END_OF_DOCUMENT) for token in tokens]
        begin += len(tokens)
    assert batches.tokens_before(steps) == begin == len(stream)
    assert batches.epochs_before(steps)["a"] == pytest.approx(begin / total)
    assert batches.dropped == 0


@settings(max_examples=60)
@given(lengths=lengths, phases=phases, shuffle=st.integers(2, 9))
def test_shuffled_rows_are_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], phases: Phases, shuffle: int
) -> None:
    """Every phase but the endless last holds exactly its rows, none further from its place than a window."""
    root = tmp_path_factory.mktemp("shuffled")
    number_records(root / "a", lengths)
    ordered, shuffled = make(root, phases), make(root, phases, shuffle_rows=shuffle)
    for (first, _, _), (stop, _, _) in pairwise(phases):
        rows, others = (
            [row.tobytes() for step in range(first, stop) for row in batches(step).tokens]
            for batches in (ordered, shuffled)
        )
        assert sorted(rows) == sorted(others)
        for begin in range(0, len(rows), shuffle * 2):
            window = rows[max(0, begin - shuffle) : begin + 3 * shuffle]
            assert set(others[begin : begin + 2 * shuffle]) <= set(window)


def test_neighbours_are_parted(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [4001])
    batch = make(tmp_path, ((0, 4, 64),), shuffle_rows=1000)(0)
    assert np.abs(np.diff(np.sort(batch.tokens[:, 0]))).mean() > 20


def test_epochs_have_different_orders(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [5] * 40)
    batches = make(tmp_path, ((0, 200, 1),))
    orders = [batches(epoch).tokens[0].tolist() for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1
    other = make(tmp_path, ((0, 200, 1),), seed=1)
    assert not same(other(0), batches(0))


def test_two_sources_with_the_same_records_have_different_orders(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [5] * 40)
    number_records(tmp_path / "b", [5] * 40)
    batch = make(tmp_path, ((0, 200, 2),), {"a": 1.0, "b": 1.0})(0)
    assert not np.array_equal(batch.tokens[0], batch.tokens[1])
    assert sorted(batch.tokens[0]) == sorted(batch.tokens[1])


def test_loss_mask_of_the_record_is_that_of_the_targets(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [4], masks=[[0, 1, 0, 1]])
    batch = make(tmp_path, ((0, 4, 1),))(0)
    assert batch.tokens.tolist() == [[10, 11, 12, 2]]
    assert batch.targets.tolist() == [[11, 12, 2, 10]]
    assert batch.loss_mask.tolist() == [[1, 0, 1, 0]]
    assert [array.dtype.name for array in batch] == ["int32", "int32", "int32", "float32"]


def test_phases_of_the_8b_go_on_at_the_next_token(tmp_path: Path) -> None:
    """OpenCoder 8B's change of length, to scale: 4096 x 2048 rows to 8192 x 1024 rows at step 130,000."""
    number_records(tmp_path / "a", [7, 13, 40, 3])
    batches = make(tmp_path, ((0, 8, 4), (13, 16, 2)))
    last, first = batches(12), batches(13)
    assert (last.tokens.shape, first.tokens.shape) == ((4, 8), (2, 16))
    assert last.targets[-1, -1] == first.tokens[0, 0]
    assert [batches.tokens_per_step(step) for step in (12, 13)] == [32, 32]
    assert batches.tokens_before(20) == 20 * 32


# ---------------------------------------------------------------------------------------------------- hosts and seeking


@settings(max_examples=40)
@given(
    phases=phases,
    packing=st.sampled_from(["cut", "pack", "pad"]),
    shuffle=st.sampled_from([1, 4, 4096]),
    cuts=st.lists(st.integers(0, 5), max_size=4),
    steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
)
def test_rows_do_not_depend_on_hosts_or_history(
    tmp_path_factory: pytest.TempPathFactory,
    phases: Phases,
    packing: str,
    shuffle: int,
    cuts: list[int],
    steps: list[int],
) -> None:
    root = tmp_path_factory.mktemp("hosts")
    number_records(root / "a", [3, 9, 2, 17, 6])
    number_records(root / "b", [4, 4, 5], first=500)
    if packing != "cut":
        phases = tuple((start, 20, rows) for start, _, rows in phases)
    arguments = (root, phases, {"a": 0.7, "b": 0.3})
    one = make(*arguments, packing=packing, shuffle_rows=shuffle)
    for step in steps:
        whole = one(step)
        rows = len(whole.tokens)
        edges = sorted({0, *(min(cut, rows) for cut in cuts), rows})
        fresh = make(*arguments, packing=packing, shuffle_rows=shuffle)
        parts = [fresh(step, start, stop) for start, stop in pairwise(edges)]
        assert same(whole, Batch(*map(np.concatenate, zip(*parts, strict=True))))
        assert one.shape(step) == whole.tokens.shape


def test_a_far_step_replays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number_records(tmp_path / "a", [9] * 50)
    batches = make(tmp_path, ((0, 16, 4), (1000, 32, 4)))
    epochs: list[str] = []
    original = module._permutation

    def counted(count: int, key: str) -> np.ndarray:
        epochs.append(key)
        return original(count, key)

    monkeypatch.setattr(module, "_permutation", counted)
    batch = batches(10**12)
    first_token = 1000 * 16 * 4 + (10**12 - 1000) * 32 * 4
    assert epochs == [f"0/a/{first_token // 450}"]
    # The same place of the same epoch, found through a run of another shape.
    other = make(tmp_path, ((0, 1, 1),))
    assert [other(first_token + index).tokens[0, 0] for index in range(5)] == batch.tokens[0, :5].tolist()


# ------------------------------------------------------------------------------------------------------------- mixtures


def test_shares_hold_over_10_000_batches(tmp_path: Path) -> None:
    """The annealing mixture's weights (arXiv 2411.04905, table of the annealing data)."""
    weights = {"refinecode": 83.94, "algorithmic": 12.44, "snippets": 2.71, "textbooks": 0.91}
    for number, name in enumerate(weights):
        write_records(tmp_path / name, [[(np.array([10 + number, END_OF_DOCUMENT]), None)]], b"a tokenizer")
    batches = make(tmp_path, ((0, 2, 4),), weights)
    counts: Counter[int] = Counter()
    for step in range(10_000):
        counts.update(batches(step).tokens.max(axis=1).tolist())
    for number, weight in enumerate(weights.values()):
        share = counts[10 + number] / sum(counts.values())
        assert share == pytest.approx(weight / 100, rel=0.005)
    # Not only in the end: any stretch of 1024 rows (a batch of the 1.5B) has its share, but for a row or two.
    for step in (0, 777, 9744):
        stretch = np.concatenate([batches(step + later).tokens.max(axis=1) for later in range(256)])
        for number, weight in enumerate(weights.values()):
            assert abs((stretch == 10 + number).sum() - 10.24 * weight) <= 2


@settings(max_examples=100)
@given(weights=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6))
def test_pattern_deals_every_row_and_forgets_no_source(weights: list[float]) -> None:
    pattern, counts = module._deal(weights)
    assert len(pattern) == module.PERIOD
    assert counts[-1].sum() == module.PERIOD
    assert (counts[-1] >= 1).all()
    assert np.array_equal(counts[-1], np.bincount(pattern, minlength=len(weights)))
    exact = np.array(weights) / sum(weights) * module.PERIOD
    assert (np.abs(counts[-1] - exact) <= len(weights)).all()


def test_sources_of_different_tokenizers_are_refused(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [5, 5])
    write_records(tmp_path / "b", [[(np.array([7, 2]), None)]], b"another tokenizer")
    with pytest.raises(UserError, match=f"{tmp_path / 'b'}: made by another tokenizer than {tmp_path / 'a'}"):
        make(tmp_path, ((0, 4, 2),), {"a": 1.0, "b": 1.0})


# ----------------------------------------------------------------------------------------------------- "pack" and "pad"


@settings(max_examples=60)
@given(lengths=lengths, length=st.integers(5, 30), packing=st.sampled_from(["pack", "pad"]), across=st.booleans())
def test_whole_examples_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, packing: str, across: bool
) -> None:
    root = tmp_path_factory.mktemp("examples")
    lengths = [*lengths, 5]
    examples = number_records(root / "a", lengths)
    batches = make(root, ((0, length, 1),), packing=packing, attend_across_documents=across)
    fitting = sorted(example for example in examples if 2 <= len(example) <= length + 1)
    assert batches.dropped == len(examples) - len(fitting)
    for epoch in range(2):
        found: list[list[int]] = []
        step = 0
        while len(found) < len(fitting):
            rows = round(1 / batches.epochs_before(1)["a"])
            tokens, targets, positions, mask = (array[0] for array in batches(epoch * rows + step))
            row = [*tokens.tolist(), int(targets[-1])]
            assert targets.tolist() == row[1:]
            inside = documents_of(row)
            found += inside
            size = sum(map(len, inside))
            assert row[size:] == [PAD] * (length + 1 - size)
            assert not mask[size - 1 :].any()
            firsts = np.cumsum([0, *map(len, inside)])[:-1].tolist()
            learnt = [index for index in range(size - 1) if across or index + 1 not in firsts]
            assert np.flatnonzero(mask).tolist() == learnt
            assert positions[firsts].tolist() == (firsts if across else [0] * len(firsts))
            if packing == "pad":
                assert len(inside) == 1
            step += 1
        assert step == rows
        assert sorted(found) == fitting


def test_only_what_the_assistant_says_is_trained_on(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [4], masks=[[0, 0, 1, 1]])
    batch = make(tmp_path, ((0, 6, 1),), packing="pad")(0)
    assert batch.tokens.tolist() == [[10, 11, 12, 2, PAD, PAD]]
    assert batch.targets.tolist() == [[11, 12, 2, PAD, PAD, PAD]]
    assert batch.loss_mask.tolist() == [[0, 1, 1, 0, 0, 0]]


def test_examples_that_all_are_too_long_are_an_error(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [20, 30])
    with pytest.raises(UserError, match="no example fits into 18 tokens"):
        make(tmp_path, ((0, 18, 1),), packing="pack")
    assert make(tmp_path, ((0, 19, 1),), packing="pack").dropped == 1


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_conversations_cannot_be_cut(tmp_path: Path) -> None:
    write_records(tmp_path / "a", [[(np.array([7, 8, 9]), None)]], b"a tokenizer")
    with pytest.raises(UserError, match=r'record 0 ends with token 9.*use "pack" or "pad"'):
        make(tmp_path, ((0, 4, 1),))


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/a/metadata.json: missing"):
        make(tmp_path, ((0, 4, 1),))


@pytest.mark.parametrize(("step", "start", "stop"), [(-1, 0, 1), (0, 2, 1), (0, 0, 5), (0, -1, 1)])
def test_steps_and_rows_that_are_not_there(tmp_path: Path, step: int, start: int, stop: int) -> None:
    number_records(tmp_path / "a", [5])
    with pytest.raises(ValueError, match=f"step {step} has rows 0 to 4; asked for {start} to {stop}"):
        make(tmp_path, ((0, 4, 4),))(step, start, stop)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixture": {}}, "mixture must name at least one source"),
        ({"mixture": {"a": 0.0}}, "weight above 0"),
        ({"mixture": {"a": float("nan")}}, "weight above 0"),
        ({"mixture": {"a": float("inf")}}, "weight above 0"),
        ({"packing": "fold"}, "packing must be"),
        ({"shuffle_rows": 0}, "shuffle_rows must be at least 1"),
        ({"phases": ()}, "phases must hold"),
        ({"phases": ((0, 4096),)}, "phases must hold"),
        ({"phases": ((0, 0, 4),)}, "phases must hold"),
        ({"phases": ((5, 8, 4),)}, "begin at step 0"),
        ({"phases": ((0, 8, 4), (0, 16, 4))}, "later and later steps"),
        ({"phases": ((0, 8, 4), (9, 16, 4)), "packing": "pad"}, "needs one sequence length"),
    ],
)
def test_configuration_says_what_is_wrong(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)
