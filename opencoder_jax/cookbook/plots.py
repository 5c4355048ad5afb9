"""The report's pictures: plain data in, SVG out, the same bytes each time.

Letters stay letters (`svg.fonttype: none`), so the pictures take the page's font and can be searched. No pyplot: there
is no global figure, and no display is needed. A picture costs about 0.1 seconds, importing matplotlib about a second.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from opencoder_jax.reports.page import Html, compact, megabytes
from opencoder_jax.reports.svg import BLUE, INK, MUTED, PALE_BLUE, PALE_RED, RED, SERIES, STYLE, WIDTH, svg


class Curve(NamedTuple):
    """What one training stage measured.

    Attributes:
        name: of the stage.
        tokens: trained on since the first stage began, one a logged step; the lists below are as long.
        loss: nats a token.
        learning_rate: of each step.
        tokens_per_second: since the logged step before.
        held_out: (tokens, nats a token) where the held-out loss was measured.
        unigram_entropy: nats a token.
    """

    name: str
    tokens: Sequence[float]
    loss: Sequence[float]
    learning_rate: Sequence[float]
    tokens_per_second: Sequence[float]
    held_out: Sequence[tuple[float, float]]
    unigram_entropy: float


def funnel(stages: Sequence[str], documents: Sequence[tuple[int, int]], sizes: Sequence[tuple[int, int]]) -> Html:
    """Documents and bytes, (kept, lost) at each stage, from the first to the last."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * len(stages)))
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, pairs, title, label, unit in (
            (left, documents, "Documents", lambda count: f"{count:,.0f}", 1),
            (right, sizes, "Megabytes of text", megabytes, 1e6),
        ):
            kept, lost = np.array(pairs, float).reshape(-1, 2).T
            rows = np.arange(len(stages))
            axes.barh(rows, kept, color=BLUE, height=0.62, label="kept")
            axes.barh(rows, lost, left=kept, color=PALE_RED, height=0.62, label="lost here")
            for row in rows:
                axes.annotate(
                    label(kept[row]),
                    (kept[row] + lost[row], row),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                )
            axes.set_title(title)
            axes.set_xlim(0, 1.16 * max((kept + lost).max(), 1))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _, unit=unit: f"{value / unit:,g}"))
            _rows(axes, stages)
        left.invert_yaxis()
        _legend(figure, left)
        return svg(figure, "Documents and megabytes after each stage")


def languages(names: Sequence[str], before: Sequence[int], after: Sequence[int]) -> Html:
    """Bytes of each language, collected and left; on a logarithmic axis, for one language outweighs the others."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * len(names)))
        axes = figure.subplots()
        rows = np.arange(len(names))
        floor = 0.5 * min([size for size in (*before, *after) if size > 0], default=1)
        pairs = ((-0.19, before, PALE_BLUE, "collected"), (0.19, after, BLUE, "left at the end"))
        for offset, sizes, colour, label in pairs:
            lengths = np.maximum(sizes, floor) - floor
            axes.barh(rows + offset, lengths, left=floor, height=0.36, color=colour, label=label)
            for row, size in zip(rows, sizes, strict=True):
                axes.annotate(
                    _bytes(size),
                    (max(size, floor), row + offset),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=MUTED,
                )
        axes.set_xscale("log")
        axes.set_xlim(floor, 3 * max([*before, *after, 2 * floor]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _bytes(size)))
        axes.set_xlabel("bytes of text (logarithmic)")
        _rows(axes, names)
        axes.invert_yaxis()
        _legend(figure, axes)
        return svg(figure, "Bytes of each language, collected and left at the end")


def mixture(tokens: Mapping[str, int], shares: Mapping[str, Mapping[str, float]]) -> Html:
    """Tokens of each record set, and the share that each has in what a training stage reads."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * max(len(tokens), len(shares))))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
        colours = dict(zip(tokens, SERIES * len(tokens), strict=False))
        rows = np.arange(len(tokens))
        left.barh(rows, list(tokens.values()), color=list(colours.values()), height=0.6)
        for row, count in zip(rows, tokens.values(), strict=True):
            left.annotate(compact(count), (count, row), xytext=(4, 0), textcoords="offset points", va="center")
        left.set_title("Tokens in each record set")
        left.set_xlim(0, 1.2 * max([*tokens.values(), 1]))
        left.xaxis.set_major_formatter(FuncFormatter(lambda count, _: compact(count)))
        left.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        _rows(left, list(tokens))
        left.invert_yaxis()
        for place, parts in enumerate(shares.values()):
            start = 0.0
            for name, share in parts.items():
                right.barh(place, 100 * share, left=100 * start, color=colours.get(name, MUTED), height=0.6)
                if share > 0.06:
                    middle = (100 * (start + share / 2), place)
                    right.annotate(f"{100 * share:.0f} %", middle, ha="center", va="center", color="white")
                start += share
        right.set_title("What a training stage reads, % of its tokens")
        right.set_xlim(0, 100)
        _rows(right, list(shares))
        right.invert_yaxis()
        return svg(figure, "Tokens of each record set and their shares in the training stages")


