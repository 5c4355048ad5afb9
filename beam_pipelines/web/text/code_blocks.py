"""Code in pages: found in whatever a highlighter made of it, and given back as it went in.

Extractors of text lose code in tables, put line numbers into it or drop its indentation. So each block is read off the
tree before the text is extracted, and put in afterwards, fenced, with the language that the page names.

What a block may be: `pre`, also with a `code` in it; a table whose cells hold line numbers and code, in one `pre` each
or a row a line; lines as `div`s or list items; `code` with `br` or lines in it; `textarea`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from resiliparse.parse.html import DOMNode, ElementNode, HTMLTree

_MARK = "data-block"
NODES = 200_000  # of one block, at most: the rest isn't looked at


# Names of classes.
def _word(*names: str) -> re.Pattern[str]:
    """One of these, between spaces, hyphens and underscores."""
    return re.compile(rf"(?:^|[-_ ])(?:{'|'.join(names)})(?:$|[-_ ])")


_NUMBERS = _word("linenos?", "line-?numbers?", "lnt?", "gutter", "blob-num", "line-num", "no")
_NUMBERED = re.compile(r"hljs-ln-(?:numbers|n)|lineno|linenos|gutter|blob-num|line-?number")
_BUTTONS = re.compile(r"copy|clipboard|toolbar|btn\b|button")
_LINE = _word("line", "code-line", "cl", "view-line", "highlight-line", "token-line", "hljs-ln-code", "blob-code")
_LANGUAGE = re.compile(r"(?:^|\s)(?:lang|language|highlight|brush:|sourcecode|code|hljs|src)[-: ]\s*([\w+#.-]{1,20})")
_NO_LANGUAGES = ("default", "text", "plaintext", "none", "source", "block", "box", "wrapper", "container", "toolbar")
_CODE_TABLE = re.compile(r"highlight|hljs|rouge|code|gutter|syntax|blob|linenos")
_BLOCK_TAGS = frozenset({"div", "p", "li", "tr"})

# What may be a block, and what in a block is more than text: selectors, which the parser's own code looks for. They may
# find too much, never too little.
_MAY_BE = (
    "table, pre, textarea, ol[class], code:has(br, div, li), "
    'div[class*="code" i], div[class*="syntaxhighlighter" i], div[class*="view-lines" i]'
)
_PARTS = ("line", "ln", "no-", "no_", "-no", "_no", "gutter", "blob", "cl", "copy", "clip", "toolbar", "btn", "button")
_SPECIAL = ", ".join(
    [
        "br, button, script, style, svg",
        *sorted(_BLOCK_TAGS),
        '[class~="no" i]',
        *(f'[class*="{part}" i]' for part in _PARTS),
    ]
)


# Markup as the parser writes it back, where > stands at the end of tags alone: a text; an element that holds nothing
# but characters, and these; a tag, and its attributes.
_MARKUP = re.compile(
    r"([^<]+)|<(script|style|xmp|iframe|noembed|noframes|plaintext)(?=[ >])[^>]*>(.*?)</\2>|<!--.*?-->|<\?.*?>"
    r"|<(/?)([^\s>]+)([^>]*)>",
    re.S,
)
_CLASS = re.compile(r'(?:\s[^\s=]+="[^"]*")*?\sclass="([^"]*)"')
_DROPPED = frozenset({"button", "script", "style", "svg", "template"})
_VOID = frozenset({"area", "base", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})


class Block(NamedTuple):
    """A block of code.

    Attributes:
        node: that holds all of it.
        text: without the line's end after its last line.
        language: as the page names it, in lower case; "" where it doesn't.
    """

    node: ElementNode
    text: str
    language: str

    def fenced(self) -> str:
        """In a fence of more backticks than stand anywhere in it."""
        longest = max((len(run) for run in re.findall(r"`{3,}", self.text)), default=2)
        fence = "`" * max(3, longest + 1)
        return f"{fence}{self.language}\n{self.text}\n{fence}"


def blocks(tree: HTMLTree) -> list[Block]:
    """All blocks of a page, in its order; none lies in another. Blocks of white space alone are left out."""
    found: list[Block] = []
    # Sliced, all of them: an index into a list of nodes costs the whole list.
    for node in tree.body.query_selector_all(_MAY_BE)[:] if tree.body else ():
        # A mark, for `contains` would walk all of the other block.
        if not _is_block(node) or (found and node.closest(f"[{_MARK}]") is not None):
            continue
        text = _text_of(node)
        if text.strip():
            found.append(Block(node, text, _language(node)))
            node.set_attribute(_MARK, "")
    return found


def _is_block(node: ElementNode) -> bool:
    tag, name = node.tag, _class(node)
    if tag in ("pre", "textarea", "code"):
        return True
    if tag == "table":
        return bool(_CODE_TABLE.search(name) or _CODE_TABLE.search(_parent_class(node))) and (
            node.query_selector("pre, code, td[class*=code], td[class*=line]") is not None
        )
    if tag == "ol":
        return bool(re.search(r"linenums|hljs|syntax|code", name))
    # Lines that are divs: only where the page says that it's code.
    return bool(re.search(r"(?:^|\s)(?:codeblock|code-lines|syntaxhighlighter|view-lines|code-block)(?:$|\s)", name))


def _class(node: ElementNode) -> str:
    return (node.class_name or "").lower()


def _parent_class(node: DOMNode) -> str:
    parent = node.parent_element
    return _class(parent) if parent is not None else ""


def _text_of(node: ElementNode) -> str:
    """The code of a block: the text of its nodes, without line numbers and buttons."""
    if node.tag == "table":
        rows = node.query_selector_all("tr")[:]
        cells = [_code_cells(row) for row in rows]
        return "\n".join(_lines_of(cell) for row in cells for cell in row)
    return _lines_of(node)


def _lines_of(node: ElementNode) -> str:
    """What stands in it."""
    plain = node.query_selector(_SPECIAL) is None
    return _tidy((node.text or "") if plain else "".join(_pieces(node)))


def _code_cells(row: ElementNode) -> Sequence[ElementNode]:
    """The cells of a row that hold code: those that aren't numbers."""
    cells = row.query_selector_all("td")[:]
    if any(cell.query_selector("td") for cell in cells):
        return []  # the cells within are rows of their own
    kept = [
        cell for cell in cells if not _NUMBERED.search(_class(cell)) and not re.fullmatch(r"[\d\s.:]+", cell.text or "")
    ]
    return kept or cells[-1:]


