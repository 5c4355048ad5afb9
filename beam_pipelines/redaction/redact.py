"""Removes copyright headers, and puts placeholders for personal data and secrets.

OpenCoder's transformation (paper section 2.1.3; its code wasn't released): over 15 % of code files begin with a
copyright notice, which is removed from leading comments only; e-mail addresses, IP addresses, passwords, keys and, in
comments, names of people become `<email>`, `<ip_address>`, `<password>`, `<key>`, `<name>`. It runs before the filter,
so that a small edit saves a file that a rule would drop whole. Shebang lines, encoding cookies, build constraints and
whatever else a comment documents stay.

Cost: about 10 MB/s a core on Python source. Redacting twice changes nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.maps import Drop, Result, keep_rows, map_stage
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages import notebooks
from opencoder_jax.beam_pipelines.languages.comments import Lexeme, closing_mark, code, line_markers, scan
from opencoder_jax.beam_pipelines.redaction.personal import KINDS, find
from opencoder_jax.checks import check, each, one_of
from opencoder_jax.recipe import configurable

SPEED = 10.0  # megabytes of Python source a second on one core

# Words that only a notice uses: one of them is enough. A blank stands for whatever parts words, such as a line break
# with the marks of a comment.
_CERTAIN = [
    r"copyrighted|copyright\W{1,8}(?:\(c\)|©|&copy;|(?:19|20)\d\d)",
    r"(?:\(c\)|©|&copy;)\W{0,3}(?:copyright\W{0,4})?(?:19|20)\d\d",
    r"copyright(?! (?:notice|header|line|check|year|statement|comment)).{0,80}?(?:\b(?:19|20)\d\d\b|\(c\)|©)",
    r"copyright by\b",
    r"above copyright|all rights reserved|spdx-license-identifier:\s|[@\\](?:licen[sc]e|copyright)\b|@preserve\b",
    r"permission is (?:hereby )?granted|copyright and permission notice|obtain a copy of the licen[sc]e",
    r"licen[sc]ed (?:under|by) (?:the|an?|both|either|terms|mit|apache|bsd|[al]?gpl|mpl|isc|cc|creative)\b",
    r"licen[sc]ed to the (?:apache|asf)",
    r"(?:released|distributed|available|provided|covered|published|redistribute it) (?:\w+ ){0,3}under the\b",
    r"is free software",
    r"under the terms (?:and conditions )?of (?:the|this|version|an?) .{0,60}?(?:licen[sc]e|gpl|agreement)",
    r"redistributions? (?:and use|of source|in binary|with or without)",
    r"(?:in|into|to) the public domain\b(?! suffix)",
    r"without (?:any )?(?:express or implied )?warrant(?:y|ies) (?:of|or)",
    r"without any warranty|warranties of|provided as is",
    r"you should have received a copy of|gnu (?:lesser |library |affero )?general public licen[sc]e",
    r"specific language governing permissions",
    r"governed by an? .{0,40}licen[sc]e|licen[sc]e that can be found",
    r"see (?:the )?(?:accompanying )?(?:file )?(?:licen[sc]e|copying)\b(?: file| for| in|\.\w+)",
    r"if you need additional information",
    r"licen[sc]e: (?:the )?(?:mit|apache|[2-4]-clause|bsd|[al]?gpl|gnu|mpl|isc|cc0|cc-by|unlicense|wtfpl|zlib|boost)\b",
    r"^[^\w\n]{0,12}licen[sc]e\s{0,20}::?\s|^[^\w\n]{0,12}(?:the )?\w{2,10} licen[sc]e(?: \(\w{2,8}\))?[^\w\n]{0,12}$",
    r"opensource org licenses|use of this source code|(?:file|code|program|software|library|script) is licen[sc]ed\b",
]
# Those that other comments use, too, as "a free software radio": two different ones are needed.
_LIKELY = [
    r"copyright",
    r"free software",
    r"public domain",
    r"licen[sc]ed (?:under|to)|licen[sc]e: ",
    r"under the terms of|subject to the terms|terms and conditions of",
    r"(?:general public|apache|mit|bsd(?:-style| \d-clause)?|mozilla public) licen[sc]e",
    r"warrant",
    r"as is\b.{0,20}basis",
    r"see (?:the )?(?:accompanying )?(?:file )?(?:licen[sc]e|copying)\b",
]


def _spaced(patterns: list[str]) -> str:
    return "|".join(patterns).replace(" ", r"\W{1,12}")


# Each notice has one of them; they're found much faster than the patterns.
_WORDS = re.compile(
    r"copyright|licen[sc]|\(c\)|©|warrant|rights|public|redistrib|permission|free|basis|terms|information|preserve"
    r"|received|provided|released|distributed|available|covered|published|opensource|source code|copying",
    re.IGNORECASE,
)
_FLAGS = re.IGNORECASE | re.DOTALL | re.MULTILINE
_NOTICE = re.compile(_spaced([*_CERTAIN, *_LIKELY]), _FLAGS)
_CERTAINLY = re.compile(_spaced(_CERTAIN), _FLAGS)
_LIKELY_ONES = re.compile(_spaced([f"({pattern})" for pattern in _LIKELY]), _FLAGS)
# In a comment that has a notice, paragraphs with these belong to it.
_LEGAL = re.compile(rf"{_NOTICE.pattern}|copyright|copyleft|licen[sc]e|liabilit|merchantab", _FLAGS)
# Comments that a tool reads: shebang, encoding cookie, build constraint, directive.
_DIRECTIVE = re.compile(
    r"#!|#[^\n]*coding[:=][ \t]*[-\w.]+|//go:|// \+build|//!?\s*@ts-|/\*\s*eslint|/// ?<reference"
    r"|# frozen_string_literal|# (?:cython|distutils|typed|shellcheck|syntax=)|;;?;?[^\n]*-\*-|\{-#|#lang|<!--\[if"
)
# What may stand before the first comment without ending the head of the file.
_PROLOGUE = re.compile(
    r"\ufeff?\s*(?:<\?(?:php|xml)\b[^\n]*|@charset[^\n]*|<!doctype[^>]{0,300}>|@echo off[^\n]*|['\"]use strict['\"];?"
    # A header's guard; Vim's new script.
    r"|#lang [^\n]*|vim9script[^\n]*|#[ \t]*pragma[ \t]+once\b[^\n]*"
    r"|#[ \t]*if(?:ndef[ \t]|[ \t]+!)[^\n]*\s*(?:#[ \t]*define[ \t]+\w+[ \t]*\d*[ \t]*(?=\r?\n))?)?\s*",
    re.IGNORECASE,
)
_ROUNDS = 10  # of looking for notices in what is left
_MOST_COMMENTS = 100  # of a head: no file has as many apart, and each is looked at by itself
_LONGEST_HEAD = 100_000  # characters; a comment that ends behind them is no notice: the GPL has 35,000
_DOC_TAG = re.compile(
    r"[@\\](?:file|fileoverview|overview|param|see|since|author|returns?|brief|module|package|namespace|class|defgroup|ingroup|example|deprecated)\b"
)


@configurable
@dataclass(frozen=True)
class RedactConfig:
    """What is redacted.

    Attributes:
        copyright: remove notices of copyright and licence at the head of a file.
        kinds: of `personal.KINDS`, those that become placeholders.
    """

    copyright: bool = True
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        check(self, kinds=each(one_of(*KINDS)))


@dataclass(frozen=True)
class Redact:
    """The kernel: documents in, the same documents with redacted text out."""

    config: RedactConfig

    def __call__(self, documents: pa.RecordBatch) -> Result:
        counts: dict[str, int] = {}
        drops: list[Drop] = []
        texts: list[str] = []
        columns = [documents.column(name).to_pylist() for name in ("text", "language")]
        for row, (text, language) in enumerate(zip(*columns, strict=True)):
            redacted, hits = redact(text, language, self.config)
            for kind in hits:
                counts[f"redacted {kind}"] = counts.get(f"redacted {kind}", 0) + 1
            texts.append(redacted)
            if text and not redacted.strip():
                drops.append(Drop(row, "only_copyright", "nothing is left without the notice"))
        table = documents.set_column(
            documents.schema.get_field_index("text"), documents.schema.field("text"), pa.array(texts, pa.large_string())
        )
        sizes = pa.array([len(text.encode()) for text in texts], pa.int64())
        table = table.set_column(table.schema.get_field_index("bytes"), table.schema.field("bytes"), sizes)
        return Result(keep_rows(table, drops) if drops else table, drops, counts)


def redact(text: str, language: str, config: RedactConfig) -> tuple[str, list[str]]:
    """The redacted text, and the kind of each thing that was removed or replaced ("copyright", "email", …)."""
    hits: list[str] = []
    if config.copyright:
        shorter = remove_notice(text, language)
        if shorter != text and not _same_code(shorter, text, language):
            hits.append("nothing: code would have changed")
        elif shorter != text:
            hits.append("copyright")
            text = shorter
    findings = [finding for finding in find(text, language) if finding.kind in config.kinds]
    pieces, last = [], 0
    for start, stop, kind in findings:
        pieces += [text[last:start], f"<{kind}>"]
        last = stop
        hits.append(kind)
    return "".join([*pieces, text[last:]]), hits


def _same_code(shorter: str, text: str, language: str) -> bool:
    """Whether removing notices left all code; a notebook's lies in its cells, which have no comments of their own."""
    if language == notebooks.LANGUAGE:
        return code(_of_code(text), "Python") == code(_of_code(shorter), "Python")
    return code(shorter, language) == code(text, language)


