"""Batches are arithmetic: every token once an epoch, the same rows for any hosts, shares kept, seeking free."""

import os
import pickle
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
from opencoder_jax.data.order import PERIOD
from opencoder_jax.data.rows import best_fit
from opencoder_jax.data.token_records import BLOCK, TokenRecords, write_records
from opencoder_jax.files import need_directory
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
    write_records(directory, [pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]], b"a tokenizer", 2**31)
    return records


def make(root: Path, phases: Phases, mixture: dict[str, float] | None = None, **fields: object) -> Batches:
    config = DataConfig(mixture=mixture or {"a": 1.0}, phases=phases, **fields)
    return Batches(config, root, PAD, END_OF_DOCUMENT)


def rows_of(batches: Batches, first: int, stop: int) -> list[np.ndarray]:
    """Inputs of steps `first` to before `stop` with the target of the last, one array a row."""
    found = []
    for step in range(first, stop):
        batch = batches(step)
        found += [np.append(row, last) for row, last in zip(batch.tokens, batch.targets[:, -1], strict=True)]
    return found


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


@settings(max_examples=80)
@given(lengths=lengths, phases=phases, seed=st.integers(0, 3), across=st.booleans())
def test_cut_gives_every_token_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], phases: Phases, seed: int, across: bool
) -> None:
    """The oracle lays the source out again and again, and cuts it by hand: in spans of one length, then in rows.

    A span's rows that begin in one epoch come together, all of them, in any order.
    """
    root = tmp_path_factory.mktemp("cut")
    string = np.concatenate(number_records(root / "a", lengths))
    total = len(string)
    batches = make(root, phases, seed=seed, attend_across_documents=across)
    last_first, length, rows = phases[-1]
    # To the end of an epoch of the last phase, and the first row beyond.
    position = sum((stop - first) * length * rows for (first, length, rows), (stop, _, _) in pairwise(phases))
    ends = [edge for edge in range(1, 4 + position // total) if edge * total > position]
    steps = last_first + 1 + (ends[1] * total - position) // (length * rows)
    assert batches.tokens_before(steps) == position + (steps - last_first) * length * rows
    found: list[tuple[int, np.ndarray]] = []
    for (first, length, _), (stop, _, _) in pairwise([*phases, (steps, 0, 0)]):
        found += [(length, row) for row in rows_of(batches, first, stop)]
    begin, place = 0, 0  # token of the string, row found
    while place < len(found):
        length = found[place][0]
        of_span = next((at for at in range(place, len(found)) if found[at][0] != length), len(found))
        epoch = begin // total
        starts = range(begin, min((epoch + 1) * total, begin + (of_span - place) * length), length)
        wanted = [string[np.arange(start, start + length + 1) % total].tolist() for start in starts]
        got = [row.tolist() for _, row in found[place : place + len(starts)]]
        if len(starts) == of_span - place == len(found) - place:  # the steps end in the middle of an epoch
            assert Counter(map(tuple, got)) <= Counter(
                tuple(string[np.arange(start, start + length + 1) % total].tolist())
                for start in range(begin, (epoch + 1) * total, length)
            )
        else:
            assert sorted(got) == sorted(wanted)
        begin, place = begin + len(starts) * length, place + len(starts)
    assert batches.epochs_before(steps)["a"] == pytest.approx(begin / total)
    assert batches.dropped == 0


@settings(max_examples=40)
@given(lengths=lengths, phases=phases, across=st.booleans())
def test_positions_restart_where_documents_may_not_see_each_other(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], phases: Phases, across: bool
) -> None:
    root = tmp_path_factory.mktemp("positions")
    number_records(root / "a", lengths)
    batches = make(root, phases, attend_across_documents=across)
    for step in range(phases[-1][0] + 2):
        for tokens, targets, positions, mask in zip(*batches(step), strict=True):
            assert tokens[1:].tolist() == targets[:-1].tolist()
            begins = {0, *(index + 1 for index, token in enumerate(tokens) if token == END_OF_DOCUMENT)}
            if across:
                assert positions.tolist() == list(range(len(tokens)))
                assert mask.all()
            else:
                expected = [index - max(start for start in begins if start <= index) for index in range(len(tokens))]
                assert positions.tolist() == expected
                # What follows the end of a document isn't to be learnt.
                assert mask.tolist() == [float(token != END_OF_DOCUMENT) for token in tokens]


def test_the_rows_of_a_batch_come_from_the_whole_corpus(tmp_path: Path) -> None:
    """Also those of one document that is most of it."""
    number_records(tmp_path / "a", [40_001])
    batch = make(tmp_path, ((0, 4, 100),))(0)
    places = np.sort(batch.tokens.min(axis=1))
    # 100 places drawn from 10,000: their distances are those of a Poisson process, about 400 in the mean.
    assert places[0] < 3000
    assert places[-1] > 37_000
    assert (np.diff(places) < 8).sum() <= 4


def test_epochs_have_different_orders(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [5] * 40)
    batches = make(tmp_path, ((0, 10, 20),))
    orders = [batches(epoch).tokens[:, 0].tolist() for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1
    other = make(tmp_path, ((0, 10, 20),), seed=1)
    assert not same(other(0), batches(0))


def test_two_sources_with_the_same_records_have_different_orders(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [5] * 40)
    number_records(tmp_path / "b", [5] * 40)
    batch = make(tmp_path, ((0, 10, 40),), {"a": 1.0, "b": 1.0})(0)
    assert (np.unique(batch.tokens[:, 0], return_counts=True)[1] == 2).all()
    sources = make(tmp_path, ((0, 10, 40),), {"a": 1.0, "b": 1.0})._deal.sources(0, 40)
    assert batch.tokens[sources == 0, 0].tolist() != batch.tokens[sources == 1, 0].tolist()


def test_loss_mask_of_the_record_is_that_of_the_targets(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [4], masks=[[0, 1, 0, 1]])
    batch = make(tmp_path, ((0, 4, 1),))(0)
    assert batch.tokens.tolist() == [[10, 11, 12, 2]]
    assert batch.targets.tolist() == [[11, 12, 2, 10]]
    assert batch.loss_mask.tolist() == [[1, 0, 1, 0]]
    assert [array.dtype.name for array in batch] == ["int32", "int32", "int32", "float32"]


def test_phases_of_the_8b_go_on_at_the_next_token(tmp_path: Path) -> None:
    """OpenCoder 8B's change of length, to scale: 4096 x 2048 rows to 8192 x 1024 rows at step 130,000."""
    string = np.concatenate(number_records(tmp_path / "a", [7, 130, 400, 599]))
    batches = make(tmp_path, ((0, 8, 4), (13, 16, 2)))
    assert [batches(step).tokens.shape for step in (12, 13)] == [(4, 8), (2, 16)]
    seen = np.concatenate([batches(step).tokens.ravel() for step in range(13)])
    assert sorted(seen) == sorted(string[: 13 * 32])
    rest = np.concatenate([batches(step).tokens.ravel() for step in range(13, 13 + (1136 - 13 * 32) // 32)])
    assert set(rest).isdisjoint(set(seen) - {END_OF_DOCUMENT})
    assert [batches.tokens_per_step(step) for step in (12, 13)] == [32, 32]
    assert batches.tokens_before(20) == 20 * 32


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=3, max_size=12),
    rows=st.integers(1, 6),
    others=st.integers(1, 6),
    change=st.integers(1, 5),
)
def test_the_rows_of_a_batch_may_change_unplanned(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], rows: int, others: int, change: int
) -> None:
    """Whatever follows, the rows come in one order; so a run may go on with larger batches."""
    root = tmp_path_factory.mktemp("rows")
    number_records(root / "a", lengths)
    number_records(root / "b", lengths, first=1000)
    mixture = {"a": 2.0, "b": 1.0}
    planned = rows_of(make(root, ((0, 7, rows),), mixture), 0, 12)
    changed = rows_of(make(root, ((0, 7, rows), (change, 7, others)), mixture), 0, 12)
    for one, other in zip(planned, changed, strict=False):
        assert np.array_equal(one, other)


# ---------------------------------------------------------------------------------------------------- hosts and seeking


@settings(max_examples=40)
@given(
    phases=phases,
    packing=st.sampled_from(["cut", "pack", "fragment", "pad"]),
    cuts=st.lists(st.integers(0, 5), max_size=4),
    steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
)
def test_rows_do_not_depend_on_hosts_or_history(
    tmp_path_factory: pytest.TempPathFactory,
    phases: Phases,
    packing: str,
    cuts: list[int],
    steps: list[int],
) -> None:
    root = tmp_path_factory.mktemp("hosts")
    number_records(root / "a", [3, 9, 2, 17, 6])
    number_records(root / "b", [4, 4, 5], first=500)
    if packing != "cut":
        phases = tuple((start, 20, rows) for start, _, rows in phases)
    arguments = (root, phases, {"a": 0.7, "b": 0.3})
    one = make(*arguments, packing=packing)
    for step in steps:
        whole = one(step)
        rows = len(whole.tokens)
        edges = sorted({0, *(min(cut, rows) for cut in cuts), rows})
        fresh = make(*arguments, packing=packing)
        parts = [fresh(step, start, stop) for start, stop in pairwise(edges)]
        assert same(whole, Batch(*map(np.concatenate, zip(*parts, strict=True))))
        assert one.shape(step) == whole.tokens.shape


@settings(max_examples=15)
@given(phases=phases, packing=st.sampled_from(["cut", "pack", "fragment", "pad"]), fim=st.booleans(), data=st.data())
def test_resuming_is_never_having_stopped(
    tmp_path_factory: pytest.TempPathFactory, phases: Phases, packing: str, fim: bool, data: st.DataObject
) -> None:
    """On 1, 2, 4 and 8 hosts, each of which opens the data anew at some step: the same batches, byte for byte."""
    root = tmp_path_factory.mktemp("resume")
    number_records(root / "a", [3, 9, 2, 17, 6])
    number_records(root / "b", [4, 4, 5], first=500)
    phases = tuple((start, length if packing == "cut" else 20, rows * 8) for start, length, rows in phases)
    config = DataConfig(mixture={"a": 0.7, "b": 0.3}, phases=phases, packing=packing, fim_rate=0.6 if fim else 0.0)

    def opened() -> Batches:
        return Batches(config, root, PAD, END_OF_DOCUMENT, (5, 6, 7))

    stop = phases[-1][0] + 3
    batches = opened()
    uninterrupted = [batches(step) for step in range(stop)]
    begin = data.draw(st.integers(0, stop - 1))
    for hosts in (1, 2, 4, 8):
        of_hosts = [opened() for _ in range(hosts)]
        for step in range(begin, stop):
            share = len(uninterrupted[step].tokens) // hosts
            parts = [batches(step, host * share, (host + 1) * share) for host, batches in enumerate(of_hosts)]
            assert same(uninterrupted[step], Batch(*map(np.concatenate, zip(*parts, strict=True))))


def test_a_far_step_replays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    string = np.concatenate(number_records(tmp_path / "a", [9] * 50))
    batches = make(tmp_path, ((0, 16, 4), (1000, 32, 4)))
    reads: list[int] = []
    original = TokenRecords.read_from

    def counted(self: TokenRecords, position: int, tokens: np.ndarray, mask: np.ndarray) -> list[int]:
        reads.append(len(tokens))
        return original(self, position, tokens, mask)

    monkeypatch.setattr(TokenRecords, "read_from", counted)
    batch = batches(10**12)
    assert sum(reads) == 4 * 33
    starts = {tuple(string[(start + np.arange(32)) % 450].tolist()) for start in range(450)}
    assert all(tuple(row.tolist()) in starts for row in batch.tokens)


# ------------------------------------------------------------------------------------------------------------- mixtures


# OpenCoder's annealing mixture (arXiv 2411.04905 v3, the data mixture of the annealing phase).
ANNEALING = {"refinecode": 83.94, "algorithmic": 12.44, "snippets": 2.71, "textbooks": 0.91}


@pytest.mark.parametrize("rows", [4, 1024])
def test_shares_hold_over_any_10_000_batches(rows: int) -> None:
    """Wherever they begin: shown for all windows at once by how far a source can run ahead and fall behind.

    The pattern repeats, so the rows of a source before row r are its share of r and a rest that repeats; in the rows
    from r to s it has its share of s - r and the difference of two rests.
    """
    deal = module.Deal(list(ANNEALING.values()))
    window = 10_000 * rows
    for source, weight in enumerate(ANNEALING.values()):
        before = np.concatenate([[0], np.cumsum(deal.pattern == source)])
        share = deal.shares[source] / PERIOD
        rests = before - share * np.arange(PERIOD + 1)
        most = (share * window + rests.max() - rests.min()) / window
        least = (share * window - rests.max() + rests.min()) / window
        wanted = weight / sum(ANNEALING.values())
        assert wanted * 0.995 < least <= most < wanted * 1.005
        if rows == 1024:  # then it's far better
            assert wanted * 0.9997 < least <= most < wanted * 1.0003


def test_batches_follow_the_deal(tmp_path: Path) -> None:
    """A batch has the deal's rows of each source; over 2000 batches, from anywhere, that is its share of the tokens."""
    for number, name in enumerate(ANNEALING):
        write_records(tmp_path / name, [[(np.array([10 + number, END_OF_DOCUMENT]), None)]], b"a tokenizer", 2**31)
    batches = make(tmp_path, ((0, 2, 4),), ANNEALING)
    for first in (0, 123_457):
        counts: Counter[int] = Counter()
        for step in range(first, first + 2000):
            sources = batches(step).tokens.max(axis=1) - 10
            assert sources.tolist() == batches._deal.sources(4 * step, 4 * step + 4).tolist()
            counts.update(sources.tolist())
        for number, weight in enumerate(ANNEALING.values()):
            assert abs(counts[number] - 80 * weight) <= 2


def test_sources_of_different_tokenizers_are_refused(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [5, 5])
    write_records(tmp_path / "b", [[(np.array([7, 2]), None)]], b"another tokenizer", 2**31)
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


@settings(max_examples=60)
@given(lengths=lengths, length=st.integers(2, 12), across=st.booleans())
def test_fragments_keep_every_token(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, across: bool
) -> None:
    """Every token of a document is an input once and a target once an epoch, but the last and the first of it."""
    root = tmp_path_factory.mktemp("fragments")
    examples = number_records(root / "a", [*lengths, 2])
    batches = make(root, ((0, length, 1),), packing="fragment", attend_across_documents=across)
    assert batches.dropped == sum(len(example) == 1 for example in examples)
    rows = round(1 / batches.epochs_before(1)["a"])
    pairs: Counter[tuple[int, int]] = Counter()
    for step in range(rows):
        tokens, targets, positions, mask = (array[0] for array in batches(step))
        learnt = np.flatnonzero(mask) if not across else np.flatnonzero(tokens != PAD)
        pairs.update(zip(tokens[learnt].tolist(), targets[learnt].tolist(), strict=True))
    wanted = Counter(pair for example in examples for pair in pairwise(example))
    if not across:
        assert pairs == wanted
    assert wanted <= pairs


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(1, 20), max_size=60))
def test_best_fit_leaves_no_two_rows_that_fit_into_one(sizes: list[int]) -> None:
    rows = best_fit(sizes, 20)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    loads = sorted(sum(sizes[index] for index in row) for row in rows)
    assert all(load <= 20 for load in loads)
    assert len(loads) < 2 or loads[0] + loads[1] > 20


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
    write_records(tmp_path / "a", [[(np.array([7, 8, 9]), None)]], b"a tokenizer", 2**31)
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
        ({"mixture": {"a": float("nan")}}, "mixture=.*must be"),
        ({"mixture": {"a": float("inf")}}, "mixture=.*must be"),
        ({"packing": "fold"}, "packing must be"),
        ({"fim_rate": 1.5}, "fim_rate must be a share"),
        ({"fim_spm_rate": -0.1}, "fim_spm_rate must be a share"),
        ({"phases": ()}, "phases must hold"),
        ({"phases": ((0, 4096),)}, "phases=.*must be"),
        ({"phases": ((0, 0, 4),)}, "phases must hold"),
        ({"phases": ((5, 8, 4),)}, "begin at step 0"),
        ({"phases": ((0, 8, 4), (0, 16, 4))}, "later and later steps"),
        ({"phases": ((0, 8, 4), (9, 16, 4)), "packing": "pad"}, "needs one sequence length"),
    ],
)
def test_configuration_says_what_is_wrong(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)


def test_batches_go_to_other_processes(tmp_path: Path) -> None:
    number_records(tmp_path / "a", [30, 50, 20])
    batches = make(tmp_path, ((0, 32, 4),), packing="pack")
    for mine, theirs in zip(batches(3), pickle.loads(pickle.dumps(batches))(3), strict=True):
        assert mine.tolist() == theirs.tolist()


def test_opening_reads_little_of_a_long_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number_records(tmp_path / "a", [200_000, 50])
    sizes: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: sizes.append(size) or pread(file, size, at))
    make(tmp_path, ((0, 16, 4),))
    assert sum(sizes) <= 4 * BLOCK


def test_an_address_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"gs:/bucket/tokens: an address.*mount it"):
        need_directory(Path("gs://bucket/tokens"), "token records")
