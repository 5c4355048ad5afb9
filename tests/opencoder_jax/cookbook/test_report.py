"""The report of a small run whose figures are known: what it shows, and what it does with bad input."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA, SCHEMA, document_id, shard_name, write_shard
from opencoder_jax.beam_pipelines.core.manifest import digest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.chain import Step
from opencoder_jax.cookbook.corpus_size import small_corpus_warning, warning
from opencoder_jax.cookbook.report import write_report
from opencoder_jax.cookbook.results import BENCHMARKS, FUNNEL, MADE, MODELS, SAMPLED, TRAININGS
from opencoder_jax.cookbook.steps import CookbookConfig, steps
from opencoder_jax.recipe import UserError

EVIL = "<script>alert('x')</script>&amp;"
RECORDS = {"refinecode": 900_000, "refinecode_heldout": 9_000, "algorithmic": 80_000, "snippets": 7_000}


# ----------------------------------------------------------------------------------------------------- a run on disk


def document(path: str, size: int) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMA.names, "") | {"stars": 0, "commit_time": 0, "language": "Python"}
    return row | {"id": document_id("repo", path), "repository": "repo", "path": path, "bytes": size}


def drop(path: str, size: int, reason: str, detail: str = "") -> dict[str, Any]:
    place = {"id": document_id("repo", path), "repository": "repo", "path": path, "language": "Python"}
    return place | {"bytes": size, "reason": reason, "detail": detail}


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def by_key(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    keys = {row[key] for row in rows}
    return {
        "documents": {value: sum(row[key] == value for row in rows) for value in keys},
        "bytes": {value: sum(row["bytes"] for row in rows if row[key] == value) for value in keys},
    }


def write_stage(
    output: Path,
    documents: Sequence[Mapping[str, Any]],
    drops: Sequence[Mapping[str, Any]] = (),
    counts: Mapping[str, int] | None = None,
    tokens: int = 0,
) -> None:
    files = {}
    for name, rows, schema in (("documents", documents, SCHEMA), ("drops", drops, DROP_SCHEMA)):
        if rows:
            batch = pa.RecordBatch.from_pylist([dict(row) for row in rows], schema)
            write_shard(Directory(str(output)), shard_name(name, 0, 1), [batch], schema)
            files[shard_name(name, 0, 1)] = digest(Directory(str(output)), shard_name(name, 0, 1))
    tally = {
        "in": by_key([*documents, *drops], "language"),
        "out": by_key(documents, "language"),
        "drop": by_key(drops, "reason") if drops else {},
        "count": dict(counts or {}),
        "tokens": {"Python": tokens},
    }
    head = {"stage": output.name, "config": {}, "code": "", "inputs": []}
    write_json(output / "stage.json", head | {"tally": tally, "files": files})


def write_training(output: Path, first: float, last: float, rows: int = 12, held_out: float | None = None) -> None:
    recipe = {"DataConfig": {"mixture": {"refinecode": 3.0, "algorithmic": 1.0}}}
    write_json(output / "run.json", {"recipe": recipe, "parameters": 4_321_000, "unigram_entropy": 6.125})
    lines = []
    for row in range(rows):
        share = row / max(rows - 1, 1)
        lines.append(
            {
                "step": 5 * (row + 1),
                "tokens": 20_480 * (row + 1),
                "loss": last + (first - last) * math.exp(-4 * share) * (1 - share),
                "learning_rate": 3e-3 * (1 - share),
                "gradient_norm": 1.0,
                "tokens_per_second": 500.0 if row == 0 else 9_000.0 + 100 * row,
                "seconds": 2.5 * (row + 1),
            }
        )
    if held_out is not None:
        lines[-1]["held_out"] = {"refinecode_heldout": {"loss": held_out, "bits_per_byte": 2.0}}
    write_lines(output / "metrics.jsonl", lines)


def write_evaluation(run: Path) -> None:
    names = [(f"{prefix}{model}", 20 if prefix else 5) for prefix in BENCHMARKS for model in MODELS]
    for name, solved in names:
        passed = solved if name.endswith("tuned") else 0
        share = passed / 40
        score = {
            "tasks": 40,
            "samples": 80,
            "pass_at_k": {"pass@1": {"estimate": share, "low": 0.5 * share, "high": 1.5 * share or 3 / 40}},
            "by_level": {"1": [share, 20], "2": [share, 20]},
            "outcomes": {"passed": 2 * passed, "wrong_answer": 40, "syntax_error": 40 - 2 * passed},
            "methods": {},
            "closed": 0.775,
            "truncated": 0.225,
        }
        write_json(run / "evaluation" / name / "score.json", score)
    said = {"prompt": "def add(a, b):\n", "text": f"    return a + b  # {EVIL}\n", "finish_reason": "stop"}
    cut = {"prompt": "def loop():\n", "text": "    while True:\n", "finish_reason": "length"}
    write_lines(run / "samples" / "base" / "completions.jsonl", [said, cut])
    write_lines(run / "samples" / "tuned" / "completions.jsonl", [said | {"text": "\ud800 half a pair"}])


def write_recall(run: Path) -> None:
    """Ten pages, of which six are about code; five of these were recalled, and another one."""
    pages = [document(f"{number}.html", 100) | {"url": f"https://a.example/{number}"} for number in range(10)]
    labels = [{"url": page["url"], "wanted": number < 6} for number, page in enumerate(pages)]
    write_stage(run / "data" / "library_crawl", [], counts={"pages": 10})
    write_lines(run / "data" / "library_crawl" / "labels.jsonl", labels)
    write_stage(run / "web" / "near_duplicates", pages)
    write_stage(run / "web" / "recalled", pages[1:7])
    for number in (1, 2):
        place = run / "web" / f"round_{number}"
        write_json(place / "classifier" / "held_out.json",
                   {"chosen": {"threshold": 0.5, "precision": 0.91, "recall": 0.4 + number / 10}})  # fmt: skip
        write_stage(place / "discovered", [], counts={"recalled": 6, "gained": 3 * number, "sites": 2})


def recipe(run: Path) -> list[Step]:
    return steps(CookbookConfig(), str(run), [f"/src/{EVIL}"], [])


def make_run(run: Path) -> list[Step]:
    """A finished run: nine documents collected, of which a cluster of four shrinks to one, and one more goes."""
    copies = [document(f"copy{number}.py", 10_000) for number in range(3)]
    rest = [document(f"{number}.py", 20_000) for number in range(4)]
    kept, evil = document("kept.py", 10_000), document(f"{EVIL}.py", 30_000)
    everything = [*copies, *rest, kept, evil]
    removed = [drop(row["path"], row["bytes"], "duplicate", kept["id"]) for row in copies]
    left: list[dict[str, Any]] = [*rest, kept]
    lost: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
        "collect": (everything, [drop("a.bin", 10**9, "binary", "1000000000 bytes")]),
        "exact_duplicates": ([*left, evil], removed),
        "filter": (left, [drop(f"{EVIL}.py", 30_000, "qsc_code_num_lines", f"{EVIL} (is 3)")]),
    }
    counts = {
        "filter": {"hit qsc_code_num_lines": 1, "only qsc_code_num_lines": 1},
        "redact": {"redacted email": 17, "redacted ip_address": 2},
        "snippets": {"doctests: ok": 3},
    }
    current = everything
    for name in FUNNEL:
        current, drops = lost.get(name, (current, []))
        write_stage(run / "data" / name, current, drops, counts.get(name))
    for name in MADE:
        write_stage(run / "data" / name, rest[:2], counts=counts.get(name))
    for name, tokens in (RECORDS | {"instructions": 600, "programs": 50, "questions": 40, "tasks": 30}).items():
        write_stage(run / "tokens" / name, rest, tokens=tokens)
    for name, (first, last) in zip(TRAININGS, ((8.3, 4.5), (4.4, 4.2), (5.5, 3.1), (5.0, 2.9)), strict=True):
        write_training(run / "train" / name, first, last, held_out=4.75 if name == "pretrain" else None)
    write_recall(run)
    write_evaluation(run)
    recipe_steps = recipe(run)
    # 20 steps of 6 s, side by side by twos, after a pause of a day in the middle.
    ran = [[1e6 + 6 * (n // 2) + 86400 * (n > 9), 1e6 + 6 * (n // 2) + 86400 * (n > 9) + 6] for n in range(20)]
    names = [Path(step.output).relative_to(run).as_posix() for step in recipe_steps]
    write_json(run / "timings.json", dict(zip(names, ran, strict=False)))
    return recipe_steps


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_report(folder, make_run(folder))
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def words(page: str) -> str:
    """The page's text, without its pictures."""
    pieces: list[str] = []
    reader = HTMLParser()
    reader.handle_data = pieces.append  # type: ignore[method-assign]
    reader.feed(re.sub(r"<(svg|style)\b.*?</\1>", "", page, flags=re.DOTALL))
    return re.sub(r"\s+", " ", " ".join(pieces))


