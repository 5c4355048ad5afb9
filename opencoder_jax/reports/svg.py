"""What our pictures have in common: colours, a style, and SVG that is the same bytes each time.

Letters stay letters (`svg.fonttype: none`), so the pictures take the page's font and can be searched. No pyplot: there
is no global figure, and no display is needed.
"""

import io
import re

from matplotlib.figure import Figure

from opencoder_jax.reports.page import Html

INK, MUTED, GRID = "#1d2733", "#66717f", "#e3e7ec"
BLUE, PALE_BLUE, RED, PALE_RED = "#2b5c8a", "#b3c9de", "#b4533c", "#ecc9bf"
# Tellable apart by the colour-blind (after Okabe and Ito), subdued to the page's tone.
SERIES = (BLUE, "#d18f2e", "#4a9a7d", "#a4688f", "#7f8c99", "#8ab4d8")

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
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def svg(figure: Figure, description: str) -> Html:
    """The figure as an element for an HTML page: without a size of its own, foreign addresses and idle ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    body = re.sub(r"<metadata>.*?</metadata>", "", stream.getvalue(), flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # would hold for the whole page
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    view_box = re.search(r'viewBox="[^"]*"', body)
    head = f'<svg role="img" aria-label="{description}" {view_box[0] if view_box else ""}>'
    return Html(head + body[body.index(">", body.index("<svg")) + 1 :].strip())