def _pieces(top: ElementNode) -> list[str]:
    """The pieces of text below a node, without line numbers and buttons, each line of an element of its own ended.

    Read off its markup as the parser writes it back, which is well formed: a look at every node costs ten times that.
    """
    markup = top.html or ""
    found: list[str] = []
    texts: list[str] = []  # of all that stands there, with what isn't wanted
    opened: list[_Opened | str] = []  # of an element without a role its tag
    for match in islice(_MARKUP.finditer(markup, markup.find(">") + 1), NODES):
        text, raw, content, closes, tag, attributes = match.groups()
        if tag is None:
            piece = _unescaped(text) if text else content
            if piece:
                texts.append(piece)
                if raw not in _DROPPED:
                    found.append(piece)
        elif closes:
            last = opened[-1] if opened else ""
            if last == tag:
                opened.pop()
            elif isinstance(last, _Opened) and last.tag == tag:
                opened.pop()
                _close(last, found, texts)
        elif tag == "br":
            found.append("\n")
        elif tag not in _VOID:
            role = _role(tag, attributes)
            if role is None:
                opened.append(tag)
                continue
            before = len(found)
            if role.line and found and not found[-1].endswith("\n"):
                found.append("\n")
            opened.append(_Opened(tag, role, before, len(found), len(texts)))
    return found


class _Role(NamedTuple):
    """What an element in a block is: a line of its own, or, where all its text is such, none of the code."""

    line: bool
    unwanted: re.Pattern[str] | None


class _Opened(NamedTuple):
    """An element that is being read, with how many pieces there were before it, before what it holds, and of texts."""

    tag: str
    role: _Role
    before: int
    begin: int
    texts: int


def _close(element: _Opened, found: list[str], texts: list[str]) -> None:
    """Ends an element's line, or takes back what it holds."""
    unwanted = element.role.unwanted
    if unwanted is not None and unwanted.fullmatch("".join(texts[element.texts :])):
        del found[element.before :]
    elif element.role.line and (len(found) == element.begin or not found[-1].endswith("\n")):
        found.append("\n")  # the line may be empty
    if element.tag == "template":
        del texts[element.texts :]  # none of the page's


@lru_cache(1 << 12)
def _role(tag: str, attributes: str) -> _Role | None:
    """That of an element, if it has one; `attributes` as they stand in its tag."""
    match = _CLASS.match(attributes)
    name = match[1].lower() if match else ""
    texts = [".*"] if tag in _DROPPED else []
    if _NUMBERS.search(name):
        texts.append(r"[\d\s.:|]*")
    if tag in ("a", "span", "div") and _BUTTONS.search(name):
        texts.append(".{0,19}")
    unwanted = re.compile("|".join(texts), re.S) if texts else None
    line = tag in _BLOCK_TAGS or _LINE.search(name) is not None
    return _Role(line, unwanted) if line or unwanted else None


def _unescaped(text: str) -> str:
    if "&" not in text:
        return text
    return text.replace("&nbsp;", "\xa0").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _tidy(text: str) -> str:
    """Spaces that are spaces, and no line's end at the end; an HTML parser has dropped the first one of a `pre`."""
    if "\xa0" in text:
        text = re.sub(r"(?m)^\xa0$", "", text).replace("\xa0", " ")
    return text.replace("\r\n", "\n").removesuffix("\n")


def _language(node: ElementNode) -> str:
    """As one of the classes says it, of the block, what it holds or what holds it."""
    places: list[ElementNode] = [node]
    if inner := node.query_selector("code, pre"):
        places.append(inner)
    parent = node.parent_element
    for _ in range(3):
        if parent is None:
            break
        places.append(parent)
        parent = parent.parent_element
    for place in places:
        for name in (place.getattr("data-lang") or "", place.getattr("data-language") or ""):
            if re.fullmatch(r"[\w+#.-]{1,20}", name):
                return name.lower()
        for name in _LANGUAGE.findall(_class(place)):
            if name.lower() not in _NO_LANGUAGES:
                return name.lower()
    return ""
