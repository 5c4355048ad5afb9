"""Recall and precision of web recall, round by round, on sites that training never saw.

    python -m tests.benchmarks.web_recall                       # 20,000 pages, 300 sites
    python -m tests.benchmarks.web_recall --pages=2000 --sites=120 --novel=12 --seed=1

The crawl is generated (tests/generated_crawl.py). `web` runs on the training sites' files; then each round's classifier
scores the pages of the others, and what the sites say of them is asked as in the chain. "alone" is the classifier with
its threshold, "kept" what the chain keeps; "novel" are unseen sites of kinds that training has nowhere.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.beam_pipelines.web import discover, score
from opencoder_jax.beam_pipelines.web import pages as pages_stage
from opencoder_jax.beam_pipelines.web.held_out import threshold_of
from opencoder_jax.beam_pipelines.web.labels import MarkSeeds, SeedsConfig
from tests.generated_crawl import CrawlSize, write_crawl

QUARANTINE = "--gin.QuarantineConfig.max_share=0.05"


class Recalled(NamedTuple):
    """What was kept of pages whose labels are known."""

    recall: float
    precision: float
    by_kind: dict[str, float]  # the share of each kind that was kept


def judged(documents: str, kept: Iterator[bool], labels: dict[str, dict[str, Any]], novel: bool) -> Recalled:
    """Compares what was kept with labels.

    Args:
        kept: page by page.
        novel: whether it's about novel pages or about all others.
    """
    seen, hits = Counter[str](), Counter[str]()
    right = wanted = 0
    for url, hit in zip(column(documents, "documents", "url"), kept, strict=True):
        label = labels[url]
        if label["novel"] == novel:
            seen[label["kind"]] += 1
            hits[label["kind"]] += hit
            wanted += label["wanted"]
            right += hit and label["wanted"]
    return Recalled(
        right / max(1, wanted),
        right / max(1, sum(hits.values())),
        {kind: hits[kind] / seen[kind] for kind in sorted(seen)},
    )


def column(stage: str, table: str, name: str) -> Iterator[Any]:
    """A column of all shards of a stage."""
    for shard in Manifest.read(stage).shards(table):
        yield from pq.read_table(f"{stage}/{shard}", columns=[name])[name].to_pylist()


def is_kept(place: str | Path) -> Iterator[bool]:
    """Page by page, whether a round keeps it."""
    recalled, seeds = (column(f"{place}/discovered", "labels", name) for name in ("recalled", "seed"))
    return map(any, zip(recalled, seeds, strict=True))


def no_seeds(documents: str, output: str) -> str:
    """Labels of pages that nobody knows."""
    kernel = MarkSeeds(np.zeros(0, np.uint64), np.zeros(0, np.uint64), (), False)
    map_stage("seeds", kernel, [documents], output, SeedsConfig(), BeamOptions(), table="labels")
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--sites", type=int, default=300)
    parser.add_argument("--novel", type=int, default=28, help="of the sites")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="", help="keeps everything there")
    flags, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(flags.output or scratch)
        if not (folder / "labels.jsonl").exists():
            write_crawl(folder, CrawlSize(flags.pages, flags.sites, flags.novel), flags.seed)
        labels = {row["url"]: row for row in map(json.loads, (folder / "labels.jsonl").open())}
        crawled = sum(path.stat().st_size for path in folder.glob("*/*.warc.gz"))
        wanted = sum(bool(row["wanted"]) for row in labels.values())
        print(f"{len(labels)} pages, {wanted} wanted, {flags.sites} sites, {crawled / 1e6:.1f} MB of WARC")
        began = time.perf_counter()
        command = [sys.executable, "-m", "beam_pipelines", "web", f"--crawl={folder / 'training'}", QUARANTINE]
        command += [f"--urls={folder / 'seeds.jsonl'}", f"--output={folder / 'web'}", *more]
        subprocess.run(command, check=True)
        print(f"three rounds: {time.perf_counter() - began:.0f} s")
        unseen = str(folder / "unseen_pages")
        config = QuarantineConfig(0.05)
        pages_stage.run([str(folder / "unseen")], unseen, pages_stage.PagesConfig(), BeamOptions(), config)
        nothing = no_seeds(unseen, str(folder / "unseen_seeds"))
        for place in sorted((folder / "web").glob("round_*")):
            show(place, "training", str(folder / "web" / "near_duplicates"), place, labels)
            mine = folder / f"unseen_{place.name}"
            classifier = f"{place}/classifier"
            score.run(unseen, f"{mine}/scores", score.ScoreConfig(), BeamOptions(), classifier)
            pages = (unseen, f"{mine}/scores", nothing, f"{mine}/discovered")
            discover.run(*pages, discover.DiscoverConfig(), BeamOptions(), classifier)
            show(place, "unseen", unseen, mine, labels)
            show(place, "novel", unseen, mine, labels)


def show(classified: Path, name: str, documents: str, place: Path, labels: dict[str, dict[str, Any]]) -> None:
    """Prints what a round did to pages."""
    for way, flags in (("alone", column(f"{place}/scores", "scores", "recalled")), ("kept", is_kept(place))):
        result = judged(documents, flags, labels, name == "novel")
        print(
            f"{classified.name} {name:9} {way:6} recall {result.recall:.4f} precision {result.precision:.4f} "
            f"threshold {threshold_of(f'{classified}/classifier'):.3f}"
        )
    print("    " + " ".join(f"{kind} {share:.3f}" for kind, share in result.by_kind.items()))


if __name__ == "__main__":
    main()
