"""Finds the names of people in comments: who wrote, maintains, signed or owns something.

A name isn't told from other words by its form, so only a place that asks for one counts: a label (`@author`,
`Maintainer:`, `作者：`), a verb with "by" (`Created by X on …`), a line `by X`, a notice of copyright, the words
before an address in angle brackets, `TODO(Jane Doe)`. There a name is two to five words with capitals, or without
case as in Chinese; a single word (`@author jdoe`) counts after a label only. A word of names.json's list of
organisations and of words such as "team" and "see" makes a stretch no name. Handles in `TODO(jdoe)` stay: they mark
work, and are module names as often.

Candidates are found from literals; only a text with candidates is scanned for its comments.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from opencoder_jax.beam_pipelines.languages.comments import scan
from opencoder_jax.beam_pipelines.redaction.seen import Seen

_PLACEHOLDER = "<name>"
# One word of a name: letters, then letters and the marks that names hold; an initial ends with a point.
_WORD = re.compile(r"[^\W\d_](?:[\w'’`-]{0,30}[\w])?(?:&\w{4,8};)?\.?(?![\w(\[/=@])")
_GAP = re.compile(r"[ \t]{1,2}")
# An address, a handle or years that may stand beside a name in a list.
_ASIDE = re.compile(
    r"[ \t]{0,4}(?:<[^<>\n]{3,80}>|\([^()\n]{1,80}\)|\[[^\[\]\n]{1,80}\])"
    r"|,[ \t]{1,4}(?:[\w.+-]{1,64}@[\w-]{1,60}\.[\w.-]{1,60}|<email>)"
)
# An address before the name: <a href="mailto:…">Jane Doe</a> · jane@doe.io (Jane Doe)
_LEAD = re.compile(r"<a\s[^<>\n]{1,200}>[ \t]?|(?:<email>|[\w.+-]{1,64}@[\w.-]{1,80})[ \t]{1,4}\(")
_SEPARATOR = re.compile(r"[ \t]{0,2}(?:[,;&/、，]|,?[ \t]and\b|,?[ \t]und\b)[ \t]{0,2}(?:and[ \t])?")
_LABEL_END = re.compile(r"(?:\(?s\)?|er|in)?(?:[ \t]{0,20}(?::{1,2}|：|=|\|)[ \t]{0,8}|>)", re.IGNORECASE)
_AFTER_TAG = re.compile(r"s?[ \t:：]{1,20}")
_YEARS = re.compile(
    r"(?:[ \t]{0,4}(?:copyright\b|\(c\)|©|holders?:|by\b|[:,;-]|–|(?:19|20)\d\d\b|\d\d?\b|present\b)){0,16}[ \t]{1,4}",
    re.IGNORECASE,
)
_BULLET = re.compile(r"[ \t]*(?:#|//|\*|--|;+|%+|!)?[ \t]*(?:[-*+•][ \t]+)?")
_BY = re.compile(r"by[ \t]{0,2}:?[ \t]{1,4}", re.IGNORECASE)
_LINE_START = re.compile(r"\W*$")
_NOT_LOCAL = re.compile(r"[^\w.+-]")  # what the part of an address before its @ doesn't hold
_BEFORE_BARE = (" ", "\t", ",", ":")
_WORDS = re.compile(r"((?:[^\W\d_][\w'’-]{0,30}\.?[ \t]{1,2}){2,5})$")
_TODO = re.compile(r"(?:todo|fixme|xxx)[ \t]?\(", re.IGNORECASE)


_ON_DATE = re.compile(
    r" on (?:\d|mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.IGNORECASE
)
_ADDRESS = re.compile(r"[ \t]{1,2}<(?:[\w.+-]{1,64}@|<email>)")
# The family's name first, in capitals, as in Japan: TAKAHASHI Masayoshi <…>
_JAPANESE = re.compile(r"[A-Z]{3,20} [A-Z][a-z]{2,20}(?:[ \t]{1,2}<(?:[\w.+-]{1,64}@|<email>)|,|[ \t]*$)", re.MULTILINE)
_FIRM = re.compile(r"[ ,]{1,2}(?:inc|ltd|llc|gmbh|corp|co|s\.a|b\.v|plc)\b", re.IGNORECASE)


@cache
def _lists() -> dict[str, Any]:
    lists = json.loads(Path(__file__).with_name("names.json").read_text(encoding="utf-8"))
    verbs = "|".join(map(re.escape, lists["labels"]["verbs"]))
    return {
        "labels": tuple(lists["labels"]["words"]),
        "verbs": re.compile(rf"\b(?:{verbs})(?:[ \t](?:and|&)[ \t]\w{{3,12}})?[ \t]{{1,2}}$"),
        "particles": frozenset(lists["particles"]),
        "not_names": frozenset(lists["not_names"]),
    }


def find_names(text: str, lower: str, language: str, seen: Seen) -> list[tuple[int, int]]:
    """The stretches of a text that are names, in order.

    Args:
        lower: the text in lower case, of the same length.
        seen: what `lower` holds.
    """
    candidates = sorted(set(_candidates(text, lower, seen)))
    if not candidates:
        return []
    found, waiting = [], iter(candidates)
    candidate = next(waiting, None)
    for span in scan(text, language):
        while candidate and candidate[0] < span.start:
            candidate = next(waiting, None)
        while candidate and candidate[0] < span.stop:
            if span.kind != "string" and candidate[1] <= span.stop:
                found.append(candidate)
            candidate = next(waiting, None)
        if candidate is None:
            break
    return found


def _candidates(text: str, lower: str, seen: Seen) -> Iterator[tuple[int, int]]:
    for label in seen.among(_lists()["labels"]):
        for place in _places(lower, label):
            yield from _labelled(text, lower, label, place)
    for place in _places(lower, "by"):
        match = _BY.match(lower, place)
        if match and not lower[place - 1 : place].isalnum():
            line = lower.rfind("\n", max(0, place - 80), place) + 1 or max(0, place - 80)
            before = lower[line:place]
            last = before.rstrip(" \t")[-1:]
            if (last.isalnum() or last == "_") and _lists()["verbs"].search(before):
                yield from _names(text, match.end(), alone="on")
            elif _LINE_START.match(before):
                yield from _names(text, match.end(), whole_line=True)
    for place in _places(lower, "@"):
        if text[place - 1 : place] == "@":
            continue  # what stands before it, the last one has found
        yield from _before_address(text, text.rfind("<", max(0, place - 64), place))
        # Jane Doe (jane@doe.io): the address follows the bracket at once.
        local = place
        while local > 0 and place - local < 64 and (text[local - 1].isalnum() or text[local - 1] in "._%+-"):
            local -= 1
        if local < place:
            yield from _before_bare(text, local)
        opened = text.rfind("(", max(0, place - 64), place)
        if opened >= 0 and not _NOT_LOCAL.search(text, opened + 1, place):
            yield from _before_address(text, opened)
    for redacted in ("<<email>>", "(<email>)"):  # the same, redacted before
        for place in _places(lower, redacted):
            yield from _before_address(text, place)
    for place in _places(lower, "<email>"):
        yield from _before_bare(text, place)
    if "(" in text and ("todo" in lower or "fixme" in lower or "xxx" in lower):
        for todo in _TODO.finditer(text):
            for start, stop in _names(text, todo.end()):
                if text.startswith(")", stop):
                    yield start, stop


def _places(lower: str, literal: str) -> Iterator[int]:
    place = lower.find(literal)
    while place >= 0:
        yield place
        place = lower.find(literal, place + len(literal))


def _labelled(text: str, lower: str, label: str, place: int) -> Iterator[tuple[int, int]]:
    end = place + len(label)
    if label in ("copyright", "(c)", "©"):
        match = _YEARS.match(text, end)
        if match and (label == "copyright" or re.search(r"\d", match[0])) and not lower[place - 1 : place].isalnum():
            yield from _names(text, match.end())
    elif label == "-by:":
        yield from _names(text, end + len(text[end : end + 4]) - len(text[end : end + 4].lstrip(" \t")))
    elif place and text[place - 1] in "@\\" and (match := _AFTER_TAG.match(text, end)):
        yield from _names(text, match.end(), alone="any")
    elif not re.match(r"[\w\"'.]", lower[place - 1 : place]) and (match := _LABEL_END.match(text, end)):
        yield from _names(text, match.end(), alone="line")
        if text.startswith("\n", match.end()) and ":" in match[0]:
            yield from _list_below(text, match.end() + 1)


def _list_below(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The names on the lines below a label, one a line, until a line that isn't one."""
    for _ in range(200):
        bullet = _BULLET.match(text, start)
        names = list(_names(text, bullet.end() if bullet else start, whole_line=True, placeholders=True))
        if not names:
            return
        yield from (name for name in names if text[slice(*name)] != _PLACEHOLDER)
        start = text.find("\n", names[-1][1]) + 1
        if not start:
            return


