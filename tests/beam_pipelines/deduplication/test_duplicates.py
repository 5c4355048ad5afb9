"""Exact and near duplicates: who survives is what a comparison of all pairs says, wherever the documents lie."""

import hashlib
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shingle_sets import shingles

from opencoder_jax.beam_pipelines.core.documents import document_id, empty
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import pack
from opencoder_jax.beam_pipelines.deduplication import exact_duplicates, near_duplicates
from opencoder_jax.beam_pipelines.deduplication.duplicates import losers_by_shard, stars
from opencoder_jax.beam_pipelines.deduplication.exact_duplicates import ExactDuplicatesConfig
from opencoder_jax.beam_pipelines.deduplication.minhash import band_hashes, signatures
from opencoder_jax.beam_pipelines.deduplication.near_duplicates import NearDuplicatesConfig
from opencoder_jax.recipe import UserError

Batch = Callable[..., pa.RecordBatch]
StageDirectory = Callable[..., str]
Row = dict[str, Any]

EXACT = ExactDuplicatesConfig(segments=4)
# Few rows a band, so that texts that share half of their grams are candidates by chance.
NEAR = NearDuplicatesConfig(shingle=3, bands=4, rows=3, segments=2)


def corpus(seed: int, documents: int = 40) -> list[Row]:
    """Copies and near copies of a few texts, with few different stars and times, so that ties are common."""
    chance = random.Random(seed)
    originals = [[f"w{chance.randrange(30)}" for _ in range(chance.randrange(2, 20))] for _ in range(8)]
    rows: list[Row] = []
    for number in range(documents):
        words = list(chance.choice(originals))
        for _ in range(chance.choice([0, 0, 1, 3])):
            words[chance.randrange(len(words))] = f"w{chance.randrange(30)}"
        text = chance.choice(["", " ".join(words), " ".join(words), " ".join(words)])
        row = {"text": text, "path": f"{number}.py", "stars": chance.randrange(3), "commit_time": chance.randrange(3)}
        rows.append(row | {"id": document_id("here", f"{number}.py")})
    return rows


def kept_by(rows: Sequence[Row], alike: Callable[[int, int], bool]) -> dict[str, str]:
    """Each dropped id and the id that is kept in its place: all pairs are compared, groups grow until they're whole."""
    group = list(range(len(rows)))
    for one, other in combinations(range(len(rows)), 2):
        if alike(one, other) and group[one] != group[other]:
            old, new = group[other], group[one]
            group = [new if member == old else member for member in group]
    gone = {}
    for number in set(group):
        members = [rows[place] for place in range(len(rows)) if group[place] == number]
        best, *others = sorted(members, key=lambda row: (-row["stars"], -row["commit_time"], row["id"]))
        gone |= {row["id"]: best["id"] for row in others}
    return gone


def expected_exact(rows: Sequence[Row]) -> dict[str, str]:
    hashes = [hashlib.sha256(row["text"].encode()).digest() for row in rows]
    return kept_by(rows, lambda one, other: hashes[one] == hashes[other])


def expected_near(rows: Sequence[Row]) -> dict[str, str]:
    hashes, offsets = shingles([row["text"].encode() for row in rows], NEAR.shingle)
    bands = band_hashes(signatures(hashes, offsets, NEAR.bands, NEAR.rows), NEAR.bands)
    some = np.diff(offsets) > 0
    return kept_by(rows, lambda one, other: bool(some[one] and some[other] and (bands[one] == bands[other]).any()))


def survivors_and_drops(output: Path) -> tuple[set[str], dict[str, str]]:
    manifest = Manifest.read(str(output))
    tables = [pq.read_table(output / name) for name in manifest.shards()]
    drops = [row for name in manifest.shards("drops") for row in pq.read_table(output / name).to_pylist()]
    assert {row["reason"] for row in drops} <= {"duplicate"}
    kept = [identifier for table in tables for identifier in table.column("id").to_pylist()]
    assert len(kept) == len(set(kept))
    return set(kept), {row["id"]: row["detail"] for row in drops}


@pytest.mark.parametrize(
    ("stage", "config", "expected"),
    [(exact_duplicates, EXACT, expected_exact), (near_duplicates, NEAR, expected_near)],
    ids=["exact", "near"],
)
def test_the_best_copy_survives_wherever_copies_lie(
    stage: Any,
    config: Any,
    expected: Callable[[Sequence[Row]], dict[str, str]],
    tmp_path: Path,
    batch: Batch,
    stage_directory: StageDirectory,
) -> None:
    rows = corpus(seed=1)
    gone = expected(rows)
    assert len(rows) / 4 < len(gone) < len(rows) - 8
    found = []
    for order in range(2):
        shuffled = random.Random(order).sample(rows, len(rows))
        shards = [[batch(*shuffled[:7]), empty(), batch(*shuffled[7:15])], [empty()], [batch(*shuffled[15:])]]
        source = stage_directory(tmp_path / f"source{order}", shards)
        stage.run(source, str(tmp_path / f"out{order}"), config, BeamOptions())
        found.append(survivors_and_drops(tmp_path / f"out{order}"))
    assert found[0] == found[1] == ({row["id"] for row in rows} - gone.keys(), gone)


