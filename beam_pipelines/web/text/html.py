"""The text of a page: its main content, with code fenced and as it was written."""

import re
from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from opencoder_jax.beam_pipelines.web.text.code_blocks import blocks

MOST_BYTES = 8_000_000  # of a page

# Stands for a block while the rest is extracted: no page has these characters.
_PLACE = "\ue0f0{}\ue0f1"
_PLACED = re.compile("[ \t]*\ue0f0(\\d+)\ue0f1[ \t]*")
_DEPTH = 2_000
_TAGS = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_VOID = frozenset(b"area base br col embed hr img input link meta source track wbr p li dt dd td tr th option".split())


class TooDeep(ValueError):
    """A page nests deeper than any person writes."""


class PageText(NamedTuple):
    """A page's title and text; `code` is how many bytes of it are in fences."""

    title: str
    text: str
    code: int


def page_text(content: bytes, charset: str = "") -> PageText:
    """The text of an HTML page.

    Args:
        content: at most MOST_BYTES of it are read.
        charset: that the server named.

    Raises:
        TooDeep: the page nests deeper than any person writes.
    """
    content = content[:MOST_BYTES]
    if _depth(content) > _DEPTH:
        raise TooDeep("nested too deep")
    named = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    encoding = named or detect_encoding(content, from_html_meta=True) or "utf-8"
    tree = HTMLTree.parse_from_bytes(content, encoding)
    if tree.body is None:
        return PageText("", "", 0)
    found = blocks(tree)
    for number, block in enumerate(found):
        if (place := tree.create_element("p")) is not None:
            place.text = _PLACE.format(number)
            block.node.replace_with(place)
    title = (tree.title or "").strip()
    text = extract_plain_text(tree, preserve_formatting=True, main_content=True, alt_texts=False, list_bullets=True)
    shown = [int(number) for number in _PLACED.findall(text)]
    text = _PLACED.sub(lambda match: found[int(match[1])].fenced(), text)
    return PageText(title, text.strip(), sum(len(found[number].text.encode()) for number in shown))


def _depth(content: bytes) -> int:
    """How deep tags that want an end are nested, about; no parser is asked before this is known."""
    depth = deepest = 0
    for closing, tag in _TAGS.findall(content):
        if tag.lower() in _VOID:
            continue
        depth = max(0, depth - 1) if closing else depth + 1
        deepest = max(deepest, depth)
    return deepest