def _names(
    text: str, start: int, alone: str = "", whole_line: bool = False, placeholders: bool = False
) -> Iterator[tuple[int, int]]:
    """The names of a list that begins at `start`: "Jane Doe <…>, John Q. Roe and Ann Poe (…)".

    `alone` says where one word is a name: "any"where, if it ends the "line", or before the word "on". With `whole_line`
    nothing but the list may stand in the line. `placeholders` yields those of an earlier redaction too.
    """
    found: list[tuple[int, int]] = []
    if lead := _LEAD.match(text, start):
        start = lead.end()
    while len(found) < 50:
        if text.startswith(_PLACEHOLDER, start):
            stop, name = start + len(_PLACEHOLDER), True
        else:
            stop = _name_end(text, start, alone)
            name = stop > start
        if not name:
            break
        found.append((start, stop))
        while aside := _ASIDE.match(text, stop):
            stop = aside.end()
        separator = _SEPARATOR.match(text, stop)
        start = separator.end() if separator else stop
        if not separator:
            break
    if whole_line and not re.match(r"[ \t.]*(?:\*/|-->|-\}|\*\))?[ \t\r]*(?:\n|$)", text[start : start + 40]):
        return
    yield from (name for name in found if placeholders or text[slice(*name)] != _PLACEHOLDER)