def test_nothing_is_lost_where_nothing_is_alike(tmp_path: Path, batch: Batch, stage_directory: StageDirectory) -> None:
    """Also where no document is long enough for a gram, and a shard is empty."""
    source = stage_directory(tmp_path / "source", [[batch("a", "b c")], [empty()]])
    for stage, config in ((exact_duplicates, EXACT), (near_duplicates, NearDuplicatesConfig())):
        output = tmp_path / stage.__name__.rsplit(".", 1)[-1]
        manifest = stage.run(source, str(output), config, BeamOptions())
        assert manifest.total("out", "documents") == 2
        assert survivors_and_drops(output)[1] == {}


def test_verdicts_name_the_keeper_and_the_size_of_the_cluster(
    tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    rows = [{"text": text, "stars": stars} for text, stars in [("x", 1), ("y", 0), ("x", 5), ("x", 0)]]
    rows = [row | {"path": f"{number}.py"} for number, row in enumerate(rows)]
    source = stage_directory(tmp_path / "source", [[batch(*rows[:2])], [batch(*rows[2:])]])
    exact_duplicates.run(source, str(tmp_path / "out"), EXACT, BeamOptions())
    verdicts = Manifest.read(str(tmp_path / "out/verdicts")).shards("verdicts")
    best = document_id("here", "2.py")
    assert [pq.read_table(tmp_path / "out/verdicts" / name).select([1, 2]).to_pylist() for name in verdicts] == [
        [{"keeper": best, "cluster": 3}, {"keeper": None, "cluster": 1}],
        [{"keeper": None, "cluster": 1}, {"keeper": best, "cluster": 3}],
    ]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=25),
    st.integers(1, 5),
)
def test_a_segment_keeps_the_most_stars_then_the_latest_commit_then_the_smallest_id(
    documents: list[tuple[int, int, int]], pieces: int
) -> None:
    """The reducer alone, without Beam: what it gets in pieces of any order and size."""
    rows = [
        {"key": key, "stars": stars, "commit_time": time, "id": document_id("", str(number))}
        for number, (key, stars, time) in enumerate(documents)
    ]
    nodes = [
        [
            2**64 - 1 - (row["stars"] << 32 | row["commit_time"]),
            int(row["id"][:16], 16),
            int(row["id"][16:], 16),
            number,
        ]
        for number, row in enumerate(rows)
    ]
    table = np.array([[row["key"], 9, *node] for row, node in zip(rows, nodes, strict=True)], np.uint64)
    parts = [pack(part) for part in np.array_split(table[::-1], pieces)]
    found: dict[str, str] = {}
    for _, packed in losers_by_shard(stars((0, parts), 2)):
        losers = np.frombuffer(packed, "<u8").reshape(-1, 5)
        found |= {rows[int(row)]["id"]: f"{int(high):016x}{int(low):016x}" for row, _, high, low, _ in losers}
    assert found == kept_by(rows, lambda one, other: rows[one]["key"] == rows[other]["key"])


def test_a_signature_of_paper_size_removes_near_copies_and_not_similar_programs(
    tmp_path: Path, batch: Batch, stage_directory: StageDirectory
) -> None:
    chance = random.Random(0)
    words = [f"name{chance.randrange(10**9)}" for _ in range(2000)]
    near, similar = list(words), list(words)
    near[500] = "changed"  # Jaccard 0.995
    for place in range(0, 2000, 40):
        similar[place] = "changed"  # 0.78
    texts = [" ".join(words), " ".join(near), " ".join(similar)]
    source = stage_directory(tmp_path / "source", [[batch(*texts)]])
    near_duplicates.run(source, str(tmp_path / "out"), NearDuplicatesConfig(), BeamOptions())
    kept, _ = survivors_and_drops(tmp_path / "out")
    first_two = {document_id("here", "0.py"), document_id("here", "1.py")}
    assert kept == {min(first_two), document_id("here", "2.py")}


def test_bad_configurations_and_inputs() -> None:
    with pytest.raises(ValueError, match="segments=3: must be a power of two"):
        ExactDuplicatesConfig(segments=3)
    with pytest.raises(ValueError, match="segments=6: must be a power of two"):
        NearDuplicatesConfig(segments=6)
    with pytest.raises(ValueError, match="level='line': must be one of file, repository, chunk"):
        NearDuplicatesConfig(level="line")
    with pytest.raises(ValueError, match="rule='any': must be one of components, bucket_winner"):
        NearDuplicatesConfig(rule="any")
    with pytest.raises(ValueError, match="abort_share=0: must be above 0"):
        ExactDuplicatesConfig(abort_share=0)
    with pytest.raises(ValueError, match=r"alarm_share=1\.5: must be between 0 and 1"):
        ExactDuplicatesConfig(alarm_share=1.5)
    with pytest.raises(ValueError, match="bands=0: must be 1 or more"):
        NearDuplicatesConfig(bands=0)
    for stage, config in ((exact_duplicates, EXACT), (near_duplicates, NEAR)):
        with pytest.raises(UserError, match=r"holds no stage\.json"):
            stage.run("a", "c", config, BeamOptions())
