"""The report's pictures: plain data in, SVG out, the same bytes each time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.cookbook.results import TrainingStage
from opencoder_jax.reports import svg
from opencoder_jax.reports.page import compact, megabytes


@svg.drawing("Documents and megabytes after each stage")
def funnel(stages: Mapping[str, Manifest]) -> Figure:
    """Documents and bytes that are left after each stage, and those that it lost."""
    figure = Figure(figsize=(svg.WIDTH, 0.9 + 0.34 * len(stages)))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(stages))
    for axes, what, title, label, unit in (
        (left, "documents", "Documents", lambda count: f"{count:,.0f}", 1),
        (right, "bytes", "Megabytes of text", megabytes, 1e6),
    ):
        before, kept = (np.array([stage.total(side, what) for stage in stages.values()]) for side in ("in", "out"))
        lost = np.maximum(before - kept, 0)
        lost[0] = 0  # what was found but not collected would dwarf all that follows
        axes.barh(rows, kept, color=svg.BLUE, height=0.62, label="kept")
        axes.barh(rows, lost, left=kept, color=svg.PALE_RED, height=0.62, label="lost here")
        svg.label_bars(axes, rows, kept + lost, map(label, kept))
        axes.set_title(title)
        axes.set_xlim(0, 1.16 * max((kept + lost).max(), 1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _, unit=unit: f"{value / unit:,g}"))
        svg.name_rows(axes, list(stages))
    svg.legend_above(figure, left)
    return figure


@svg.drawing("Bytes of each language, collected and left at the end")
def languages(names: Sequence[str], before: Sequence[int], after: Sequence[int]) -> Figure:
    """Bytes of each language, collected and left; on a logarithmic axis, for one language outweighs the others."""
    figure = Figure(figsize=(svg.WIDTH, 0.9 + 0.36 * len(names)))
    axes = figure.subplots()
    floor = 0.5 * min([size for size in (*before, *after) if size > 0], default=1)
    pairs = ((-0.19, before, svg.PALE_BLUE, "collected"), (0.19, after, svg.BLUE, "left at the end"))
    for offset, sizes, colour, label in pairs:
        rows, ends = np.arange(len(names)) + offset, np.maximum(sizes, floor)
        axes.barh(rows, ends - floor, left=floor, height=0.36, color=colour, label=label)
        svg.label_bars(axes, rows, ends, map(_bytes, sizes), fontsize=8, color=svg.MUTED)
    axes.set_xscale("log")
    axes.set_xlim(floor, 3 * max([*before, *after, 2 * floor]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _bytes(size)))
    axes.set_xlabel("bytes of text (logarithmic)")
    svg.name_rows(axes, names)
    svg.legend_above(figure, axes)
    return figure


@svg.drawing("Tokens of each record set and their shares in the training stages")
def mixture(tokens: Mapping[str, int], shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Tokens of each record set, and the share that each has in what a training stage reads."""
    figure = Figure(figsize=(svg.WIDTH, 0.9 + 0.42 * max(len(tokens), len(shares))))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    colours = dict(zip(tokens, svg.SERIES * len(tokens), strict=False))
    rows, counts = range(len(tokens)), list(tokens.values())
    left.barh(rows, counts, color=list(colours.values()), height=0.6)
    svg.label_bars(left, rows, counts, map(compact, counts))
    left.set_title("Tokens in each record set")
    left.set_xlim(0, 1.2 * max([*counts, 1]))
    left.xaxis.set_major_formatter(FuncFormatter(lambda count, _: compact(count)))
    left.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    svg.name_rows(left, list(tokens))
    for row, parts in enumerate(shares.values()):
        _shares(right, row, parts, colours, smallest=0.06)
    right.set_title("What a training stage reads, % of its tokens")
    right.set_xlim(0, 100)
    svg.name_rows(right, list(shares))
    return figure


@svg.drawing("How the programs of each model ended")
def outcomes(samples: Mapping[str, Mapping[str, int]]) -> Figure:
    """How the programs of each model ended, as shares of its samples."""
    figure = Figure(figsize=(svg.WIDTH, 1.1 + 0.45 * len(samples)))
    axes = figure.subplots()
    kinds = list(dict.fromkeys(kind for counts in samples.values() for kind in counts))
    colours = dict(zip(kinds, svg.SERIES * len(kinds), strict=False))
    for row, counts in enumerate(samples.values()):
        total = max(sum(counts.values()), 1)
        _shares(axes, row, {kind: counts.get(kind, 0) / total for kind in kinds}, colours, smallest=0.04)
    for kind, colour in colours.items():
        axes.barh(0, 0, color=colour, label=kind)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the samples")
    svg.name_rows(axes, list(samples))
    svg.legend_above(figure, axes)
    return figure


def _shares(axes: Axes, row: int, parts: Mapping[str, float], colours: Mapping[str, str], smallest: float) -> None:
    """A bar of 100 % in parts; those of more than `smallest` are labelled."""
    start = 0.0
    for name, share in parts.items():
        axes.barh(row, 100 * share, left=100 * start, color=colours.get(name, svg.MUTED), height=0.6)
        if share > smallest:
            middle = (100 * (start + share / 2), row)
            axes.annotate(f"{100 * share:.0f} %", middle, ha="center", va="center", color=svg.ON_BAR)
        start += share


@svg.drawing("Loss, learning rate and tokens per second over the three training stages")
def training(stages: Sequence[TrainingStage]) -> Figure:
    """Loss, learning rate and speed of all stages over the tokens seen, one panel below the other."""
    figure = Figure(figsize=(svg.WIDTH, 6.4))
    panels = loss, rate, speed = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.3, 1.1))
    before = 0
    held_out: list[tuple[int, float]] = []
    dashed = {"color": svg.INK, "lw": 1, "linestyle": (0, (5, 3))}
    for stage, colour in zip(stages, svg.SERIES * len(stages), strict=False):
        start = before / 1e6
        millions = [start + row["tokens"] / 1e6 for row in stage.rows]
        for axes, name, unit in ((loss, "loss", 1), (rate, "learning_rate", 1), (speed, "tokens_per_second", 1e3)):
            axes.plot(millions, [row[name] / unit for row in stage.rows], color=colour, lw=1.6)
            axes.axvline(start, color=svg.MUTED, lw=0.8, linestyle=":")
        loss.hlines(stage.about["unigram_entropy"], start, millions[-1], **dashed)
        loss.text(start, 1.03, f" {stage.name}", transform=loss.get_xaxis_transform(), color=colour, weight="bold")
        held_out += [(before + tokens, value) for tokens, value in stage.held_out]
        before += stage.rows[-1]["tokens"]
    loss.plot([], [], label="unigram entropy", **dashed)
    if held_out:
        look = {"mfc": svg.PAPER, "mec": svg.RED, "mew": 1.4, "ms": 5, "zorder": 3, "clip_on": False}
        tokens, losses = np.array(held_out).T
        loss.plot(tokens / 1e6, losses, "o", label="held-out loss", **look)
    loss.set_ylabel("loss, nats a token")
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=False)
    rate.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    rate.set_ylim(bottom=0)
    speed.set_ylabel("1000 tokens\na second")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("tokens trained on, millions")
    speed.set_xlim(0, before / 1e6)
    for axes in panels:
        axes.grid(True, axis="both")
    figure.align_ylabels()
    svg.legend_above(figure, loss)
    return figure


def _bytes(size: float) -> str:
    return f"{compact(size)}B" if size >= 1e3 else f"{size:.0f} B"
