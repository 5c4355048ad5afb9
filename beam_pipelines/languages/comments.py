"""Where the comments and strings of a program lie, by one regular expression a family of languages.

This is no lexer: it knows how comments and strings begin and end and nothing else, which is what the signals and the
removal of licence headers need, for some 670 languages instead of the few that a parser is at hand for. Every pattern
matches what it starts (an unclosed string ends with its line, an unclosed comment with the file) and uses possessive
repeats, so a scan is linear in the text whatever the text is: 20 to 40 MB/s.

comment_syntax.json holds the families. A marker that begins with a blank counts at the start of a word only (`$#` is no
comment in a shell), one that begins with a line break at the start of a line only. JavaScript's literals of regular
expressions are passed over where a slash cannot divide.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Lexeme(NamedTuple):
    """A comment or string: text[start:stop], its marks included."""

    start: int
    stop: int
    kind: str  # "comment" | "string" | "docstring"


@cache
def _syntax() -> tuple[dict[str, Any], dict[str, str]]:
    table = json.loads(Path(__file__).with_name("comment_syntax.json").read_text(encoding="utf-8"))
    return table["families"], {name: family for family, names in table["languages"].items() for name in names}


def line_markers(language: str) -> tuple[str, ...]:
    """What begins a comment that ends with its line, in this language."""
    families, languages = _syntax()
    return tuple(marker.strip() for marker in families[languages[language]]["line"]) if language in languages else ()


def closing_mark(comment: str, language: str) -> int:
    """Where the mark that closes a block comment begins in it; its length where none does."""
    families, languages = _syntax()
    for start, stop in families[languages[language]]["block"] if language in languages else ():
        if comment.startswith((start.strip(" "), start.strip())):
            if stop[0] == "\n" and (place := comment.rfind(stop)) > 0:  # the rest of its line belongs to it
                return place
            if comment.endswith(stop) and len(comment) >= len(start) + len(stop):
                return len(comment) - len(stop)
    return len(comment)


def code(text: str, language: str) -> str:
    """What stands outside comments and docstrings, without blanks: two texts with the same run the same."""
    pieces, last = [], 0
    for start, stop, kind in scan(text, language):
        if kind != "string":
            pieces.append(text[last:start])
            last = stop
    return "".join("".join([*pieces, text[last:]]).split())


def scan(text: str, language: str) -> Iterator[Lexeme]:
    """The comments and strings of a text in order; none where the language's syntax isn't known.

    A string in three quotes that begins a line is a "docstring" in the Python family.
    """
    families, languages = _syntax()
    if language not in languages:
        return
    family = languages[language]
    quotes = tuple(families[family]["strings"])
    documented = families[family].get("docstrings", False)
    expressions = families[family].get("expressions", False)
    for match in _pattern(family).finditer(text):
        start, stop = match.span()
        if expressions and text[start] == "/" and not text.startswith(("//", "/*"), start):
            continue
        if not text.startswith(quotes, start) or not quotes:
            yield Lexeme(start, stop, "comment")
        elif documented and text.startswith(_TRIPLE, start) and _begins_line(text, start):
            yield Lexeme(start, stop, "docstring")
        else:
            yield Lexeme(start, stop, "string")


# A literal of a regular expression, in which quotes and comments' marks may stand: a slash where no operator can.
# Its length is bounded, as an unclosed one is looked for anew at each slash.
_BEFORE_EXPRESSION = r"(?:(?<=[(,=:\[!&|?{;])|(?<=[(,=:\[!&|?{;] )|(?<=\breturn ))"
_EXPRESSION = _BEFORE_EXPRESSION + r"/(?![*/])(?:[^/\\\[\n]|\\[^\n]|\[(?:[^\]\\\n]|\\[^\n]){0,200}+\]){1,1000}+/"

_TRIPLE = ('"""', "'''")


def _begins_line(text: str, start: int) -> bool:
    """Whether nothing but blanks and a string's prefix stands before `start` in its line."""
    return not text[text.rfind("\n", 0, start) + 1 : start].strip().strip("rRuUbB")


@cache
def _pattern(family: str) -> re.Pattern[str]:
    # No groups: alternatives that begin with plain characters let `re` skip to the next of them.
    syntax = _syntax()[0][family]
    comments = [_block(*markers) for markers in syntax["block"]]
    comments += [_anchored(marker) + r"[^\n]*+" for marker in syntax["line"]]
    strings = [*map(_string, syntax["strings"]), *([_EXPRESSION] if syntax.get("expressions") else [])]
    return re.compile("|".join([*comments, *strings]), re.DOTALL | re.MULTILINE)


def _anchored(marker: str) -> str:
    where = {" ": r"(?<!\S)", "\n": "^"}.get(marker[0], "")
    return where + re.escape(marker[1:] if where else marker)


def _block(start: str, stop: str) -> str:
    first, rest = re.escape(stop[0]), re.escape(stop[1:])
    inner = rf"[^{first}]++|{first}(?!{rest})" if rest else rf"[^{first}]++"
    end = rf"{first}{rest}[^\n]*+" if stop[0] == "\n" else first + rest
    return rf"{_anchored(start)}(?:{inner})*+(?:{end})?+"


def _string(quote: str) -> str:
    if len(quote) == 3:
        return rf"{quote}(?:[^{quote[0]}\\]++|\\.|{quote[0]}(?!{quote[1:]}))*+(?:{quote})?+"
    stops = quote if quote == "`" else quote + r"\n"
    return rf"{quote}(?:[^{stops}\\]++|\\.)*+{quote}?+"
