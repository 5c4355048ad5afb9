"""Recall and precision of web recall, round by round, on sites that training never saw.

    python -m tests.benchmarks.web_recall                       # 20,000 pages, 300 sites
    python -m tests.benchmarks.web_recall --pages=2000 --sites=120

The crawl is generated (tests/generated_crawl.py). `web` runs on the training sites' files; then each round's classifier
and threshold score the pages of the others.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.units import QuarantineConfig
from opencoder_jax.beam_pipelines.web import pages as pages_stage
from opencoder_jax.beam_pipelines.web import score
from opencoder_jax.beam_pipelines.web.train_classifier import threshold_of
from tests.generated_crawl import WANTED, CrawlSize, write_crawl

QUARANTINE = "--gin.QuarantineConfig.max_share=0.05"


class Recalled(NamedTuple):
    """What a classifier does to pages whose labels are known."""

    recall: float
    precision: float
    by_kind: dict[str, float]  # the share of each kind that was recalled


def judged(documents: str, scores: str, labels: dict[str, dict[str, object]]) -> Recalled:
    """Compares scores with labels."""
    seen, hits = Counter[str](), Counter[str]()
    names = zip(Manifest.read(documents).shards(), Manifest.read(scores).shards("scores"), strict=True)
    for name, scored in names:
        urls = pq.read_table(f"{documents}/{name}", columns=["url"])["url"].to_pylist()
        recalled = pq.read_table(f"{scores}/{scored}")["recalled"].to_pylist()
        for url, hit in zip(urls, recalled, strict=True):
            kind = str(labels[url]["kind"])
            seen[kind] += 1
            hits[kind] += hit
    right = sum(hits[kind] for kind in WANTED)
    return Recalled(
        right / sum(seen[kind] for kind in WANTED),
        right / max(1, sum(hits.values())),
        {kind: hits[kind] / seen[kind] for kind in sorted(seen)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--sites", type=int, default=300)
    parser.add_argument("--output", default="", help="keeps everything there")
    flags, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(flags.output or scratch)
        if not (folder / "labels.jsonl").exists():
            write_crawl(folder, CrawlSize(flags.pages, flags.sites))
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
        for place in sorted((folder / "web").glob("round_*")):
            for name, documents in (("training", str(folder / "web" / "near_duplicates")), ("unseen", unseen)):
                scores = f"{place}/scores" if name == "training" else str(folder / f"unseen_{place.name}")
                if name == "unseen":
                    score.run(documents, scores, score.ScoreConfig(), BeamOptions(), f"{place}/classifier")
                found = judged(documents, scores, labels)
                kinds = " ".join(f"{kind} {share:.3f}" for kind, share in found.by_kind.items())
                print(
                    f"{place.name} {name:9} recall {found.recall:.4f} precision {found.precision:.4f} "
                    f"threshold {threshold_of(f'{place}/classifier'):.2f}; recalled: {kinds}"
                )


if __name__ == "__main__":
    main()
