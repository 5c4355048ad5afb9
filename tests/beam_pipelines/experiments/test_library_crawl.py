"""The miniature of a crawl: what it says of its pages is so, and they are read as those of any crawl."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.experiments import library_crawl
from opencoder_jax.beam_pipelines.experiments.library_crawl import CRAWL, LABELS, SEEDS, LibraryCrawlConfig
from opencoder_jax.beam_pipelines.web import pages

OPTIONS = BeamOptions()


def test_it_is_a_crawl_with_labels(tmp_path: Path) -> None:
    config = LibraryCrawlConfig(sites=10, per_site=5, seeds=0.6)
    counts = library_crawl.run(output=str(tmp_path / "a"), config=config, options=OPTIONS).table("count")
    labels = [json.loads(line) for line in (tmp_path / "a" / LABELS).read_text().splitlines()]
    assert counts["pages"] == len(labels) == len({row["url"] for row in labels}) == 100
    wanted = {row["url"] for row in labels if row["wanted"]}
    assert len(wanted) == 50
    seeds = {json.loads(line)["url"] for line in (tmp_path / "a" / SEEDS).read_text().splitlines()}
    assert len(seeds) == 12  # three pages of each of four modules
    assert seeds < wanted
    read = pages.run([str(tmp_path / "a" / CRAWL)], str(tmp_path / "pages"), pages.PagesConfig(), OPTIONS)
    assert not Manifest.read(str(tmp_path / "pages")).total("quarantine", "documents")
    rows = [row for name in read.shards() for row in pq.read_table(tmp_path / "pages" / name).to_pylist()]
    assert {row["url"] for row in rows} == {row["url"] for row in labels}
    assert all(("```\n" in row["text"]) == (row["url"] in wanted) for row in rows)
    library_crawl.run(output=str(tmp_path / "b"), config=config, options=OPTIONS)
    assert (tmp_path / "a" / CRAWL).read_bytes() == (tmp_path / "b" / CRAWL).read_bytes()
