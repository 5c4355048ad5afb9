"""HTML from data, safe by construction: whatever isn't `Html` is text, and text is escaped.

A few functions suffice for the pages of all reports: an element, a table, a section. They return `Html`, so that they
nest. A page is one file: its stylesheet (style.css, for light and dark screens of any width) stands in its head.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

STYLESHEET = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


class Html(str):
    """Text that is HTML already. Only the functions here, and pictures that we draw ourselves, make it."""

    __slots__ = ()


Content = str | int | float | None

NONE = "–"  # stands in a table for what there is none of

_ALIGNMENTS = {"l": "text", "r": "number"}
_META = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'


def markup(*contents: Content) -> Html:
    """Contents one after the other: text escaped, HTML as it is, whole numbers with thousands separated."""
    return Html("".join(map(_markup, contents)))


def _markup(content: Content) -> str:
    match content:
        case Html():
            return content
        case None:
            return NONE
        case int():
            return f"{content:,}"
        case _:
            return html.escape(str(content))


def element(tag: str, *contents: Content, **attributes: str) -> Html:
    """`<tag attribute="…">contents</tag>`; a trailing underscore of an attribute's name is dropped (`class_`)."""
    words = "".join(f' {name.rstrip("_")}="{html.escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{words}>{markup(*contents)}</{tag}>")


def paragraph(*contents: Content) -> Html:
    """A paragraph."""
    return element("p", *contents)


def note(*contents: Content) -> Html:
    """A remark in smaller letters: how to read what stands above it, or why there's nothing."""
    return element("p", *contents, class_="note")


def table(alignment: str, heads: Sequence[str], rows: Iterable[Sequence[Content]]) -> Html:
    """A table.

    Args:
        alignment: a letter a column, as in LaTeX: "l" is text to the left, "r" are numbers to the right.
        heads: what the columns are called, units included.
    """
    classes = [_ALIGNMENTS[letter] for letter in alignment]

    def row(tag: str, cells: Sequence[Content]) -> Html:
        aligned = zip(classes, cells, strict=True)
        return element("tr", *(element(tag, cell, class_=name) for name, cell in aligned))

    body = element("tbody", *(row("td", cells) for cells in rows))
    return element("div", element("table", element("thead", row("th", heads)), body), class_="scroll")


def fold(summary: str, *contents: Content) -> Html:
    """Contents that show when their summary is clicked."""
    return element("details", element("summary", summary), *contents)


def figure(svg: Html, caption: str) -> Html:
    """A picture with its caption."""
    return element("figure", element("div", svg, class_="scroll"), element("figcaption", caption))


class Section(NamedTuple):
    """A chapter of the page."""

    anchor: str
    title: str
    body: Html


def section(anchor: str, title: str, *contents: Content) -> Section:
    """A chapter with these contents, to which `#anchor` leads."""
    return Section(anchor, title, markup(*contents))


def page(title: str, opening: Html, sections: Sequence[Section]) -> Html:
    """A whole document: title, opening, a list of the sections where there are several, the sections."""
    head = element("head", Html(_META), element("title", title), element("style", Html(STYLESHEET)))
    links = element("nav", *(element("a", name, href=f"#{anchor}") for anchor, name, _ in sections))
    chapters = [element("section", element("h2", name), body, id=anchor) for anchor, name, body in sections]
    main = element("main", element("h1", title), opening, *([links] if len(sections) > 1 else []), *chapters)
    return Html("<!doctype html>\n" + element("html", head, element("body", main), lang="en") + "\n")


# --- numbers for people


def megabytes(size: float) -> str:
    """Bytes as megabytes (10^6), all with two digits, so that they align in a column."""
    return f"{size / 1e6:,.2f}" if size >= 5_000 or size == 0 else "< 0.01"


def percent(share: float) -> str:
    """A share in 0 .. 1 as per cent."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:,.0f} min {seconds % 60:02.0f} s"


def compact(number: float) -> str:
    """Three digits and a unit: 12.3 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