def _of_code(notebook: str) -> str:
    return "\n".join(
        cell.removeprefix(notebooks.CODE) for cell in _CELL.split(notebook) if cell.startswith(notebooks.CODE)
    )


def remove_notice(text: str, language: str) -> str:
    """The text without the notices in its leading comments.

    Of a comment, the paragraphs from the first to the last that speak of copyright go, and the whole comment if nothing
    else is said in it; a paragraph with documentation tags ends what goes. A docstring is a value of the program: it
    goes if it is nothing but a notice, and stays whole otherwise. Comments after the first line of code stay.
    """
    if language == notebooks.LANGUAGE:
        return _first_cells(text)
    shorter = text
    for _ in range(_ROUNDS):  # comments that stood apart may now be one
        before, shorter = shorter, _without_notices(shorter, language)
        if shorter == before:
            break
    return shorter


_CELL = re.compile(rf"(?=^(?:{notebooks.TEXT}|{notebooks.CODE}|{notebooks.OUTPUT}))", re.MULTILINE)


def _first_cells(notebook: str) -> str:
    """A notebook without the cells of notice that it begins with, as prose or as comments of Python."""
    cells = [cell for cell in _CELL.split(notebook) if cell]
    for place, cell in enumerate(cells):
        marker = next((marker for marker in (notebooks.TEXT, notebooks.CODE) if cell.startswith(marker)), "")
        said = cell.removeprefix(marker)
        if marker == notebooks.CODE:
            shorter = remove_notice(said, "Python")
        else:
            shorter = (
                ""
                if marker and len(said) < _LONGEST_CELL and _is_notice(said, _Comment(0, len(said), "block", True))
                else said
            )
        if shorter == said:
            return "".join(cells)
        cells[place] = marker + shorter if shorter.strip() else ""
    return "".join(cells)


