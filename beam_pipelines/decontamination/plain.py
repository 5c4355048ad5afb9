"""What a text says, however it's typed and whatever it's wrapped in: problems and documents are both read through here.

Undone, in this order: HTML's entities; the escapes of JSON and of string literals, to any depth; HTML's tags; borders
between the literals of one string (`"…\\n" + "…"`, a notebook's list of lines); line numbers; and, by NFKC, the many
ways to write a letter, a space or a quote. Characters of scripts that put no spaces between words become words.

A step is a list of replacements, so that a place in what was read can be found again in the document.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
from numba import njit

# Scripts without spaces: Thai and its neighbours, kana, Han.
SPACELESS = re.compile(
    "[\u0e00-\u0eff\u0f40-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)

Edits = list[tuple[int, int, str]]  # what lies from … to … becomes …

_ENTITY = re.compile(r"&(?:amp;)*(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# A pattern that begins with one character, not with a number of them, is looked for at the speed of memory.
_ESCAPE = re.compile(
    r"\\\\*+(?:u[0-9a-fA-F]{4}(?:\\+u[0-9a-fA-F]{4})*+|u\{[0-9a-fA-F]{1,6}\}|x[0-9a-fA-F]{2}|[ntr/\"'])"
)
_CODE_UNIT = re.compile(r"u([0-9a-fA-F]{4})")
_SPACES = {"n": "\n", "r": "\n", "t": "\t"}
_TAG = re.compile(
    r"</?(?:p|br|hr|a|b|i|u|em|strong|code|pre|kbd|tt|var|span|div|font|sup|sub|ul|ol|li|table|tr|td|th|tbody|thead|"
    r"h[1-6]|blockquote|section|img)(?:\s[^<>\n]*)?\s*/?>"
)
# One literal ends where the next begins: after a line break that is part of it, or between the lines of a sum.
_BORDER = re.compile(
    r"([\"'])(?:(?<=\n.)(?:\s*[,+]\s*|\s+)|(?<![\"'].)[ \t]*(?:\+[ \t]*\n|\n\s*\+)\s*)\1(?!\1)",
)
_NUMBERED = re.compile(r"\n[^\S\n]*[\[(]?(\d{1,6})(?:[^\S\n]*[\])|:.>\u2192](?!\d)|[^\S\n]|(?=\n|\Z))")
_NUMBERED_LINES = 2  # in a row, from which on they aren't part of what is said
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_TYPED = {
    "'": "\u2018\u2019\u201a\u201b\u2032",
    '"': "\u201c\u201d\u201e\u201f\u2033",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2212",
}


def plain(text: str) -> str:
    """The text as it would have been typed."""
    for step in _STEPS:
        if edits := step(text):
            text = _edited(text, edits)
    return text


def origins(text: str, *places: int) -> tuple[int, ...]:
    """Where in a text that begins which stands at some places of `plain(text)`."""
    made = []
    for step in _STEPS:
        if edits := step(text):
            made.append(edits)
            text = _edited(text, edits)
    for edits in reversed(made):
        places = tuple(_before(edits, place) for place in places)
    return places


def _edited(text: str, edits: Edits) -> str:
    parts: list[str] = []
    done = 0
    for start, stop, said in edits:
        parts += (text[done:start], said)
        done = stop
    return "".join((*parts, text[done:]))


def _before(edits: Edits, place: int) -> int:
    grown = 0
    for start, stop, said in edits:
        if place < start + grown:
            break
        if place < start + grown + len(said):
            return start + (place - start - grown) * (stop - start) // len(said)
        grown += len(said) - (stop - start)
    return place - grown


def _replaced(pattern: re.Pattern[str], said: Callable[[str], str]) -> Callable[[str], Edits]:
    said = _remembered(said)
    return lambda text: [(*match.span(), said(match.group())) for match in pattern.finditer(text)]


def _remembered(said: Callable[[str], str]) -> Callable[[str], str]:
    """The same, and quicker of what is short and comes again."""
    kept = lru_cache(100_000)(said)
    return lambda what: (kept if len(what) <= 32 else said)(what)


def _entity(entity: str) -> str:
    while (said := html.unescape(entity)) != entity:
        entity = said
    return said


def _escape(escape: str) -> str:
    kind = escape.lstrip("\\")
    if kind[0] in "ux" and kind[-1] != "}":
        units = _CODE_UNIT.findall(escape) or [f"00{kind[1:]}"]
        return bytes.fromhex("".join(units)).decode("utf-16-be", "replace")
    if kind[0] == "u":
        code = int(kind[2:-1], 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else " "
    return _SPACES.get(kind, kind)


def _where(possible: Callable[[np.ndarray], bool], step: Callable[[str], Edits], text: str) -> Edits:
    """What a step does to a text where it may do anything, as a quick look tells."""
    return step(text) if possible(np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)) else []


@njit(cache=True, nogil=True)
def _may_border(data):  # type: ignore[no-untyped-def]
    """Whether UTF-8 has a quote that _BORDER may begin with; what isn't ASCII may be a space."""
    for place in range(len(data) - 1):
        if data[place] != 34 and data[place] != 39:
            continue
        at = place + 1
        if place and data[place - 1] == 10 and (data[at] <= 32 or data[at] >= 128 or data[at] in (43, 44)):
            return True
        while at < len(data) - 1 and data[at] in (9, 32):
            at += 1
        if data[at] == 43:
            at += 1
            while at < len(data) - 1 and data[at] in (9, 32):
                at += 1
            if data[at] == 10:
                return True
        elif data[at] == 10:
            while at < len(data) - 1 and (data[at] <= 32 or data[at] >= 128):
                at += 1
            if data[at] == 43:
                return True
    return False


