"""Levels, rules and guards of deduplication: against plain comparisons of all pairs, however the corpus is cut."""

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from shingle_sets import shingles

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import SpanningForest, pack
from opencoder_jax.beam_pipelines.deduplication import exact_duplicates, near_duplicates
from opencoder_jax.beam_pipelines.deduplication.duplicates import guard, losers_by_shard, stars
from opencoder_jax.beam_pipelines.deduplication.exact_duplicates import ExactDuplicatesConfig
from opencoder_jax.beam_pipelines.deduplication.levels import CHUNK_BITS, chunks
from opencoder_jax.beam_pipelines.deduplication.minhash import document_bands
from opencoder_jax.beam_pipelines.deduplication.near_duplicates import NearDuplicatesConfig, in_pairs
from opencoder_jax.recipe import UserError, bind, build

Batch = Callable[..., pa.RecordBatch]
StageDirectory = Callable[..., str]
Row = dict[str, Any]

NEAR: dict[str, Any] = {"shingle": 3, "bands": 4, "rows": 3}


def corpus(chance: random.Random, documents: int) -> list[Row]:
    """Texts with planted copies and near copies, in a few repositories and sources."""
    originals = [[f"w{chance.randrange(25)}" for _ in range(chance.randrange(2, 25))] for _ in range(7)]
    rows = []
    for number in range(documents):
        words = list(chance.choice(originals))
        for _ in range(chance.choice([0, 0, 1, 2])):
            words[chance.randrange(len(words))] = f"w{chance.randrange(25)}"
        row: Row = {"path": f"{number}.py", "repository": f"r{chance.randrange(6)}", "text": " ".join(words)}
        row |= {"stars": chance.randrange(3), "commit_time": chance.randrange(3)}
        rows.append(row | {"id": document_id(row["repository"], row["path"])})
    return rows


def best_first(row: Row) -> tuple[int, int, str]:
    return -row["stars"], -row["commit_time"], row["id"]


