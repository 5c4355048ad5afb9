"""Where the comments and strings of a program lie, by one regular expression a family of languages.

This is no lexer: it knows how comments and strings begin and end and nothing else, which is what the signals and the
removal of licence headers need, for some 180 languages instead of the few that a parser is at hand for. Every pattern
matches what it starts (an unclosed string ends with its line, an unclosed comment with the file) and uses possessive
repeats, so a scan is linear in the text whatever the text is: 20 to 40 MB/s.

comment_syntax.json holds the families. A marker that begins with a blank counts at the start of a word only (`$#` is no
comment in a shell), one that begins with a line break at the start of a line only.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Span(NamedTuple):
    """A comment or string: text[start:stop], its marks included."""

    start: int
    stop: int
    kind: str  # "comment" | "string" | "docstring"


@cache
def _syntax() -> tuple[dict[str, Any], dict[str, str]]:
    table = json.loads(Path(__file__).with_name("comment_syntax.json").read_text(encoding="utf-8"))
    return table["families"], {name: family for family, names in table["languages"].items() for name in names}


def has_syntax(language: str) -> bool:
    """Whether the comments of a language are known."""
    return language in _syntax()[1]


def line_markers(language: str) -> tuple[str, ...]:
    """What begins a comment that ends with its line, in this language."""
    families, languages = _syntax()
    return tuple(marker.strip() for marker in families[languages[language]]["line"]) if language in languages else ()


def scan(text: str, language: str) -> Iterator[Span]:
    """The comments and strings of a text in order; none where the language's syntax isn't known.

    A string that stands alone at the start of a line, in three quotes, is a "docstring" in the Python family.
    """
    families, languages = _syntax()
    if language in languages:
        for match in _pattern(languages[language]).finditer(text):
            yield Span(*match.span(), match.lastgroup or "")


@cache
def _pattern(family: str) -> re.Pattern[str]:
    syntax = _syntax()[0][family]
    comments = [_block(*markers) for markers in syntax["block"]]
    comments += [_anchored(marker) + r"[^\n]*+" for marker in syntax["line"]]
    strings = [_string(quote) for quote in syntax["strings"]]
    groups = []
    if syntax.get("docstrings"):
        groups.append(rf"(?P<docstring>^[ \t]*+[rRuUbB]{{0,2}}+(?:{_string(chr(34) * 3)}|{_string(chr(39) * 3)}))")
    groups.append(f"(?P<comment>{'|'.join(comments)})")
    if strings:
        groups.append(f"(?P<string>{'|'.join(strings)})")
    return re.compile("|".join(groups), re.DOTALL | re.MULTILINE)


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
