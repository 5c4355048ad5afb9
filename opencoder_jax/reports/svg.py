"""What our pictures have in common: colours, a style, and SVG that is the same bytes each time.

Letters stay letters (`svg.fonttype: none`), so the pictures take the page's font and can be searched. Colours are
those of style.css, by their names, so the pictures turn dark with the page. No pyplot: there is no global figure, and
no display is needed. A picture costs about 0.1 seconds, importing matplotlib about a second.
"""

import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opencoder_jax.reports.page import STYLESHEET, Html

Parameters = ParamSpec("Parameters")

# name -> its colour on a light page; no two are the same, for a picture is drawn with these and then named.
COLOURS = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", STYLESHEET[: STYLESHEET.index("@media")]))
_NAMES = {colour: name for name, colour in COLOURS.items()}

PAPER, INK, MUTED, ON_BAR = (COLOURS[name] for name in ("paper", "ink", "muted", "on-bar"))
BLUE, PALE_BLUE, RED, PALE_RED = (COLOURS[name] for name in ("blue", "pale-blue", "red", "pale-red"))
SERIES = (BLUE, *(COLOURS[name] for name in ("orange", "teal", "mauve", "grey", "sky")))

WIDTH = 10.4  # inches; the page scales a picture to its own width

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "opencoder",
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLOURS["line"],
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def drawing(
    description: str, settings: Mapping[str, Any] | None = None
) -> Callable[[Callable[Parameters, Figure]], Callable[Parameters, Html]]:
    """Makes a function that draws a figure one that returns its SVG, drawn in our style.

    Args:
        description: what the picture shows, for those who can't see it.
        settings: of matplotlib, beside STYLE.
    """

    def decorate(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Html]:
        @functools.wraps(draw)
        def drawn(*arguments: Parameters.args, **named: Parameters.kwargs) -> Html:
            with style.context(["default", STYLE, dict(settings or {})]):
                return _svg(draw(*arguments, **named), description)

        return drawn

    return decorate


def _svg(figure: Figure, description: str) -> Html:
    """The figure as an element for an HTML page: without a size of its own, foreign addresses and idle ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    body = re.sub(r"<metadata>.*?</metadata>", "", stream.getvalue(), flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # would hold for the whole page
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda colour: _named(colour[0]), body)
    view_box = re.search(r'viewBox="[^"]*"', body)
    head = f'<svg role="img" aria-label="{description}" {view_box[0] if view_box else ""}>'
    return Html(head + body[body.index(">", body.index("<svg")) + 1 :].strip())


def _named(colour: str) -> str:
    return f"var(--{_NAMES[colour]})" if colour in _NAMES else colour


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows of horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.yaxis.set_inverted(True)


def label_bars(axes: Axes, rows: Iterable[float], ends: Iterable[float], labels: Iterable[str], **look: Any) -> None:
    """Writes a label behind each horizontal bar."""
    for row, end, label in zip(rows, ends, labels, strict=True):
        axes.annotate(label, (end, row), xytext=(4, 0), textcoords="offset points", va="center", **look)


def legend_above(figure: Figure, axes: Axes) -> None:
    """The names of a figure's colours, above it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), borderaxespad=0)