_LONGEST_CELL = 3000  # characters of prose that are nothing but a notice


def _without_notices(text: str, language: str) -> str:
    markers = line_markers(language)
    pieces, last, goes_on = [], 0, False
    for comment in islice(_leading_comments(text, language), _MOST_COMMENTS):
        # What follows a notice may go on with it: "You should have received a copy …"
        notice = _is_notice(text, comment, goes_on) and not _DIRECTIVE.match(text, comment.start)
        goes_on = notice or (goes_on and not comment.says)
        if not notice:
            continue
        notices = list(_notices(text, comment, markers, language))
        ends = [comment.start, *(end for notice in notices for end in notice), comment.stop]
        if not any(_says(text[start:stop], markers) for start, stop in zip(ends[::2], ends[1::2], strict=True)):
            cuts = [_lines(text, comment.start, comment.stop)]
        elif comment.kind == "lines":
            cuts = [_lines(text, *notice) for notice in notices]
        else:
            cuts = [_inside(text, *notice) for notice in notices if comment.kind == "block"]
        for start, stop, instead in cuts:
            pieces += [text[last : max(start, last)], instead]
            last = stop
    return "".join([*pieces, text[last:]])


class _Comment(NamedTuple):
    start: int
    stop: int
    kind: str  # "lines": line comments, one below the other | "block" | "docstring"
    says: bool  # has a word


