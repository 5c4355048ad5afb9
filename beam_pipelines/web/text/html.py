"""The text of a page: its main content, with code fenced and as it was written."""

import re
from typing import NamedTuple

import numba
import numpy as np
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import ElementNode, HTMLTree

from opencoder_jax.beam_pipelines.web.text.code_blocks import Block, blocks

MOST_BYTES = 8_000_000  # of a page

# Stands for a block while the rest is extracted. A page that has such characters itself keeps them.
_PLACE = "\ue0f0{}\ue0f1"
_PLACED = re.compile("[ \t]*\ue0f0(\\d+)\ue0f1[ \t]*")
_LINKED = 0.5  # of a list's letters, at most, where it's content; …
_KEPT, _NEAR = 0.2, 3  # … and what resiliparse keeps: fewer linked ones, with so many elements around it, at least
_DEPTH = 2_000
_NAME = 8  # bytes of a tag's name that are looked at
# Tags without an end, or whose end is often left out; each name as a number in base 256.
_NO_END = "area base br col embed hr img input link meta source track wbr p li dt dd td tr th option"
_VOID = np.array([int.from_bytes(tag.encode()) for tag in _NO_END.split(" ")], np.uint64)


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
    _keep_lists(tree, tree.body)
    found = blocks(tree)
    for number, block in enumerate(found):
        if (place := tree.create_element("p")) is not None:
            place.text = _PLACE.format(number)
            block.node.replace_with(place)
    title = (tree.title or "").strip()
    text = extract_plain_text(tree, preserve_formatting=True, main_content=True, alt_texts=False, list_bullets=True)
    waiting = {str(number): block for number, block in enumerate(found)}
    shown: list[Block] = []

    def put(match: re.Match[str]) -> str:
        block = waiting.pop(match[1], None)
        if block is None:  # the page's own characters
            return match[0]
        shown.append(block)
        return block.fenced()

    text = _PLACED.sub(put, text)
    return PageText(title, text.strip(), sum(len(block.text.encode("utf-8", "replace")) for block in shown))


def _keep_lists(tree: HTMLTree, body: ElementNode) -> None:
    """Calls lists of content that extraction would drop by a name that it keeps: `menu`, whose items look the same.

    It drops a `ul` that stands near the body, or a fifth of which is links: also lists of prose, members and options.
    """
    lists = body.query_selector_all("ul")[:]
    at = 0
    while at < len(lists):
        outer = lists[at]
        within = lists[at : at + 1 + len(outer.query_selector_all("ul")[:])]  # in the page's order
        at += len(within)
        letters, linked = _letters(outer), sum(_letters(link) for link in outer.query_selector_all("a")[:])
        if linked > _LINKED * letters or (linked <= _KEPT * letters and _is_deep(outer)):
            continue
        for node in within:
            menu = tree.create_element("menu")
            if isinstance(menu, ElementNode):
                for name in node.attrs:
                    menu.set_attribute(name, node.getattr(name) or "")
                while (child := node.first_child) is not None:
                    menu.append_child(child)
                node.replace_with(menu)


def _is_deep(node: ElementNode) -> bool:
    """Whether so much lies between it and the body that extraction asks for no more than its links."""
    parent = node.parent_element
    for _ in range(_NEAR):
        if parent is None or parent.tag == "body":
            return False
        parent = parent.parent_element
    return True


def _letters(node: ElementNode) -> int:
    """How many characters of text it has that are no white space."""
    return sum(map(len, (node.text or "").split()))


def _depth(content: bytes) -> int:
    """How deep tags that want an end are nested, about, where it may be deep; no parser is asked before."""
    if content.count(b"<") <= _DEPTH:
        return 0  # not deep, however they are nested
    return int(_deepest(np.frombuffer(content, np.uint8), _VOID))


@numba.njit(cache=True, nogil=True)
def _deepest(content: np.ndarray, void: np.ndarray) -> int:
    depth = deepest = 0
    for place in range(len(content) - 1):
        if content[place] != 60:  # <
            continue
        at = place + 1
        closing = content[at] == 47  # /
        if closing:
            at += 1
        name = np.uint64(0)
        for letter in content[at : at + _NAME]:
            small = letter | 32
            if not (97 <= small <= 122 or (name and 48 <= letter <= 57)):
                break
            name = (name << np.uint64(8)) | np.uint64(small)
        if name == 0 or _has(void, name):
            continue
        depth = max(0, depth - 1) if closing else depth + 1
        deepest = max(deepest, depth)
    return deepest


@numba.njit(cache=True, nogil=True)
def _has(names: np.ndarray, name: np.uint64) -> bool:
    for each in names:  # noqa: SIM110  numba compiles no generator
        if each == name:
            return True
    return False
