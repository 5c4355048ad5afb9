"""The report of a run: one HTML file with everything in it, for reading and for passing on.

Pictures are drawn into the page, styles stand in its head, and no script or address outside is needed. What is written
is a function of the run's files and of the machine that it's written on. About 3 seconds for the cookbook's run.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.cookbook import data_sections, model_sections
from opencoder_jax.cookbook.model_sections import interval, nats
from opencoder_jax.cookbook.results import DERIVED, FUNNEL, MODELS, Results, Score, Training
from opencoder_jax.cookbook.steps import Step
from opencoder_jax.reports.page import Html, compact, element, markup, megabytes, page, percent

REPORT = "report.html"
STYLE = Path(__file__).with_name("report.css")

DUPLICATES = ("exact_duplicates", "near_duplicates")


def write_report(run: Path, steps: Sequence[Step]) -> Path:
    """Writes `run/report.html` and returns its path.

    Args:
        run: the directory of a finished run.
        steps: the commands that made it, in their order.

    Raises:
        UserError: a file of the run is missing or damaged; the message names it and the command that makes it.
    """
    text = report(Results.open(run, steps))
    partial = run / f"{REPORT}.partial"
    # A model may say half of a surrogate pair, which no file can hold.
    partial.write_text(text, encoding="utf-8", errors="replace")
    os.replace(partial, run / REPORT)
    return run / REPORT


def report(results: Results) -> Html:
    """The report as a document."""
    stages = {name: results.stage(name) for name in FUNNEL}
    records = results.record_sets()
    trainings = results.trainings()
    scores = {model: results.score(model) for model in MODELS}
    base, tuned = (results.samples(model) for model in MODELS)
    seconds = [results.seconds(step) for step in results.steps]
    sections = [
        data_sections.funnel(stages, {name: results.drop_reasons(name) for name in FUNNEL}),
        data_sections.languages(stages[FUNNEL[0]], stages[FUNNEL[-1]]),
        data_sections.duplicates({name: results.clusters(name) for name in DUPLICATES}),
        data_sections.rules(stages["filter"]),
        data_sections.redacted(stages["redact"]),
        data_sections.derived({name: results.stage(name) for name in DERIVED}),
        data_sections.mixture(records, trainings),
        model_sections.training(trainings),
        model_sections.samples(base, tuned),
        model_sections.scores(scores),
        model_sections.reproduction(results.steps, seconds),
    ]
    tokens = sum(manifest.total("tokens") for manifest in records.values())
    opening = summary(stages[FUNNEL[0]], stages[FUNNEL[-1]], tokens, trainings, scores, seconds)
    return page("A code language model, from source files to scores", STYLE.read_text(), opening, sections)


def summary(
    collected: Manifest,
    left: Manifest,
    tokens: int,
    trainings: Sequence[Training],
    scores: Mapping[str, Score],
    seconds: Sequence[float | None],
) -> Html:
    """The headline figures: in one paragraph, and the most telling ones large."""
    pretrain, *later = trainings
    loss, entropy = pretrain.rows[-1]["loss"], pretrain.about["unigram_entropy"]
    held_out = f" ({nats(pretrain.held_out[-1][1])} on held-out documents)" if pretrain.held_out else ""
    losses = " and ".join(f"{nats(stage.rows[-1]['loss'])} ({stage.name})" for stage in later)
    tuned = scores["tuned"]
    passed = {model: next(iter(score.estimates.items())) for model, score in scores.items() if score.estimates}
    ability = " and ".join(
        f"{percent(estimate.estimate)} by the {MODELS[model]} (95 % interval {interval(estimate, tuned.problems)})"
        for model, (_, estimate) in passed.items()
    )
    documents = [manifest.total("out", "documents") for manifest in (collected, left)]
    sizes = [megabytes(manifest.total("out", "bytes")) for manifest in (collected, left)]
    trained = sum(stage.rows[-1]["tokens"] for stage in trainings)
    minutes = sum(took for took in seconds if took is not None) / 60
    parameters = pretrain.about["parameters"]
    sentences = [
        f"{documents[0]:,} documents ({sizes[0]} MB) were collected; {documents[1]:,} ({sizes[1]} MB) were left after "
        f"deduplication, redaction, filtering and decontamination. All record sets hold {compact(tokens)} tokens.",
        f"A model of {parameters:,} parameters was trained on {compact(trained)} tokens. Pretraining ended at a loss "
        f"of {nats(loss)} nats a token{held_out}, against a unigram entropy of {nats(entropy)}; the later stages ended "
        f"at {losses}.",
        f"{passed['tuned'][0]} on {tuned.problems} problems: {ability}." if "tuned" in passed else "",
        f"The tuned model closed {percent(tuned.closed)} of its answers." if tuned.closed is not None else "",
        f"The steps took {minutes:.1f} minutes." if minutes else "",
    ]
    tiles = [
        _tile(f"{documents[1]:,}", f"of {documents[0]:,} documents left"),
        _tile(compact(parameters), "parameters"),
        _tile(nats(loss), f"pretraining loss; unigram entropy {nats(entropy)}"),
        *(_tile(percent(estimate.estimate), f"{name}, {MODELS[model]}") for model, (name, estimate) in passed.items()),
        *([_tile(percent(tuned.closed), "of tuned answers closed")] if tuned.closed is not None else []),
        *([_tile(f"{minutes:.1f}", "minutes in all")] if minutes else []),
    ]
    paragraph = element("p", " ".join(filter(None, sentences)), class_="summary")
    return markup(paragraph, element("div", *tiles, class_="tiles"))


def _tile(figure: str, label: str) -> Html:
    return element("div", element("b", figure), element("span", label))