def _is_notice(text: str, comment: _Comment, goes_on: bool = False) -> bool:
    """Whether a comment has a notice: a word that only a notice uses, or two likely ones; or one, if one goes on."""
    span = comment.start, comment.stop
    if not _WORDS.search(text, *span) or not _NOTICE.search(text, *span):
        return False
    if goes_on or _CERTAINLY.search(text, *span):
        return True
    return len({match.lastindex for match in _LIKELY_ONES.finditer(text, *span)}) > 1


def _leading_comments(text: str, language: str) -> Iterator[_Comment]:
    """The comments before the first code, a docstring of the file among them; a directive stands by itself."""
    markers = line_markers(language)
    prologue = _PROLOGUE.match(text)
    end = prologue.end() if prologue else 0
    block: _Comment | None = None
    for span in scan(text, language):
        if span.stop <= end:  # "use strict"
            continue
        if span.kind == "string" or not _PROLOGUE.fullmatch(text, min(end, span.start), span.start):
            break
        comment = text[span.start : span.stop]
        # A block may begin as a line comment does: Lua's `--[[`.
        closed = "\n" in comment.strip() or closing_mark(comment, language) < len(comment)
        lines = span.kind == "comment" and not closed and comment.lstrip().startswith(markers or ("\n",))
        kind = "docstring" if span.kind == "docstring" else "lines" if lines else "block"
        says = _WORD.search(text, span.start, span.stop) is not None
        apart = text.count("\n", end, span.start) > 1 or _DIRECTIVE.match(text, span.start)
        if block and block.kind == kind and not apart and _belong(text, block, span, says):
            block = _Comment(block.start, span.stop, kind, block.says or says)
        else:
            if block:
                yield block
            block = _Comment(span.start, span.stop, kind, says)
        if span.stop > _LONGEST_HEAD:
            return
        if _DIRECTIVE.match(text, span.start):
            yield block
            block = None
        end = span.stop
    if block:
        yield block


def _belong(text: str, block: _Comment, span: Lexeme, says: bool) -> bool:
    """Whether a comment goes on in the next one, which is of its kind."""
    if block.kind == "lines":
        # What documents the code isn't the notice's next line (Rust's `//!`).
        return bool(_DOCUMENTS.match(text, block.start)) == bool(_DOCUMENTS.match(text, span.start))
    # A line of stars above or below belongs to its neighbour.
    return block.kind == "block" and not (block.says and says)


_DOCUMENTS = re.compile(r"//[/!](?!/)")
_WORD = re.compile(r"[^\W_]")


def _says(text: str, markers: tuple[str, ...]) -> bool:
    """Whether a piece of a comment has a word, its marks aside."""
    return any(_WORD.search(_unmarked(line, markers)) for line in text.splitlines())


