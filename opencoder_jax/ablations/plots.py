"""The court's pictures: plain data in, SVG out, the same bytes each time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from opencoder_jax.ablations.judge import Decision
from opencoder_jax.reports import svg
from opencoder_jax.reports.page import compact

_COLOURS = {"agrees": svg.BLUE, "disagrees": svg.RED, "undecided": svg.MUTED}


@svg.drawing("Effects with their 95 % intervals, in units of the smallest that counts")
def forest(rows: Sequence[tuple[str, Decision]]) -> Figure:
    """A line a claim; what lies between the dotted lines doesn't count. The axis is linear there, then logarithmic."""
    figure = Figure(figsize=(svg.WIDTH, 1.1 + 0.34 * len(rows)))
    axes = figure.subplots()
    axes.axvspan(-1, 1, color=svg.PALE_BLUE, alpha=0.35, linewidth=0)
    axes.axvline(0, color=svg.INK, linewidth=0.8)
    seen = set()
    for row, (_, finding) in enumerate(rows):
        low, middle, high = (
            value / finding.claim.smallest
            for value in (finding.effect.low, finding.effect.estimate, finding.effect.high)
        )
        colour, label = _COLOURS[finding.outcome], None if finding.outcome in seen else finding.outcome
        seen.add(finding.outcome)
        axes.plot([low, high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=colour, markersize=5, label=label)
    axes.set_xscale("symlog", linthresh=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(
        "effect, in units of the smallest that counts (grey-blue: too small to count); left: the first arm is lower"
    )
    svg.name_rows(axes, [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    svg.legend_above(figure, axes)
    return figure


@svg.drawing("Bits a byte of held-out texts while the arms are trained")
def curves(arms: Mapping[str, Sequence[Mapping[int, float]]], tokens_a_step: int) -> Figure:
    """Each arm's mean over seeds, in a band from its lowest to its highest; each arm less the first one beside it."""
    figure = Figure(figsize=(svg.WIDTH, 3.3))
    left, right = figure.subplots(1, 2)
    tables = {name: np.array([list(each.values()) for each in runs]) for name, runs in arms.items()}
    first = next(iter(tables.values()))
    for (name, runs), colour in zip(arms.items(), svg.SERIES * 2, strict=False):
        x = np.array(list(runs[0])) * tokens_a_step
        for axes, values in ((left, tables[name]), (right, _less(tables[name], first))):
            axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
            axes.plot(x, values.mean(axis=0), color=colour, label=name, linewidth=1.5)
    left.set_title("Bits a byte")
    right.set_title(f"The same, less “{next(iter(arms))}” of the same seed")
    tail = np.concatenate([_less(each, first)[:, each.shape[1] // 3 :].ravel() for each in tables.values()])
    reach = max(1.15 * float(abs(tail).max()), 1e-3)
    right.set_ylim(-reach, reach)  # the first steps differ by more than all that follow
    for axes in (left, right):
        axes.set_xlabel("tokens")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value) if value > 0 else "0"))
        axes.grid(True, axis="y")
    svg.legend_above(figure, left)
    return figure


def _less(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    seeds = min(len(values), len(first))
    return values[:seeds] - first[:seeds]


@svg.drawing("Tokens of each arm, and how many of them stand in exact copies of other files")
def tokens(counts: Mapping[str, tuple[int, int]]) -> Figure:
    """A bar an arm: tokens, and those in exact copies."""
    figure = Figure(figsize=(svg.WIDTH, 0.9 + 0.34 * len(counts)))
    axes = figure.subplots()
    rows = range(len(counts))
    whole, copies = (np.array([pair[index] for pair in counts.values()], float) for index in (0, 1))
    axes.barh(rows, whole - copies, color=svg.BLUE, height=0.62, label="tokens")
    axes.barh(
        rows, copies, left=whole - copies, color=svg.PALE_RED, height=0.62, label="in exact copies of other files"
    )
    svg.label_bars(axes, rows, whole, map(compact, whole))
    axes.set_xlim(0, 1.12 * max(whole.max(), 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value) if value > 0 else "0"))
    svg.name_rows(axes, list(counts))
    svg.legend_above(figure, axes)
    return figure