@njit(cache=True, nogil=True)
def _may_count(data):  # type: ignore[no-untyped-def]
    """Whether two lines of UTF-8 in a row may begin with numbers; what isn't ASCII may be a space or a digit."""
    before, at = False, 0
    while at < len(data):
        foreign = False
        while at < len(data) and (data[at] >= 128 or (data[at] <= 32 and data[at] != 10)):
            foreign |= data[at] >= 128
            at += 1
        at += at < len(data) and (data[at] == 40 or data[at] == 91)
        counts = foreign or (at < len(data) and (48 <= data[at] <= 57 or data[at] >= 128))
        if counts and before:
            return True
        before = counts
        while at < len(data) and data[at] != 10:
            at += 1
        at += 1
    return False


def _line_numbers(text: str) -> Edits:
    runs = [run for run in _counted(f"\n{text}") if len(run) >= _NUMBERED_LINES]
    return [(match.start(), match.end() - 1, "") for run in runs for match in run]


def _counted(text: str) -> Iterator[list[re.Match[str]]]:
    """Lines one after the other that begin with numbers one after the other."""
    run: list[re.Match[str]] = []
    for match in _NUMBERED.finditer(text):
        if run and (int(match[1]) != int(run[-1][1]) + 1 or text.find("\n", run[-1].end()) != match.start()):
            yield run
            run = []
        run.append(match)
    yield run


class _Characters(dict[int, str]):
    """What is typed for a character, worked out when first asked for."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        said = character if code < 0x80 or kind[0] in "LMN" else " "
        # Of no width: marks of format, selectors of variants, fillers.
        if kind == "Cf" or 0xFE00 <= code <= 0xFE0F or code in (0x034F, 0x115F, 0x1160):
            said = ""
        self[code] = said
        return said


_CHARACTERS = _Characters({ord(one): said for said, many in _TYPED.items() for one in many})


def _foreign(text: str) -> Edits:
    edits: Edits = []
    if text.isascii():
        return edits
    for match in _FOREIGN.finditer(text):
        start, stop = match.span()
        start -= start > 0 and unicodedata.combining(text[start]) > 0  # it belongs to the letter before
        edits.append((start, stop, _typed(text[start:stop])))
    return edits


@_remembered
def _typed(foreign: str) -> str:
    return SPACELESS.sub(r" \g<0> ", unicodedata.normalize("NFKC", foreign).translate(_CHARACTERS))


_STEPS: tuple[Callable[[str], Edits], ...] = (
    _replaced(_ENTITY, _entity),
    _replaced(_ESCAPE, _escape),
    _replaced(_TAG, lambda tag: " "),
    partial(_where, _may_border, _replaced(_BORDER, lambda border: "\n")),
    partial(_where, _may_count, _line_numbers),
    _foreign,
)