def _unmarked(line: str, markers: tuple[str, ...]) -> str:
    line = line.strip()
    for marker in markers:
        line = line.removeprefix(marker)
    return line


def _notices(text: str, comment: _Comment, markers: tuple[str, ...], language: str) -> Iterator[tuple[int, int]]:
    """The stretches of a comment from a first paragraph of notice to a last, without the comment's own marks."""
    paragraphs: list[tuple[int, int]] = []
    place, fresh = comment.start, True
    for line in text[comment.start : comment.stop].splitlines(keepends=True):
        blank = not _WORD.search(_unmarked(line, markers))
        if not blank and fresh:
            paragraphs.append((place, place))
        place += len(line)
        if not blank:
            paragraphs[-1] = (paragraphs[-1][0], place)
        fresh = blank
    tagged = [_DOC_TAG.search(text, *paragraph) is not None for paragraph in paragraphs]
    legal = [
        index for index, paragraph in enumerate(paragraphs) if _LEGAL.search(text, *paragraph) and not tagged[index]
    ]
    if not legal and not any(tagged):  # the notice runs across an empty line
        yield comment.start, comment.stop
    for first, last in _runs(text, paragraphs, tagged, legal):
        start = paragraphs[first][0] if first else comment.start
        stop = paragraphs[last + 1][0] if last + 1 < len(paragraphs) else comment.stop
        yield (start, stop) if comment.kind == "lines" else _between_marks(text, comment, start, stop, language)


def _runs(
    text: str, paragraphs: list[tuple[int, int]], tagged: list[bool], legal: list[int]
) -> Iterator[tuple[int, int]]:
    """The first and last paragraphs of what goes: with all between two of notice, unless documentation stands there."""
    while legal:
        first, last = legal[0], legal[0]
        alone = "\n" not in text[slice(*paragraphs[first])].strip() and first + 1 not in legal[1:2]
        if not alone:  # a line by itself, such as an SPDX tag above a description, goes by itself
            end = next((index for index in range(first, legal[-1]) if tagged[index]), None)
            last = legal[-1] if end is None else end - 1
        yield first, last
        legal = legal[bisect_right(legal, last) :] if last < legal[-1] else []


def _between_marks(text: str, comment: _Comment, start: int, stop: int, language: str) -> tuple[int, int]:
    """A stretch of a block comment without the marks that open and close it: they stay with what is left of it."""
    opening = re.match(r"\W{0,12}", text[comment.start : comment.stop])
    if start == comment.start and opening:
        start += len(opening[0].split("\n")[0].rstrip())
    if stop == comment.stop:
        line = text.rfind("\n", comment.start, comment.stop)
        if line < start or _WORD.search(text, line, stop):
            # The last comment of those that belong together is what its mark closes.
            stop = comment.start + closing_mark(text[comment.start : stop], language)
        else:
            stop = line
    return start, max(start, stop)


Cut = tuple[int, int, str]  # start, stop, what comes in its place


def _inside(text: str, start: int, stop: int) -> Cut:
    """Lines in the middle of a comment."""
    if text.endswith("\n", 0, start):
        return start, stop + 1 if text.startswith("\n", stop) else stop, ""
    return start, stop, "" if text.startswith(("\n", "\r"), stop) else "\n"


def _lines(text: str, start: int, stop: int) -> Cut:
    """Whole lines where possible, and the blank lines that followed."""
    line_start = text.rfind("\n", 0, start) + 1
    while text.startswith(("\r", "\n"), stop):
        stop += 1
    return start if text[line_start:start].strip() else line_start, stop, ""


def run(documents: str, output: str, config: RedactConfig, options: BeamOptions) -> Manifest:
    """Writes the documents with notices removed and placeholders put.

    Args:
        documents: the directory of the documents.
    """
    return map_stage("redact", Redact(config), [documents], output, config, options, megabytes_per_second=SPEED)
