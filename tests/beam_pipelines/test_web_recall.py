"""The chain of web recall: it repeats itself, goes on where it stopped; what it recalls goes through all the rest."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flink_cluster import flink_cluster
from moments import kill_often

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.manifest import Manifest, digest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.web import report
from opencoder_jax.beam_pipelines.web.score import ScoreConfig, ScorePlan
from opencoder_jax.beam_pipelines.web_recall import told
from opencoder_jax.recipe import UserError
from opencoder_jax.reports.page import Html
from tests.generated_crawl import WANTED, CrawlSize, pages, write_crawl

SIZE = CrawlSize(pages=200, sites=60, files=1, broken=0.02, seeds=0.9, others=0.5)
SMALL = [
    "--gin.TokenizerConfig.vocab_size=1000",
    "--gin.QuarantineConfig.max_share=0.2",
    "--gin.NearDuplicatesConfig.bands=4",
    "--gin.NearDuplicatesConfig.rows=16",
    "--gin.ClassifierConfig.buckets=5000",
]


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("crawl")
    write_crawl(place, SIZE)
    return place


def web(crawl: Path, output: Path, *more: str) -> None:
    main(
        ["web", f"--crawl={crawl / 'training'}", f"--urls={crawl / 'seeds.jsonl'}", f"--output={output}", *SMALL, *more]
    )


@pytest.mark.slow
def test_recalled_pages_go_through_what_follows(
    crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "web"
    web(crawl, output, "--rounds=2")
    manifests = {path.parent.name: path.read_bytes() for path in sorted(output.glob("**/stage.json"))}
    assert told([f"{output}/round_1", f"{output}/round_2"]) in capsys.readouterr().out
    shown = (output / "report.html").read_text()
    assert 'href="round_1/discovered/patterns.toml"' in shown
    assert (output / "round_1/discovered/patterns.toml").exists()
    assert "Just below it" in shown
    rows = recalled(output)
    assert len(rows) > 10
    assert {(row["kind"], row["source"]) for row in rows} == {("web", "web")}
    assert Manifest.read(f"{output}/pages").total("quarantine", "documents") > 0

    # Again: nothing runs. One round more: the first two stay.
    web(crawl, output, "--rounds=2")
    web(crawl, output, "--rounds=3")
    after = {path.parent.name: path.read_bytes() for path in sorted((output / "round_1").glob("**/stage.json"))}
    assert after.keys() == {"classifier", "scores", "discovered"}
    assert (output / "pages" / "stage.json").read_bytes() == manifests["pages"]

    documents = f"--documents={output}/recalled"
    monkeypatch.chdir(tmp_path)
    main(["exact_duplicates", documents, "--output=exact"])
    main(["near_duplicates", "--documents=exact", "--output=near", *SMALL[2:4]])
    main(["decontaminate", "--documents=near", "--output=clean"])
    main(["records", "--documents=clean", f"--tokenizer={output}/tokenizer", "--output=records",
          "--gin.TokenRecordsConfig.shards=1"])  # fmt: skip
    kept = Manifest.read("clean").total("out", "documents")
    assert kept > 10
    assert Manifest.read("records").total("out", "documents") == kept


def recalled(output: Path) -> list[dict[str, Any]]:
    return table_rows(output, "recalled")


def table_rows(output: Path, stage: str) -> list[dict[str, Any]]:
    """The documents of a stage of the chain."""
    names = Manifest.read(f"{output}/{stage}").shards()
    return [row for name in names for row in pq.read_table(output / stage / name).to_pylist()]


def command(crawl: Path, output: Path, *more: str) -> list[str]:
    inputs = [f"--crawl={crawl / 'training'}", f"--urls={crawl / 'seeds.jsonl'}", "--rounds=1"]
    return [sys.executable, "-m", "beam_pipelines", "web", *inputs, f"--output={output}", *SMALL, *more]


def content(output: Path) -> dict[str, bytes]:
    """Every file, with its bytes."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "web"
    subprocess.run(command(crawl, output), check=True, capture_output=True)
    return output