def alike(texts: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """All pairs of units, each of some texts, that agree in a band."""
    found = [shingles([text.encode() for text in unit], NEAR["shingle"])[0] for unit in texts]
    ends = np.cumsum([0, *map(len, found)])
    bands = document_bands(np.concatenate([np.zeros(0, np.uint64), *found]), ends, NEAR["bands"], NEAR["rows"])
    return [
        (one, other)
        for one, other in combinations(range(len(texts)), 2)
        if len(found[one]) and len(found[other]) and (bands[one] == bands[other]).any()
    ]


def survivors_of(units: Sequence[Row], pairs: Sequence[tuple[int, int]], rule: str) -> set[int]:
    """Which units stay: those that are best of their component (by union-find), or lose to no neighbour."""
    ranks = {place: best_first(unit) for place, unit in enumerate(units)}
    if rule == "bucket_winner":
        return set(ranks) - {max(pair, key=lambda place: ranks[place]) for pair in pairs}
    parent = list(range(len(units)))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    for one, other in pairs:
        low, high = sorted((root(one), root(other)), key=lambda place: ranks[place])
        parent[high] = low
    return {place for place in ranks if root(place) == place}


def kept_ids(output: Path) -> list[str]:
    names = Manifest.read(str(output)).shards()
    return sorted(identifier for name in names for identifier in pq.read_table(output / name)["id"].to_pylist())


def shards_of(rows: Sequence[Row], batch: Batch, chance: random.Random) -> list[list[pa.RecordBatch]]:
    shuffled = chance.sample(rows, len(rows))
    cut = chance.randrange(len(rows) + 1)
    return [
        [batch(*part[: len(part) // 2]), batch(*part[len(part) // 2 :])] for part in (shuffled[:cut], shuffled[cut:])
    ]


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([1, 4]))
def test_both_rules_keep_what_a_comparison_of_all_pairs_keeps(
    tmp_path_factory: pytest.TempPathFactory,
    batch: Batch,
    stage_directory: StageDirectory,
    seed: int,
    documents: int,
    segments: int,
) -> None:
    chance, place = random.Random(seed), tmp_path_factory.mktemp("corpus")
    rows = corpus(chance, documents)
    source = stage_directory(place / "source", shards_of(rows, batch, chance))
    found = {}
    for rule in ("components", "bucket_winner"):
        config = NearDuplicatesConfig(**NEAR, segments=segments, rule=rule)
        near_duplicates.run(source, str(place / rule), config, BeamOptions())
        expected = survivors_of(rows, alike([[row["text"]] for row in rows]), rule)
        found[rule] = kept_ids(place / rule)
        assert found[rule] == sorted(rows[place]["id"] for place in expected)
    assert set(found["bucket_winner"]) >= set(found["components"])


def test_a_chain_shows_how_the_rules_differ() -> None:
    """Best first 1, 2, 3: 1 and 3 share a bucket, 2 and 3 another. Only a component knows that 2 belongs to 1."""
    nodes = {name: [name, 0, 0, name] for name in (1, 2, 3)}
    buckets = [[[7, *nodes[1]], [7, *nodes[3]]], [[8, *nodes[3]], [8, *nodes[2]]]]
    edges = [stars((0, [pack(np.array(bucket, np.uint64))]), 1) for bucket in buckets]

    def lost(packed: Sequence[bytes]) -> set[int]:
        values = [value for each in packed for _, value in losers_by_shard(each)]
        return {int(row[0]) for value in values for row in np.frombuffer(value, "<u8").reshape(-1, 5)}

    forest = SpanningForest()
    state = forest.create_accumulator()
    for each in edges:
        state = forest.add_input(state, each)
    assert lost(edges) == {3}
    assert lost([forest.extract_output(state)]) == {2, 3}


def test_a_hot_bucket_is_one_star() -> None:
    count = 100_000
    table = np.column_stack([np.full(count, 5), np.zeros((count, 3)), np.arange(count)]).astype(np.uint64)
    ((shard, packed),) = losers_by_shard(stars((0, [pack(table[::-1])]), 1))
    losers = np.frombuffer(packed, "<u8").reshape(-1, 5)
    assert shard == 0
    assert np.sort(losers[:, 0]).tolist() == list(range(1, count))
    assert set(losers[:, 4].tolist()) == {count}


def test_two_workers_write_the_same_bytes(
    tmp_path: Path, batch: Batch, stage_directory: StageDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = corpus(random.Random(3), 60)
    source = stage_directory(tmp_path / "source", shards_of(rows, batch, random.Random(0)))
    files = []
    for workers in (1, 2):
        monkeypatch.setattr("opencoder_jax.beam_pipelines.core.runner.WORTH_THREADS", 1e9 if workers == 1 else -1.0)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        manifest = near_duplicates.run(
            source, str(tmp_path / f"{workers}"), NearDuplicatesConfig(**NEAR), BeamOptions()
        )
        files.append((manifest.files, Manifest.read(str(tmp_path / f"{workers}/verdicts")).files))
    assert files[0] == files[1]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("stage", ["exact", "near"])
def test_a_repository_falls_as_a_whole(
    seed: int, stage: str, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    """Its documents lie in several shards; a fork renames and reorders files."""
    chance = random.Random(seed)
    rows = corpus(chance, 25)
    for row in [row for row in rows if row["repository"] in ("r0", "r1")]:
        path = f"moved/{chance.random()}.py"
        rows.append(row | {"repository": row["repository"] + "fork", "path": path, "stars": chance.randrange(3)})
        rows[-1]["id"] = document_id(rows[-1]["repository"], path)
    source = stage_directory(tmp_path / "source", shards_of(rows, batch, chance))
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(row["repository"], []).append(row)
    units = [min(files, key=best_first) for files in members.values()]
    texts = [[file["text"] for file in files] for files in members.values()]
    if stage == "exact":
        exact = ExactDuplicatesConfig(level="repository", segments=2)
        exact_duplicates.run(source, str(tmp_path / "out"), exact, BeamOptions())
        content = [Counter(map(hash_of, files)) for files in texts]
        pairs = [(a, b) for a, b in combinations(range(len(units)), 2) if content[a] == content[b]]
    else:
        near = NearDuplicatesConfig(**NEAR, level="repository", segments=2)
        near_duplicates.run(source, str(tmp_path / "out"), near, BeamOptions())
        pairs = alike(texts)
    kept = {units[place]["repository"] for place in survivors_of(units, pairs, "components")}
    assert len(kept) < len(units)
    assert kept_ids(tmp_path / "out") == sorted(row["id"] for row in rows if row["repository"] in kept)


@pytest.mark.parametrize("level", ["file", "repository", "chunk"])
def test_a_shard_without_documents_has_no_near_duplicates(
    level: str, tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    """What earlier stages dropped may have been all of a shard."""
    text = "one two three four five six seven"
    shards = [[batch({"text": text, "path": "a.py"}, {"text": text, "path": "b.py"})], [batch()]]
    source = stage_directory(tmp_path / "source", shards)
    near_duplicates.run(source, str(tmp_path / "out"), NearDuplicatesConfig(**NEAR, level=level), BeamOptions())
    assert len(kept_ids(tmp_path / "out")) == (2 if level == "repository" else 1)


@given(st.integers(1, 7), st.integers(0, 4))
def test_signatures_travel_in_pairs(columns: int, count: int) -> None:
    rows = np.arange(count * columns, dtype=np.uint32).reshape(count, columns) + np.uint32(2**31)
    packed = in_pairs(rows)
    assert packed.shape == (count, -(-columns // 2))
    assert (packed.view("<u4")[:, :columns] == rows).all()


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@given(st.text(alphabet="ab_1é中 \n(+😀", max_size=60), st.integers(1, 4))
def test_chunks_are_the_text_and_hold_so_many_tokens(text: str, tokens: int) -> None:
    pieces = chunks(text.encode(), tokens)
    assert b"".join(pieces) == text.encode()
    counts = [word_tokens(piece.decode()) for piece in pieces]
    assert set(counts[:-1]) <= {tokens}
    assert counts[-1] <= tokens


def word_tokens(text: str) -> int:
    count, inside = 0, False
    for character in text:
        word = character.isalnum() or character == "_" or ord(character) > 127
        count += not character.isspace() and not (word and inside)
        inside = word
    return count


def test_a_very_long_text_keeps_its_end_in_one_chunk() -> None:
    pieces = chunks(b"a " * 5000, 1)
    assert len(pieces) == 1 << CHUNK_BITS
    assert pieces[-1] == b"a " * (5000 - len(pieces) + 1)


def test_chunks_of_a_tokenizer_end_between_characters(tmp_path: Path) -> None:
    """Characters that the model doesn't know are several tokens, one a byte."""
    model = tmp_path / "tokenizer.model"
    with open(model, "wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c def return x = 1"] * 20),
            model_writer=stream,
            model_type="bpe",
            vocab_size=310,
            byte_fallback=True,
            hard_vocab_limit=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            control_symbols=["<|im_end|>", "<|im_start|>"],
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            minloglevel=2,
        )
    text = "return 中文😀 = é def"
    pieces = chunks(text.encode(), 2, str(model))
    assert len(pieces) > 3
    assert "".join(piece.decode() for piece in pieces) == text


def test_duplicate_chunks_disappear_from_their_documents(
    tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    rows = [
        {"text": "a b c d x y", "stars": 2},  # chunks "a b ", "c d ", "x y"
        {"text": "c d new é c d z", "stars": 1},  # "c d ", "new é ", "c d ", "z"
        {"text": "a b c d ", "stars": 0},  # nothing of its own
    ]
    rows = [row | {"path": f"{number}.py"} for number, row in enumerate(rows)]
    source = stage_directory(tmp_path / "source", [[batch(*rows[:2])], [batch(rows[2])]])
    config = ExactDuplicatesConfig(level="chunk", chunk_tokens=2, segments=2)
    manifest = exact_duplicates.run(source, str(tmp_path / "out"), config, BeamOptions())
    tables = [pq.read_table(tmp_path / "out" / name).to_pylist() for name in manifest.shards()]
    # the last chunk of the first document has no space behind it
    assert [(row["text"], row["bytes"]) for table in tables for row in table] == [("a b c d x y", 11), ("new é z", 8)]
    assert manifest.table("drop", "documents") == {"duplicate": 1}
    assert manifest.table("count") == {"chunks removed": 2, "bytes of chunks removed": 8}
    assert manifest.total("out", "bytes") == 19


def test_clusters_are_counted_and_the_largest_named(
    tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    texts = ["x", "y", "x", "x", "y", "z"]
    source = stage_directory(tmp_path / "source", [[batch(*texts)]])
    exact_duplicates.run(source, str(tmp_path / "out"), ExactDuplicatesConfig(), BeamOptions())
    verdicts = Manifest.read(str(tmp_path / "out/verdicts"))
    assert verdicts.table("count", "cluster") == {"3": 2, "2": 1}  # documents that are lost, by their cluster's size
    (name,) = verdicts.shards("clusters")
    assert [row["cluster"] for row in pq.read_table(tmp_path / "out/verdicts" / name).to_pylist()] == [3, 2]


def test_a_source_that_loses_nearly_everything_stops_the_stage(
    tmp_path: Path, batch: Batch, stage_directory: StageDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "same", "source": "mirror", "path": f"{number}.py"} for number in range(30)]
    rows += [{"text": f"own {number}", "source": "good", "path": f"g{number}.py"} for number in range(30)]
    source = stage_directory(tmp_path / "source", [[batch(*rows)]])
    output = str(tmp_path / "out")
    allowed = exact_duplicates.run(source, output, ExactDuplicatesConfig(abort_documents=31), BeamOptions())
    before = (tmp_path / "out/stage.json").read_bytes()
    with pytest.raises(
        UserError, match=r"'mirror' would lose 29 of its 30 documents.*ExactDuplicatesConfig.abort_share"
    ):
        exact_duplicates.run(source, output, ExactDuplicatesConfig(abort_documents=30), BeamOptions())
    assert (tmp_path / "out/stage.json").read_bytes() == before  # and nothing was looked for again:
    printed = capsys.readouterr().err
    assert "exact_duplicates_verdicts: up to date" in printed
    assert "the largest cluster has 30 of 60 documents" in printed
    again = exact_duplicates.run(
        source, output, ExactDuplicatesConfig(abort_documents=30, abort_share=1.0), BeamOptions()
    )
    assert again.total("out", "documents") == allowed.total("out", "documents") == 31


@pytest.mark.parametrize(
    ("name", "bands", "rows", "half"), [("opencoder", 16, 128, 0.9756), ("starcoder", 25, 10, 0.698)]
)
def test_presets(name: str, bands: int, rows: int, half: float) -> None:
    """And the similarity at which half of the pairs are candidates."""
    bind([f"gin_configs/data/near_duplicates_{name}.gin"])
    try:
        config = build(NearDuplicatesConfig)
    finally:
        bind()
    assert (config.shingle, config.bands, config.rows) == (5, bands, rows)
    assert 1 - (1 - half**rows) ** bands == pytest.approx(0.5, abs=0.01)


def test_guards_let_small_and_healthy_sources_pass() -> None:
    tally = {"count": {"documents": {"a": 2000, "b": 10}, "lost": {"a": 1000, "b": 10}, "cluster": {"2": 1010}}}
    guard("near", Manifest("near", {}, {}, [], tally), NearDuplicatesConfig())