def chapter(page: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">.*?</section>', page, re.DOTALL)
    assert found, anchor
    return found[0]


# ------------------------------------------------------------------------------------------------------ what it shows


def test_headline_figures(page: str) -> None:
    opening = words(page[: page.index("<nav>")])
    assert "9 documents" in opening
    assert "5 (0.09 MB) were left" in opening
    assert "4,321,000 parameters" in opening
    assert "4.500 nats a token (4.750 on held-out documents), against a unigram entropy of 6.125" in opening
    assert "pass@1 on 40 hand-written problems: pretrained 0.0 % (95 % interval 0.0 – 7.5 %), annealed 0.0 %" in opening
    assert "after stage 1 + 2 12.5 % (95 % interval 6.2 – 18.8 %)" in opening
    assert "50.0 % of held-out compositions solved" in opening
    assert "closed 77.5 % of its answers" in opening
    assert "1.0 minutes" in opening


def test_a_corpus_that_is_too_small_is_named_at_the_top(tmp_path: Path, page: str) -> None:
    opening = words(page[: page.index('<p class="summary">')])
    assert "too small for the numbers to mean anything: 5 documents with 900,000 tokens are left" in opening
    assert "useful size for a model of 4.32 M parameters is 21.6 M tokens or more, from at least 1,000" in opening
    assert small_corpus_warning(tmp_path) is None, "nothing is tokenised yet"
    made = make_run(tmp_path)
    write_stage(tmp_path / "data/decontaminate", [document(f"{number}.py", 9) for number in range(1000)])
    write_stage(tmp_path / "tokens/refinecode", [], tokens=22_000_000)
    assert small_corpus_warning(tmp_path) is None
    assert "too small" not in words(write_report(tmp_path, made).read_text())


def test_a_corpus_is_too_small_by_its_documents_or_by_its_tokens() -> None:
    assert warning(1000, 5_000_000, 1_000_000) is None
    assert "999 documents" in str(warning(999, 5_000_000, 1_000_000))
    assert "4,999,999 tokens" in str(warning(1000, 4_999_999, 1_000_000))


def test_the_other_pages_of_the_run_are_linked(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    others = {
        "data/decontaminate/removed.html": "What was removed",
        "inspect it/index.html": "What the rules do &amp; don&#x27;t",
        "inspect it/compare.html": "index.html leads to it",
        "inspect it/rule-01.html": "index.html leads to it",
        "data/untitled.html": "",
    }
    for name, title in others.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"<head><title>{title}</title></head>" if title else "")
    page = write_report(tmp_path, made).read_text()
    assert re.findall(r'<a href="([^"#]*)">(.*?)</a>', page) == [
        ("data/decontaminate/removed.html", "What was removed (decontaminate)"),
        ("data/untitled.html", "untitled.html (data)"),
        ("inspect%20it/index.html", "What the rules do &amp; don&#x27;t (inspect it)"),
    ]
    assert write_report(tmp_path, made).read_text() == page, "the report doesn't link to itself"


def test_chapters_stand_in_the_order_of_the_recipe(page: str) -> None:
    anchors = re.findall(r'<section id="(\w+)">', page)
    assert anchors == [
        "funnel",
        "languages",
        "duplicates",
        "rules",
        "redacted",
        "derived",
        "recalled",
        "mixture",
        "training",
        "samples",
        "scores",
        "reproduction",
    ]
    assert re.findall(r'<a href="#(\w+)">', page) == anchors


def test_the_funnel_counts_every_stage_and_reason(page: str) -> None:
    funnel = words(chapter(page, "funnel"))
    assert "collect 10 1 9 100.0 % 0.15 binary 1" in funnel
    assert "exact duplicates 9 3 6 66.7 % 0.12 duplicate 3" in funnel
    assert "filter 6 1 5 55.6 % 0.09 qsc_code_num_lines 1" in funnel
    assert "redact 6 0 6 66.7 % 0.12 –" in funnel


def test_what_was_found_but_not_collected_does_not_flatten_the_picture(page: str) -> None:
    assert "1,000.0" not in chapter(page, "funnel").split("</svg>")[0]


def test_a_cluster_names_the_kept_copy_and_the_others(page: str) -> None:
    duplicates = words(chapter(page, "duplicates"))
    assert "Clusters: 1. Copies dropped: 3 (0.03 MB)." in duplicates
    assert "4 0.03 repo/kept.py repo/copy0.py repo/copy1.py repo/copy2.py" in duplicates
    assert "No near duplicates were found." in duplicates


def test_what_was_recalled_is_held_against_the_labels(page: str) -> None:
    shown = words(chapter(page, "recalled"))
    assert "6 pages are about code: 5 of them were recalled (83.3 %). Recalled pages of other kinds: 1." in shown
    assert "2 0.50 91.0 % 60.0 % 6 6 0 2 0" in shown


def test_epochs_follow_from_mixture_and_tokens(page: str) -> None:
    # 245,760 tokens a stage, three quarters of them from a set of 900,000.
    assert "refinecode 4 900,000 0.09 0.20 0.20 0.20 0.20" in words(chapter(page, "mixture"))
    assert "instructions 4 600 133.33 – – – –" in words(chapter(page, "mixture"))


def test_speed_is_the_median_so_that_compiling_does_not_count(page: str) -> None:
    training = words(chapter(page, "training"))
    assert "pretrain 60 245,760 8.300 4.500 4.750 6.125 9,600 30.0 s" in training
    assert "sft 60 245,760 5.000 2.900 – 6.125 9,600 30.0 s" in training


def test_cut_answers_are_marked(page: str) -> None:
    samples = chapter(page, "samples")
    assert samples.count('<span class="cut">cut</span>') == 1
    assert samples.count('<span class="closed">closed</span>') == 2
    assert '    while True:\n<b class="cut">…</b>' in samples
    assert "It wasn&#x27;t asked." in samples, "the tuned model was asked less"


def test_every_step_has_its_time_and_command(run: Path, page: str) -> None:
    reproduction = words(chapter(page, "reproduction"))
    for number, step in enumerate(recipe(run), 1):
        time = "6.0 s" if number <= 20 else "–"
        assert " ".join(f"{number} {step.title} {time} {step.command()}".split()) in reproduction
    assert "Python 3." in reproduction
    assert "JAX " in reproduction


# ----------------------------------------------------------------------------------------------------- one sound file


class Reader(HTMLParser):
    """Finds elements that aren't closed, and everything that would load or run something."""

    VOID = ("meta", "br", "path", "use", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open += [tag] if tag not in self.VOID else []
        for name, value in attributes:
            assert not name.startswith("on"), f"{tag} has a script in {name}"
            self.addresses += [value or ""] if name in ("href", "src", "xlink:href") else []
            self.ids += [value or ""] if name == "id" else []

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open[-1:] = [] if tag not in self.VOID else self.open[-1:]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert all(address.startswith("#") for address in reader.addresses)
    assert {address[1:] for address in reader.addresses} <= set(reader.ids)
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "@import" not in page


def test_what_users_and_models_wrote_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert words(page).count(EVIL) == 3, "a path, a detail, a sample"


def test_the_same_run_gives_the_same_bytes(run: Path, page: str) -> None:
    assert write_report(run, recipe(run)).read_text(encoding="utf-8") == page
    assert not list(run.glob("*.writing"))


# ---------------------------------------------------------------------------------------------------- parts that lack


def test_a_run_without_drops_counts_levels_or_times_says_so(tmp_path: Path) -> None:
    make_run(tmp_path)
    for name in (*FUNNEL, *MADE):
        write_stage(tmp_path / "data" / name, [document("a.py", 0)])
    for file in (tmp_path / "evaluation").glob("*/score.json"):
        known = json.loads(file.read_text())
        write_json(file, known | {"by_level": {}, "outcomes": {}, "closed": None})
    for model in SAMPLED:
        write_lines(tmp_path / "samples" / model / "completions.jsonl", [])
    for name in TRAININGS:
        write_training(tmp_path / "train" / name, 5.0, 4.0, rows=1)
    (tmp_path / "timings.json").unlink()
    text = words(write_report(tmp_path, recipe(tmp_path)).read_text())
    for sentence in (
        "No stage dropped anything.",
        "No exact duplicates were found.",
        "No rule of the filter hit a document.",
        "Nothing had to be redacted.",
        "The model was asked nothing.",
        "The problems have no levels.",
        "No program was run.",
    ):
        assert sentence in text
    assert "minutes in all" not in text


@pytest.mark.parametrize(
    ("file", "maker"),
    [
        ("data/filter/stage.json", "python -m beam_pipelines filter"),
        ("data/snippets/stage.json", "python -m beam_pipelines doctests"),
        ("tokens/algorithmic/stage.json", "python -m beam_pipelines records"),
        ("web/round_1/classifier/held_out.json", "python -m beam_pipelines train_classifier"),
        ("train/anneal/metrics.jsonl", "python -m opencoder_jax train"),
        ("train/sft/run.json", "python -m opencoder_jax train"),
        ("evaluation/held_out_stage1/score.json", "python -m opencoder_jax eval"),
        ("evaluation/tuned/score.json", "python -m opencoder_jax eval"),
        ("samples/base/completions.jsonl", "make cookbook|python -m opencoder_jax"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path: Path, file: str, maker: str) -> None:
    made = make_run(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=f"{re.escape(file)}.*make it with ({maker})"):
        write_report(tmp_path, made)
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    (tmp_path / "evaluation/base/score.json").write_text("{")
    with pytest.raises(UserError, match=r"score\.json: not JSON"):
        write_report(tmp_path, made)