def training(curves: Sequence[Curve]) -> Html:
    """Loss, learning rate and speed of all stages over the tokens seen, one panel below the other."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 6.4))
        loss, rate, speed = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.3, 1.1))
        start = 0.0
        held_out: list[tuple[float, float]] = []
        for curve, colour in zip(curves, SERIES * len(curves), strict=False):
            millions = np.array(curve.tokens) / 1e6
            loss.plot(millions, curve.loss, color=colour, lw=1.6)
            rate.plot(millions, curve.learning_rate, color=colour, lw=1.6)
            speed.plot(millions, np.array(curve.tokens_per_second) / 1e3, color=colour, lw=1.6)
            loss.hlines(curve.unigram_entropy, start, millions[-1], color=INK, lw=1, linestyle=(0, (5, 3)))
            loss.text(start, 1.03, f" {curve.name}", transform=loss.get_xaxis_transform(), color=colour, weight="bold")
            held_out += curve.held_out
            for axes in (loss, rate, speed):
                axes.axvline(start, color=MUTED, lw=0.8, linestyle=":")
            start = millions[-1]
        points = np.array(held_out).reshape(-1, 2)
        loss.plot([], [], color=INK, lw=1, linestyle=(0, (5, 3)), label="unigram entropy")
        if held_out:
            look = {"mfc": "white", "mec": RED, "mew": 1.4, "ms": 5, "zorder": 3, "clip_on": False}
            loss.plot(points[:, 0] / 1e6, points[:, 1], "o", label="held-out loss", **look)
        loss.set_ylabel("loss, nats a token")
        rate.set_ylabel("learning rate")
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=False)
        rate.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        rate.set_ylim(bottom=0)
        speed.set_ylabel("1000 tokens\na second")
        speed.set_ylim(bottom=0)
        speed.set_xlabel("tokens trained on, millions")
        speed.set_xlim(0, start)
        for axes in (loss, rate, speed):
            axes.grid(True, axis="both")
        figure.align_ylabels()
        _legend(figure, loss)
        return svg(figure, "Loss, learning rate and tokens per second over the three training stages")


def outcomes(samples: Mapping[str, Mapping[str, int]]) -> Html:
    """How the programs of each model ended, as shares of its samples."""
    kinds = list(dict.fromkeys(kind for counts in samples.values() for kind in counts))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.45 * len(samples)))
        axes = figure.subplots()
        for row, counts in enumerate(samples.values()):
            start, total = 0.0, max(sum(counts.values()), 1)
            for kind, colour in zip(kinds, SERIES * len(kinds), strict=False):
                share = 100 * counts.get(kind, 0) / total
                label = kind if row == 0 else None
                axes.barh(row, share, left=start, color=colour, height=0.6, label=label)
                if share > 4:
                    axes.annotate(f"{share:.0f} %", (start + share / 2, row), ha="center", va="center", color="white")
                start += share
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the samples")
        _rows(axes, list(samples))
        axes.invert_yaxis()
        _legend(figure, axes)
        return svg(figure, "How the programs of each model ended")


def _bytes(size: float) -> str:
    return f"{compact(size)}B" if size >= 1e3 else f"{size:.0f} B"


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows of horizontal bars."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), borderaxespad=0)
