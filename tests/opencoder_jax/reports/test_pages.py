"""Pages and pictures: text stays text, colours follow the page's theme, the same data gives the same bytes."""

import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from opencoder_jax.reports import svg
from opencoder_jax.reports.page import STYLESHEET, Html, element, page, section, table

DAY, NIGHT = re.findall(r":root \{(.*?)\}", STYLESHEET, re.DOTALL)


@settings(max_examples=50)
@given(st.text(), st.text())
def test_text_comes_back_as_it_was(cell: str, attribute: str) -> None:
    read: dict[str, str] = {"text": "", "title": ""}

    class Cells(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag in ("div", "table", "thead", "tbody", "tr", "th", "td", "b")
            read["title"] += dict(attributes).get("title") or ""

        def handle_data(self, data: str) -> None:
            read["text"] += data

    reader = Cells()
    reader.feed(table("l", [""], [[element("b", cell, title=attribute)]]))
    reader.close()
    assert read == {"text": cell, "title": attribute}


def test_only_html_stays_as_it_is() -> None:
    assert element("p", "<i>", Html("<i>"), 12345, None) == "<p>&lt;i&gt;<i>12,345–</p>"


def test_a_page_lists_its_sections_where_there_are_several() -> None:
    one, two = section("a", "A & B", 1), section("b", "B", 2)
    assert "<nav>" not in page("title", Html(), [one])
    assert '<nav><a href="#a">A &amp; B</a><a href="#b">B</a></nav>' in page("title", Html(), [one, two])


@svg.drawing("A picture of everything")
def everything(colour: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    for number, series in enumerate(svg.SERIES):
        axes.barh(number, number, color=series, label=f"${number}")
    svg.label_bars(axes, [1, 2], [1, 2], ["one", "two"], color=svg.ON_BAR)
    axes.plot([0, 1], "o", mec=svg.RED, mfc=svg.PAPER)
    axes.fill_between([0, 1], 1, color=colour)
    svg.name_rows(axes, [str(number) for number in range(len(svg.SERIES))])
    svg.legend_above(figure, axes)
    return figure


def test_every_colour_has_a_name_and_a_value_by_day_and_by_night() -> None:
    named = set(re.findall(r"var\(--([a-z-]+)\)", STYLESHEET + everything(svg.PALE_RED)))
    assert {"paper", "ink", "on-bar", *(name for name, colour in svg.COLOURS.items() if colour in svg.SERIES)} <= named
    for theme in (DAY, NIGHT):
        assert named <= set(re.findall(r"--([a-z-]+): #[0-9a-f]{6};", theme))
    assert len(set(svg.COLOURS.values())) == len(svg.COLOURS)


def test_a_picture_holds_no_colour_of_its_own_but_a_foreign_one() -> None:
    assert not re.search(r": #[0-9a-f]{6}", everything(svg.PALE_RED))
    assert ": #123456" in everything("#123456")


def test_a_picture_is_the_same_bytes_each_time() -> None:
    assert everything(svg.BLUE) == everything(svg.BLUE)