@pytest.mark.slow
def test_most_of_what_is_recalled_of_a_small_crawl_is_wanted(crawl: Path, finished: Path) -> None:
    known = {row["url"]: row for row in map(json.loads, (crawl / "labels.jsonl").open())}
    rows = recalled(finished)
    right = sum(known[row["url"]]["wanted"] for row in rows)
    assert right > 0.7 * len(rows)
    pages = table_rows(finished, "near_duplicates")
    assert right > 0.9 * sum(known[row["url"]]["wanted"] for row in pages)


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(crawl: Path, finished: Path, tmp_path: Path) -> None:
    subprocess.run(command(crawl, tmp_path / "web", "--direct_num_workers=2"), check=True, capture_output=True)
    assert content(tmp_path / "web") == content(finished)


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_the_same(crawl: Path, finished: Path, tmp_path: Path) -> None:
    kill_often(command(crawl, tmp_path / "web"), tmp_path / "web", kills=20)
    assert content(tmp_path / "web") == content(finished)


@pytest.mark.slow
def test_a_flink_cluster_writes_the_same_bytes(crawl: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    with flink_cluster(tmp_path / "cluster") as flags:
        subprocess.run(command(crawl, tmp_path / "web", *flags), check=True, capture_output=True)
    assert content(tmp_path / "web") == content(finished)


@pytest.mark.parametrize(("given", "shown"), [(None, (0.25, 0.92)), (0.71, (0.71, 0.99))])
def test_the_page_shows_the_threshold_that_recalled(
    tmp_path: Path, given: float | None, shown: tuple[float, float]
) -> None:
    curve = [
        {"threshold": at, "precision": sure, "recall": 0.5} for at, sure in ((0.25, 0.92), (0.5, 0.95), (0.7, 0.99))
    ]
    classifier, scores = Directory(str(tmp_path / "classifier")), Directory(str(tmp_path / "scores"))
    classifier.write_json("held_out.json", {"chosen": curve[0], "curve": curve})
    files = {"held_out.json": digest(classifier, "held_out.json")}
    Manifest("train_classifier", {}, {}, [], {}, files).write(classifier)
    plan = ScorePlan(ScoreConfig(threshold=given), "classifier")
    Manifest("score", json.loads(json.dumps(asdict(plan))), {}, [], {}).write(scores)
    chosen = report._held_out(str(tmp_path))["chosen"]
    assert (chosen["threshold"], chosen["precision"]) == shown


def test_only_addresses_of_pages_are_links() -> None:
    assert report._linked("HTTPS://a.org/?b&c") == '<a href="HTTPS://a.org/?b&amp;c">HTTPS://a.org/?b&amp;c</a>'
    for url in ("javascript:alert(1)", " javascript:alert(1)//http://", "data:text/html,x", "a.org", ""):
        assert not isinstance(report._linked(url), Html)


def test_one_source_is_given(tmp_path: Path) -> None:
    for given in ([], ["--crawl=a", "--documents=b"], ["--documents=a", "--documents=b"]):
        with pytest.raises(UserError, match="give --crawl=DIR"):
            main(["web", *given, f"--output={tmp_path / 'web'}"])
    with pytest.raises(UserError, match="one at least"):
        main(["web", "--crawl=a", "--rounds=0", f"--output={tmp_path / 'web'}"])


def test_the_generated_crawl_is_what_it_says() -> None:
    """The same pages for a seed; no site in both parts; every kind there; confounders outnumber what is wanted."""
    made = list(pages(SIZE))
    assert made == list(pages(SIZE))
    parts = [{page.site for page in made if page.training is training} for training in (True, False)]
    assert not parts[0] & parts[1]
    assert min(map(len, parts)) > 10
    kinds = [page.kind for page in made]
    assert WANTED.keys() < set(kinds)
    assert sum(kind in WANTED for kind in kinds) < len(kinds) / 2
    assert len({page.charset for page in made}) == 4
