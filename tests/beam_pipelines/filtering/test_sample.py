"""Sampling by language: the published shares, and a draw that depends on a document alone."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.documents import SCHEMA
from opencoder_jax.beam_pipelines.filtering.sample import SampleConfig, SampleLanguages, uniform


def batch(count: int, language: str, sizes: Sequence[int] = ()) -> pa.RecordBatch:
    blank = {name: 0 if field == pa.int64() else "" for name, field in zip(SCHEMA.names, SCHEMA.types, strict=True)}
    rows = [blank | {"id": f"{i:032x}", "language": language} for i in range(count)]
    rows = [row | {"bytes": size} for row, size in zip(rows, sizes, strict=True)] if sizes else rows
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def kept(documents: pa.RecordBatch, config: SampleConfig) -> set[str]:
    return set(SampleLanguages(config)(documents).table.column("id").to_pylist())


@pytest.mark.parametrize(("language", "share"), [("Java", 200 / 449), ("HTML", 64 / 474), ("Python", 1.0)])
def test_the_published_shares_are_the_defaults(language: str, share: float) -> None:
    documents = batch(5000, language)
    result = SampleLanguages(SampleConfig())(documents)
    assert result.table.num_rows / 5000 == pytest.approx(share, abs=0.02)
    assert len(result.drops) == 5000 - result.table.num_rows
    assert {drop.reason for drop in result.drops} <= {"sampled_out"}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("language", ["Java", "HTML"])
def test_the_share_of_bytes_is_the_published_one_too(language: str, seed: int) -> None:
    """Documents of very different sizes: the share of bytes stays within four standard deviations."""
    config = SampleConfig(seed=seed)
    sizes = np.random.default_rng(seed).lognormal(8, 1.5, 5000).astype(int) + 1
    result = SampleLanguages(config)(batch(len(sizes), language, sizes.tolist()))
    share, total = config.keep[language], sizes.sum()
    deviation = np.sqrt(share * (1 - share) * (sizes.astype(float) ** 2).sum()) / total
    assert abs(result.table.column("bytes").to_numpy().sum() / total - share) < 4 * deviation
    assert deviation < 0.06  # or the bound would hold for anything


def test_a_larger_share_keeps_all_that_a_smaller_kept() -> None:
    documents = batch(1000, "Go")
    small, large = (kept(documents, SampleConfig(keep={"Go": share})) for share in (0.2, 0.6))
    assert small < large
    assert kept(documents, SampleConfig(keep={"Go": 0.0})) == set()
    assert kept(documents, SampleConfig(keep={"Go": 1.0})) == set(documents.column("id").to_pylist())


def test_a_document_is_drawn_by_itself_and_the_seed() -> None:
    documents, config = batch(1000, "Go"), SampleConfig(keep={"Go": 0.5})
    part = documents.slice(300, 200)
    assert kept(part, config) == kept(documents, config) & set(part.column("id").to_pylist())
    assert kept(documents, config) != kept(documents, SampleConfig(keep={"Go": 0.5}, seed=1))


@given(st.text(), st.text(), st.integers())
def test_uniform_is_in_the_unit_interval(identifier: str, purpose: str, seed: int) -> None:
    assert 0 <= uniform(identifier, purpose, seed) < 1


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_wrong_share_names_its_language(share: float) -> None:
    with pytest.raises(ValueError, match=r"keep=\{'Go': .*between 0 and 1"):
        SampleConfig(keep={"Go": share})
