"""Text of pages: code comes out as it went in, whatever laid it out, and no page is too odd."""

import inspect
import json
import textwrap

import pytest

from opencoder_jax.beam_pipelines.web.text.html import page_text
from tests.beam_pipelines.web.layouts import LAYOUTS, laid_out, page

SOURCES = {
    "blank lines and signs": 'def f(x):\n    """Doc <a> & b."""\n    if x > 1:\n\n        return [x]\n    return 2',
    "the library's": textwrap.dedent(inspect.getsource(json.dumps)).rstrip("\n"),
    "numbers alone": "1\n22\n\n333",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SOURCES)
def test_code_comes_out_as_it_went_in(layout: str, name: str) -> None:
    if name == "numbers alone" and layout in ("a row a line", "highlight.js with line numbers"):
        pytest.skip("nothing tells these numbers from those of the lines")
    found = page_text(laid_out(layout, SOURCES[name]))
    assert f"\n{SOURCES[name]}\n```" in found.text
    assert found.title == "A page"
    assert found.text.startswith("Head")
    assert "Home" not in found.text
    assert "Copy" not in found.text
    assert found.code == len(SOURCES[name].encode())


@pytest.mark.parametrize(
    "layout", ["pre and code", "spans of Pygments", "copy button", "lines of Chroma", "gutter of Rouge"]
)
def test_the_language_is_named_where_the_page_does(layout: str) -> None:
    assert "\n```python\n" in page_text(laid_out(layout, "x = 1")).text


def test_a_fence_is_longer_than_those_in_the_code() -> None:
    text = page_text(laid_out("pre", "````\n```")).text
    assert "`````\n````\n```\n`````" in text


def test_what_is_no_code_is_no_block() -> None:
    rows = "".join(f"<tr><td>{name}</td><td>{number}</td></tr>" for number, name in enumerate(("apples", "pears")))
    assert "```" not in page_text(page(f"<table>{rows}</table><ol><li>one</li></ol><div>two</div>")).text
    assert "a short `x`" in page_text(page("<p>a short <code>`x`</code></p>")).text


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [
        ("<p>naïve café".encode("latin-1"), "iso-8859-1", "naïve café"),
        ("<meta charset=shift_jis><p>日本語のページ".encode("shift_jis"), "", "日本語のページ"),
        ("<p>naïve café".encode(), "no-such-charset", "naïve café"),
    ],
)
def test_character_sets(content: bytes, charset: str, text: str) -> None:
    assert text in page_text(b"<html><body><main>" + content, charset).text


@pytest.mark.parametrize("content", [b"", b"\0" * 100, bytes(range(256)), b"<", b"<pre>", b"<table class=code><tr>"])
def test_odd_pages_are_pages(content: bytes) -> None:
    assert isinstance(page_text(content).text, str)


@pytest.mark.parametrize("tag", ["div", "pre", "span"])
def test_nesting_that_no_person_writes_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        page_text(f"<{tag}>".encode() * 100_000)


def test_many_blocks_take_time_in_proportion() -> None:
    """A look that costs the whole page for each block would take minutes."""
    found = page_text(
        b"<table class=highlight>" + b"<tr><td>1<td><pre>x</pre>" * 5_000 + b"</table>" + b"<pre>y</pre>" * 2_000
    )
    assert found.code >= 4_000
