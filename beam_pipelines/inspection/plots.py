"""The pictures of the inspection: a signal with its thresholds, and which rules catch the same documents."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from opencoder_jax.beam_pipelines.filtering.rules import Rule
from opencoder_jax.beam_pipelines.inspection.survey import Bound, bounds
from opencoder_jax.reports import svg
from opencoder_jax.reports.page import compact

BINS = 60
COUNTS_FROM = 200  # signals that reach it are counts rather than shares: their axis is logarithmic

_LAYOUT = {"left": 0.06, "right": 0.99, "bottom": 0.22, "top": 0.88, "wspace": 0.15}
_BLUES = LinearSegmentedColormap.from_list("blues", [to_rgba(svg.BLUE, 0), to_rgba(svg.BLUE)])  # less and less clear


# Of these there are hundreds: a layout that is given saves half the time that finding one takes.
@svg.drawing(
    "Histogram of the signal, and the share of documents dropped at each threshold",
    {"figure.constrained_layout.use": False},
)
def signal(rule: Rule, values: np.ndarray) -> Figure:
    """The histogram of a signal, and the share of documents that a threshold anywhere on its axis would drop.

    Args:
        values: float32 [documents], NaN where null.
    """
    values = values[~np.isnan(values)].astype(np.float64)
    sides = bounds(rule)
    figure = Figure(figsize=(svg.WIDTH, 2.3))
    left, right = figure.subplots(1, 2, gridspec_kw=_LAYOUT)
    left.set_ylabel("documents")
    if sides:
        edges, scale = _edges(values, [side.at for side in sides])
        caught = np.zeros(len(values), bool)
        for side in sides:
            caught |= side.sign * (values - side.at) > 0
        _histogram(left, values, caught, edges)
        _curves(right, values, sides, edges)
        for axes in (left, right):
            axes.set_xscale(scale)
            axes.xaxis.set_major_formatter(FuncFormatter(_compact if scale == "log" else lambda at, _: f"{at:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(edges[0], edges[-1])
            for side in sides:
                axes.axvline(side.at, color=svg.RED, lw=1.2, linestyle=(0, (4, 2)))
            axes.set_xlabel("value of the signal" + (" (logarithmic)" if scale == "log" else ""))
    else:
        _categories(left, values, rule)
        right.set_axis_off()
    return figure


def _edges(values: np.ndarray, marks: Sequence[float]) -> tuple[np.ndarray, str]:
    """The bins: all that isn't extreme, and every threshold well inside; values beyond count in the outermost bin."""
    low, high = np.quantile(values, [0.002, 0.998]) if len(values) else (0.0, 1.0)
    low, high = min(low, *marks), max(high, *marks)
    if high >= COUNTS_FROM and low >= 0:
        return np.geomspace(max(low, 1) / 1.3, high * 1.3, BINS + 1), "log"
    margin = 0.04 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1), "linear"


def _histogram(axes: Axes, values: np.ndarray, caught: np.ndarray, edges: np.ndarray) -> None:
    inside = np.clip(values, edges[0], edges[-1])
    passing, gone = (np.histogram(inside[where], edges)[0] for where in (~caught, caught))
    axes.stairs(passing, edges, fill=True, color=svg.PALE_BLUE, label="pass")
    axes.stairs(passing + gone, edges, baseline=passing, fill=True, color=svg.PALE_RED, label="caught")
    axes.set_title("Documents by their value")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(_compact))


def _curves(axes: Axes, values: np.ndarray, sides: Sequence[Bound], edges: np.ndarray) -> None:
    ordered = np.sort(values)
    count = max(len(ordered), 1)
    grid = np.unique(np.concatenate([np.linspace(edges[0], edges[-1], 100), edges]))
    for side, colour in zip(sides, (svg.BLUE, svg.SERIES[1]), strict=False):
        below = np.searchsorted(ordered, grid, "left")
        share = below if side.sign < 0 else len(ordered) - np.searchsorted(ordered, grid, "right")
        axes.plot(grid, 100 * share / count, color=colour, lw=1.5, label="above it" if side.sign > 0 else "below it")
        here = 100 * float((side.sign * (ordered - side.at) > 0).sum()) / count
        axes.plot([side.at], [here], "o", color=svg.RED, ms=4.5, zorder=3, clip_on=False)
        near_end = side.at > edges[len(edges) // 2]
        lift = -14 if here > 20 else 7
        axes.annotate(
            f"{here:.2f} %",
            (side.at, here),
            xytext=(-7 if near_end else 7, lift),
            textcoords="offset points",
            ha="right" if near_end else "left",
            color=svg.RED,
            bbox={"facecolor": svg.PAPER, "edgecolor": "none", "pad": 1},
        )
    axes.set_title("Share dropped if the threshold were here")
    if len(sides) > 1:
        axes.legend(loc="center right")
    axes.set_ylabel("% of documents")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 130)
    axes.grid(True, axis="y")


def _categories(axes: Axes, values: np.ndarray, rule: Rule) -> None:
    kinds, counts = np.unique(values, return_counts=True)
    colours = [svg.PALE_RED if rule.fires(np.array([kind]))[0] else svg.PALE_BLUE for kind in kinds]
    axes.barh([f"{kind:g}" for kind in kinds], counts, color=colours, height=0.6)
    svg.label_bars(axes, range(len(counts)), counts, [f"{count:,}" for count in counts])
    axes.set_title("Documents by their value")
    axes.set_xlim(0, 1.2 * max([*counts, 1]))
    axes.set_xlabel("documents")
    axes.set_ylabel("")


@svg.drawing("Of the documents that a row's rule catches, the share that a column's rule catches too")
def overlap(names: Sequence[str], both: np.ndarray) -> Figure:
    """A heat map: of the documents that a row's rule catches, the share that a column's rule catches too.

    Args:
        both: int [rules, rules], documents that both catch; every rule has hits.
    """
    share = 100 * both / np.maximum(np.diag(both), 1)[:, None]
    figure = Figure(figsize=(svg.WIDTH, 2.2 + 0.27 * len(names)))
    axes = figure.subplots()
    axes.grid(False)
    ends = np.arange(len(names) + 1) - 0.5
    axes.pcolormesh(ends, ends, share, cmap=_BLUES, vmin=0, vmax=115)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            ink = svg.ON_BAR if value > 75 else svg.INK
            axes.annotate(f"{value:.0f}", (column, row), ha="center", va="center", color=ink, fontsize=7.5)
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), [f"{name}  {hits:,}" for name, hits in zip(names, np.diag(both), strict=True)])
    axes.tick_params(length=0, labelsize=8)
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _compact(number: float, _: object) -> str:
    return compact(number)