def _name_end(text: str, start: int, alone: str) -> int:
    """Where the name that begins at `start` ends; `start` where none does."""
    lists = _lists()
    stop, place, words, initials = start, start, 0, 0
    single = ""
    for _ in range(6):
        word = _WORD.match(text, place)
        if not word:
            break
        plain = word[0].lower().rstrip(".")
        initial = len(plain) == 1 and word[0].isupper() and (words > 0 or word[0].endswith("."))
        if plain in lists["not_names"] and not initial:
            # "Jane Doe on Monday" and "Jane Doe IBM" end a name; "Red Hat" is none.
            ends = words and plain in ("all", "on", "and", "may", "june", "july")
            if word[0][0].isupper() and not ends and not (words > 1 and word[0].isupper()):
                return start
            break
        if word[0][0].islower() and plain not in lists["particles"]:
            if not words:
                single = word[0]
                stop = word.end()
            break
        if not word[0][0].islower():
            if len(plain) > 3 and word[0].isupper() and words == 0 and not alone and not _JAPANESE.match(text, place):
                return start
            words += 1
            initials += len(plain) == 1
            stop = word.end()
            if word[0].endswith(".") and len(plain) > 2 and plain not in ("jr", "dr", "prof", "sr"):
                stop -= 1
                break
        gap = _GAP.match(text, word.end())
        if not gap:
            break
        place = gap.end()
    if single or words == 1:
        only = text[start:stop].rstrip(".")
        caseless = not only[:1].isupper() and not only[:1].islower()
        after = text[stop : stop + 12]
        if caseless:
            good = bool(alone) and len(only) <= 8
        elif alone == "any" or alone == "line":
            good = (
                len(only) > 2
                and not _FIRM.match(text, stop)
                and re.match(r"[ \t]*(?:<|\(mailto|[\r\n]|$|\*/|-->|,)", after) is not None
            )
        else:
            good = alone == "on" and len(only) > 2 and (_ON_DATE.match(after) or _ADDRESS.match(text, stop)) is not None
        return stop if good and only.lower() not in lists["not_names"] else start
    return start if words == initials or _FIRM.match(text, stop) else stop


def _before_address(text: str, bracket: int) -> Iterator[tuple[int, int]]:
    """The name before the bracket of an address: the last words in its line."""
    if bracket < 3 or "\n" in text[bracket : bracket + 3]:
        return
    line = text.rfind("\n", max(0, bracket - 60), bracket) + 1 or max(0, bracket - 60)
    before = text[line:bracket]
    if before.endswith('" ') and (opened := before.rfind('"', 0, -2)) >= 0:  # "Jane Doe" <…>
        line, bracket = line + opened + 1, bracket - 2
        before = before[opened + 1 : -2] + " "
    match = _WORDS.search(before)
    if not match:
        return
    # The longest name that reaches the bracket.
    for word in re.finditer(r"\S+", match[0]):
        start = line + match.start() + word.start()
        stop = _name_end(text, start, "")
        if stop > start and not text[stop:bracket].strip():
            yield start, stop
            return


def _before_bare(text: str, address: int) -> Iterator[tuple[int, int]]:
    """The name that a line begins with, before an address without a bracket: `# Jane Doe, jane@doe.io`."""
    if text[address - 1 : address] not in _BEFORE_BARE:
        return
    line = text.rfind("\n", max(0, address - 80), address) + 1 or max(0, address - 80)
    start = address - len(text[line:address].lstrip(" \t#/*;%!\"'-"))
    stop = _name_end(text, start, "")
    if stop > start and text[stop:address].strip(" \t") in ("", ",", ":") and stop < address:
        yield start, stop
