"""The chapters of the report about the model: how it learnt, what it says, how it scores, and how to make it again."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from opencoder_jax.cookbook import plots
from opencoder_jax.cookbook.results import MODELS, Sample, Score, Training
from opencoder_jax.cookbook.steps import Step
from opencoder_jax.evaluation.score import Estimate
from opencoder_jax.reports.page import (
    Content,
    Html,
    Section,
    duration,
    element,
    figure,
    markup,
    note,
    paragraph,
    percent,
    section,
    table,
)


def training(trainings: Sequence[Training]) -> Section:
    """Curves of loss, learning rate and speed, and the figures of each stage."""
    rows: list[list[Content]] = []
    for stage in trainings:
        first, last = stage.rows[0], stage.rows[-1]
        rows.append(
            [
                stage.name,
                last["step"],
                last["tokens"],
                nats(first["loss"]),
                nats(last["loss"]),
                nats(stage.held_out[-1][1]) if stage.held_out else None,
                nats(stage.about["unigram_entropy"]),
                f"{median_speed(stage):,.0f}",
                duration(last["seconds"]),
            ]
        )
    heads = ["stage", "steps", "tokens", "first loss", "last loss", "held out", "unigram entropy", "tokens/s", "time"]
    return section(
        "training",
        "Training",
        figure(
            plots.training(list(curves(trainings))),
            "The three training stages one after the other. A model that knows nothing but how frequent each token is "
            "has the unigram entropy as its loss; each stage has its own data, and so its own entropy.",
        ),
        table("lrrrrrrrr", heads, rows),
        note("Losses and entropies in nats a token. Tokens a second is the median of the logged steps."),
    )


def curves(trainings: Sequence[Training]) -> Iterator[plots.Curve]:
    """What the stages measured, with the tokens counted from the beginning of the first."""
    before = 0
    for stage in trainings:
        rows = stage.rows
        yield plots.Curve(
            stage.name,
            [before + row["tokens"] for row in rows],
            [row["loss"] for row in rows],
            [row["learning_rate"] for row in rows],
            [row["tokens_per_second"] for row in rows],
            [(before + tokens, loss) for tokens, loss in stage.held_out],
            stage.about["unigram_entropy"],
        )
        before += rows[-1]["tokens"]


def nats(value: float) -> str:
    """A loss or an entropy."""
    return f"{value:.3f}"


def median_speed(stage: Training) -> float:
    """Tokens a second: the upper median of the logged steps, so that compiling doesn't count."""
    return sorted(row["tokens_per_second"] for row in stage.rows)[len(stage.rows) // 2]


def samples(base: Sequence[Sample], tuned: Sequence[Sample]) -> Section:
    """What the model says before and after tuning, side by side."""
    pairs = list(zip_longest(base, tuned))
    if not pairs:
        return section("samples", "Samples before and after tuning", note("The model was asked nothing."))
    before, after = MODELS.values()
    return section(
        "samples",
        "Samples before and after tuning",
        paragraph(
            f"Left the {before} goes on with the prompt as with any text; right the {after} answers it as a chat. "
            "An answer is marked where it was cut at the limit of tokens."
        ),
        *(_pair(first, second) for first, second in pairs),
    )


def _pair(base: Sample | None, tuned: Sample | None) -> Html:
    prompts = list(dict.fromkeys(sample.prompt for sample in (base, tuned) if sample))
    shared = [element("pre", prompts[0], class_="prompt")] if len(prompts) == 1 else []
    sides = [_said(name, sample, not shared) for name, sample in zip(MODELS.values(), (base, tuned), strict=True)]
    return element("div", *shared, element("div", *sides, class_="sides"), class_="sample")


def _said(name: str, sample: Sample | None, with_prompt: bool) -> Html:
    if sample is None:
        return element("div", element("h4", name), note("It wasn't asked."))
    ending = "closed" if sample.closed else "cut"
    prompt = [element("pre", sample.prompt, class_="prompt")] if with_prompt else []
    mark = [] if sample.closed else [element("b", "…", class_=ending)]
    heading = element("h4", name, " ", element("span", ending, class_=ending))
    return element("div", heading, *prompt, element("pre", sample.text, *mark))


def interval(estimate: Estimate, problems: int) -> str:
    """The 95 % bounds of a share; where no problem or every problem is solved, by the rule of three."""
    share, low, high = estimate
    if share == 0:
        high = min(1.0, 3 / problems)
    if share == 1:
        low = max(0.0, 1 - 3 / problems)
    return f"{100 * low:.1f} – {percent(high)}"


def scores(found: Mapping[str, Score]) -> Section:
    """pass@k with its interval, by level, and how the programs ended."""
    rows: list[list[Content]] = []
    for model, score in found.items():
        closed = None if score.closed is None else percent(score.closed)
        for name, estimate in score.estimates.items():
            share, bounds = percent(estimate.estimate), interval(estimate, score.problems)
            rows.append([MODELS[model], name, share, bounds, score.problems, score.samples, closed])
    heads = ["model", "score", "estimate", "95 % interval", "problems", "samples", "answers closed"]
    ends = {MODELS[model]: score.outcomes for model, score in found.items()}
    return section(
        "scores",
        "Scores",
        table("llrrrrr", heads, rows),
        note(
            "pass@k is the unbiased estimate of Chen et al. (2021), its interval the bootstrap over problems; where no "
            "problem or every problem is solved, the interval is the rule of three. An answer is closed when the model "
            "ended it, before the limit of tokens."
        ),
        _by_level(found),
        figure(plots.outcomes(ends), "How the programs ended when they were run in the sandbox.")
        if any(ends.values())
        else note("No program was run."),
    )


def _by_level(found: Mapping[str, Score]) -> Html:
    levels = list(dict.fromkeys(level for score in found.values() for level in score.by_level))
    if not levels:
        return note("The problems have no levels.")
    rows: list[list[Content]] = []
    for level in levels:
        cells = [score.by_level.get(level) for score in found.values()]
        shares = [percent(cell[0]) if cell else None for cell in cells]
        rows.append([level, max(cell[1] for cell in cells if cell), *shares])
    heads = ["level of the problems", "problems", *(f"pass@1, {MODELS[model]}" for model in found)]
    return table("lr" + "r" * len(found), heads, rows)


def reproduction(steps: Sequence[Step], seconds: Sequence[float | None]) -> Section:
    """How each number can be made again: every step's time and command, and the machine."""
    rows = [
        [number, step.title, None if took is None else duration(took), _command(step)]
        for number, (step, took) in enumerate(zip(steps, seconds, strict=True), 1)
    ]
    return section(
        "reproduction",
        "How to make each number again",
        paragraph(
            "Every step is a command that can be run alone from the repository's root; run again, it does nothing "
            "unless its input, recipe or code has changed. Data and losses are the same to the last digit on the same "
            "machine; times and tokens a second are not."
        ),
        table("rlrl", ["", "step", "time", "command"], rows),
        paragraph(element("b", "Machine: "), machine()),
    )


def _command(step: Step) -> Html:
    """A command whose lines break between its arguments only."""
    arguments = [markup(element("span", argument), " ") for argument in step.command().split(" ")]
    return element("code", *arguments, class_="command")


def machine() -> str:
    """What this ran on."""
    # No name of the machine or its user: reports are shown around.
    return " · ".join(
        [
            f"Python {platform.python_version()}",
            f"JAX {importlib.metadata.version('jax')}",
            f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
            f"{platform.system()} {platform.machine()}",
        ]
    )
