"""The chapters of the report about the model: how it learnt, what it says, how it scores, and how to make it again."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from itertools import zip_longest

from opencoder_jax.chain import Step
from opencoder_jax.cookbook import plots
from opencoder_jax.cookbook.results import BENCHMARKS, MODELS, SAMPLED, Reply, Results, TrainingStage
from opencoder_jax.evaluation.scores.score import Score, Share
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


def training(results: Results) -> Section:
    """Curves of loss, learning rate and speed, and the figures of each stage."""
    rows: list[list[Content]] = []
    for stage in results.trainings:
        first, last = stage.rows[0], stage.rows[-1]
        held_out = nats(stage.held_out[-1][1]) if stage.held_out else None
        losses = [nats(first["loss"]), nats(last["loss"]), held_out, nats(stage.about["unigram_entropy"])]
        speed = f"{median_speed(stage):,.0f}"
        rows.append([stage.name, last["step"], last["tokens"], *losses, speed, duration(last["seconds"])])
    heads = ["stage", "steps", "tokens", "first loss", "last loss", "held out", "unigram entropy", "tokens/s", "time"]
    return section(
        "training",
        "Training",
        figure(
            plots.training(results.trainings),
            "The training stages one after the other. A model that knows nothing but how frequent each token is "
            "has the unigram entropy as its loss; each stage has its own data, and so its own entropy.",
        ),
        table("lrrrrrrrr", heads, rows),
        note("Losses and entropies in nats a token. Tokens a second is the median of the logged steps."),
    )


def nats(value: float) -> str:
    """A loss or an entropy."""
    return f"{value:.3f}"


def median_speed(stage: TrainingStage) -> float:
    """Tokens a second: the upper median of the logged steps, so that compiling doesn't count."""
    return sorted(row["tokens_per_second"] for row in stage.rows)[len(stage.rows) // 2]


def samples(results: Results) -> Section:
    """What the model says before and after tuning, side by side."""
    pairs = [_pair(*pair) for pair in zip_longest(*map(results.replies, SAMPLED))]
    before, after = SAMPLED.values()
    how = paragraph(
        f"Left the {before} goes on with the prompt as with any text; right the {after} answers it as a chat. "
        "An answer is marked where it was cut at the limit of tokens."
    )
    shown = [how, *pairs] if pairs else [note("The model was asked nothing.")]
    return section("samples", "Samples before and after tuning", *shown)


def _pair(base: Reply | None, tuned: Reply | None) -> Html:
    prompts = list(dict.fromkeys(reply.prompt for reply in (base, tuned) if reply))
    shared = [element("pre", prompts[0], class_="prompt")] if len(prompts) == 1 else []
    sides = [_said(name, reply, not shared) for name, reply in zip(SAMPLED.values(), (base, tuned), strict=True)]
    return element("div", *shared, element("div", *sides, class_="sides"), class_="sample")


def _said(name: str, reply: Reply | None, with_prompt: bool) -> Html:
    if reply is None:
        return element("div", element("h4", name), note("It wasn't asked."))
    ending = "closed" if reply.closed else "cut"
    prompt = [element("pre", reply.prompt, class_="prompt")] if with_prompt else []
    mark = [] if reply.closed else [element("b", "…", class_=ending)]
    heading = element("h4", name, " ", element("span", ending, class_=ending))
    return element("div", heading, *prompt, element("pre", reply.text, *mark))


def interval(share: Share) -> str:
    """The 95 % bounds of a share."""
    return f"{100 * share.low:.1f} – {percent(share.high)}"


def scores(results: Results) -> Section:
    """What each model solves of each benchmark, with its interval, by level, and how the programs ended."""
    return section(
        "scores",
        "Scores",
        paragraph(
            "The pretrained and the annealed model go on with a problem's prompt; the tuned ones are asked in a chat. "
            "Held-out compositions are tasks of the grammar with a pair of operations that no training text holds: "
            "their operations are known, one by one. Hand-written problems are the project's own, whose phrasing and "
            "names no training text was made from."
        ),
        *(part for prefix, title in BENCHMARKS.items() for part in _scored(title, results.scores[prefix])),
        note(
            "pass@k is the unbiased estimate of Chen et al. (2021), its interval the bootstrap over problems; where no "
            "problem or every problem is solved, the interval is the rule of three. An answer is closed when the model "
            "ended it, before the limit of tokens."
        ),
    )


def _scored(title: str, found: Mapping[str, Score]) -> list[Html]:
    """The part about one benchmark."""
    rows: list[list[Content]] = []
    for model, score in found.items():
        closed = None if score.closed is None else percent(score.closed)
        for name, estimate in score.pass_at_k.items():
            shares = [percent(estimate.estimate), interval(estimate)]
            rows.append([MODELS[model], name, *shares, score.tasks, score.samples, closed])
    heads = ["model", "score", "estimate", "95 % interval", "problems", "samples", "answers closed"]
    ends = {MODELS[model]: score.outcomes for model, score in found.items()}
    return [
        element("h3", title.capitalize()),
        table("llrrrrr", heads, rows),
        _by_level(found),
        figure(plots.outcomes(ends), "How the programs ended when they were run in the sandbox.")
        if any(ends.values())
        else note("No program was run."),
    ]


def _by_level(found: Mapping[str, Score]) -> Html:
    levels = list(dict.fromkeys(level for score in found.values() for level in score.by_level))
    if not levels:
        return note("The problems have no levels.")
    rows: list[list[Content]] = []
    for level in levels:
        cells = [score.by_level.get(level) for score in found.values()]
        shares = [percent(cell[0]) if cell else None for cell in cells]
        rows.append([str(level), max(cell[1] for cell in cells if cell), *shares])
    heads = ["level of the problems", "problems", *(f"pass@1, {MODELS[model]}" for model in found)]
    return table("lr" + "r" * len(found), heads, rows)


def reproduction(results: Results) -> Section:
    """How each number can be made again: every step's time and command, and the machine."""
    rows = [
        [number, step.title, duration(ran[1] - ran[0]) if ran else None, _command(step)]
        for number, (step, ran) in enumerate(zip(results.steps, results.times, strict=True), 1)
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
    """What this ran on: no name of the machine or its user, for reports are shown around."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"Python {platform.python_version()} · JAX {importlib.metadata.version('jax')}"
    return f"{versions} · {cores} cores · {platform.system()} {platform.machine()}"
