"""The report of a run: one HTML file with everything in it, for reading and for passing on.

Pictures are drawn into the page, styles stand in its head, and no script or address outside is needed. What is written
is a function of the run's files and of the machine that it's written on. About 3 seconds for the cookbook's run.
"""

import re
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from urllib.parse import quote

from opencoder_jax.chain import Step
from opencoder_jax.cookbook import data_sections, model_sections
from opencoder_jax.cookbook.corpus_size import small_corpus_warning
from opencoder_jax.cookbook.model_sections import interval, nats
from opencoder_jax.cookbook.results import BENCHMARKS, FUNNEL, MODELS, Results
from opencoder_jax.evaluation.scores.score import Score
from opencoder_jax.files import write_whole
from opencoder_jax.reports.page import Html, compact, element, markup, megabytes, page, percent

REPORT = "report.html"

CHAPTERS = (
    data_sections.funnel,
    data_sections.languages,
    data_sections.duplicates,
    data_sections.rules,
    data_sections.redacted,
    data_sections.derived,
    data_sections.recalled,
    data_sections.mixture,
    model_sections.training,
    model_sections.samples,
    model_sections.scores,
    model_sections.reproduction,
)


def write_report(run: Path, steps: Sequence[Step]) -> Path:
    """Writes `run/report.html` and returns its path.

    Args:
        run: the directory of a finished run.
        steps: the commands that made it, in their order.

    Raises:
        UserError: a file of the run is missing or damaged; the message names it and the command that makes it.
    """
    # A model may say half of a surrogate pair, which no file can hold.
    write_whole(run / REPORT, report(Results(run, steps)).encode(errors="replace"))
    return run / REPORT


def report(results: Results) -> Html:
    """The report as a document."""
    chapters = [chapter(results) for chapter in CHAPTERS]
    opening = markup(_warning(results.run), summary(results), _other_pages(results))
    return page("A code language model, from source files to scores", opening, chapters)


def summary(results: Results) -> Html:
    """The headline figures: in one paragraph, and the most telling ones large."""
    trainings, scores = results.trainings, results.scores
    pretrain, *later = trainings
    loss, entropy = nats(pretrain.rows[-1]["loss"]), nats(pretrain.about["unigram_entropy"])
    held_out = f" ({nats(pretrain.held_out[-1][1])} on held-out documents)" if pretrain.held_out else ""
    losses = " and ".join(f"{nats(stage.rows[-1]['loss'])} ({stage.name})" for stage in later)
    tuned = scores[""]["tuned"]
    abilities = [_ability(prefix, found) for prefix, found in scores.items()]
    ends = [results.stages[name] for name in (FUNNEL[0], FUNNEL[-1])]
    documents = [stage.total("out", "documents") for stage in ends]
    sizes = [megabytes(stage.total("out", "bytes")) for stage in ends]
    tokens = sum(records.total("tokens") for records in results.records.values())
    trained = sum(stage.rows[-1]["tokens"] for stage in trainings)
    minutes = results.minutes
    parameters = pretrain.about["parameters"]
    sentences = [
        f"{documents[0]:,} documents ({sizes[0]} MB) were collected; {documents[1]:,} ({sizes[1]} MB) were left after "
        f"deduplication, redaction, filtering and decontamination. All record sets hold {compact(tokens)} tokens.",
        f"A model of {parameters:,} parameters was trained on {compact(trained)} tokens. Pretraining ended at a loss "
        f"of {loss} nats a token{held_out}, against a unigram entropy of {entropy}; the later "
        f"stages ended at {losses}.",
    ]
    tiles = {
        f"of {documents[0]:,} documents left": f"{documents[1]:,}",
        "parameters": compact(parameters),
        f"pretraining loss; unigram entropy {entropy}": loss,
    }
    tiles |= {f"of {title} solved": percent(share) for title, share, _ in abilities}
    sentences += [sentence for _, _, sentence in abilities]
    if tuned.closed is not None:
        sentences.append(f"The tuned model closed {percent(tuned.closed)} of its answers.")
        tiles["of tuned answers closed"] = percent(tuned.closed)
    if minutes:
        sentences.append(f"The steps took {minutes:.1f} minutes.")
        tiles["minutes in all"] = f"{minutes:.1f}"
    boxes = [element("div", element("b", figure), element("span", label)) for label, figure in tiles.items()]
    return markup(element("p", " ".join(sentences), class_="summary"), element("div", *boxes, class_="tiles"))


def _ability(prefix: str, found: Mapping[str, Score]) -> tuple[str, float, str]:
    """The problems of a benchmark, what share of them the tuned model solves at its first try, and a sentence."""
    title = BENCHMARKS[prefix]
    shares = {model: next(iter(score.pass_at_k.values())) for model, score in found.items()}
    each = ", ".join(
        f"{MODELS[model]} {percent(share.estimate)} (95 % interval {interval(share)})"
        for model, share in shares.items()
    )
    name = next(iter(found["tuned"].pass_at_k))
    return title, shares["tuned"].estimate, f"{name} on {found['tuned'].tasks} {title}: {each}."


def _warning(run: Path) -> Html:
    words = small_corpus_warning(run)
    return element("p", words, class_="warning") if words else Html()


def _other_pages(results: Results) -> Html:
    """Links to the pages that stages and inspections wrote."""
    links = [element("a", _title(results.run / name), href=quote(name)) for name in results.pages()]
    return element("nav", "More pages of this run:", *links, class_="pages") if links else Html()


def _title(file: Path) -> str:
    """What a page calls itself, and the directory that it lies in."""
    with file.open(encoding="utf-8", errors="replace") as text:
        found = re.search("<title>(.*?)</title>", text.read(10_000))
    return f"{unescape(found[1]) if found else file.name} ({file.parent.name})"
