"""The pieces of an answer that may be code: blocks in fences, and lines of code among prose.

Fences are CommonMark's (three or more of ` or ~, closed by as many), with what models make of them: text before one on
its line, a closing one at the end of a line of code, none at all.
"""

import html
import json
import re
import textwrap
from collections import deque
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

from opencoder_jax.evaluation.answers.syntax import longest_prefix, parse

_OPEN = re.compile(r"^(?P<before>[^`~\n]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<rest>[^`\n]*)$")
_ONE_LINE = re.compile(r"^[^`\n]*(?:```(?:(?:python3?|py)[ \t]+)?(?P<code>[^`\n]+)```|`(?P<span>def [^`\n]+)`)[^`\n]*$")
_TAG = re.compile(r"</?(?:pre|code)\b[^>\n]*>")
_CLOSERS = 8  # more are tried where a docstring holds fences
_BLOCKS = 100  # at the end of a text that are read
_LINES = 100  # of a text, tried as the first of a program
_LONGEST = 1000  # lines of a program among prose

_FIRST = re.compile(
    r"(?:(?:async[ ]+)?def[ ]|class[ ]|import[ ]|from[ ]|@|(?:if|for|while|with)[ ].*:[ ]*(?:#.*)?$|try:"
    r"|[A-Za-z_][\w, ]*(?::[^=]+)?=[^=])"
)
_PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.:?|In \[\d+\]:) ?")
_PREFIXED = re.compile(r"[ \t]*(?:>>> |> |In \[\d+\]: ?\S)")
_NUMBER = re.compile(r"^[ \t]*\d+(?:[ \t]*[|:.)])?(?:[ ]|$)", re.MULTILINE)
_QUOTES = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})
_SPACES = str.maketrans({"\u00a0": " ", "\u3000": " ", "\u200b": None, "\ufeff": None})


def fenced(text: str) -> list[str]:
    """The blocks in fences, in their order, each as it is read best; the last may lack its closing fence."""
    lines = text.splitlines(keepends=True)
    blocks, index = [], 0
    while index < len(lines):
        line = lines[index].rstrip("\n")
        index += 1
        if match := _ONE_LINE.match(line):
            blocks.append((match["code"] or match["span"]).strip() + "\n")
        elif match := _OPEN.match(line):
            block, index = _block(lines, index, match["fence"])
            blocks.append(block)
    return [_read(block) for block in blocks[-_BLOCKS:]]


def code_in(text: str) -> list[str]:
    """The runs of lines that are programs, among others that are not."""
    lines = text.splitlines(keepends=True)
    found, index, tries = [], 0, 0
    while index < len(lines) and tries < _LINES:
        line = lines[index]
        prefixed = bool(_PREFIXED.match(line))
        if not (prefixed or _FIRST.match(line.lstrip())):
            index += 1
            continue
        tries += 1
        indent = line[: len(line) - len(line.lstrip())]
        run = [line]
        for other in lines[index + 1 : index + _LONGEST]:
            if other.strip() and not other.startswith(indent):
                break
            run.append(other)
        if prefixed:
            run = run[: next((n for n, other in enumerate(run) if not other.strip()), len(run))]
        piece = _read("".join(run)) if prefixed else textwrap.dedent("".join(run))
        piece = longest_prefix(piece)
        if piece.strip():
            found.append(piece)
        index += max(1, len(run) if prefixed else len(piece.splitlines()))
    return found


def indented(text: str) -> list[str]:
    """The runs of lines that stand to the right, as Markdown has code."""
    lines = text.splitlines(keepends=True)
    runs = groupby(lines, lambda line: line.startswith(("    ", "\t")) or not line.strip())
    return ["".join(run) for right, run in runs if right]


def in_json(text: str) -> list[str]:
    """The strings that may be programs, of the JSON object that a text holds; also where one is JSON itself."""
    found: list[str] = []
    waiting: deque[Any] = deque([text] if "{" in text and "\\n" in text else [])
    while waiting and len(found) < _BLOCKS:
        match waiting.popleft():
            case dict() as holder:
                waiting += holder.values()
            case list() as holder:
                waiting += holder
            case str() as said:
                start, end = said.find("{"), said.rfind("}") + 1
                try:
                    waiting.append(json.loads(said[start:end], strict=False))
                except (ValueError, RecursionError):
                    if said is not text and "\n" in said:
                        found += fenced(said) or [said]
    return found


def untagged(text: str) -> str:
    """A text without HTML's marks of code."""
    return html.unescape(_TAG.sub("\n", text)) if _TAG.search(text) else text


def in_long_string(before: str) -> bool:
    """Whether a text ends within a string of three quotes."""
    return any(before.count(quotes) % 2 for quotes in ('"""', "'''"))


def _block(lines: list[str], start: int, fence: str) -> tuple[str, int]:
    """The block that begins at a line, and the line behind it.

    It ends at the first closing fence, unless that stands in a docstring.
    """
    closing = re.compile(rf"^[ \t>]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
    ends = (index for index in range(start, len(lines)) if closing.match(lines[index].rstrip("\n")))
    first = next(ends, None)
    for end in () if first is None else (first, *islice(ends, _CLOSERS)):
        block = "".join(lines[start:end])
        if not in_long_string(block) or parse(_read(block)) is not None:
            return block, end + 1
    if first is not None:
        return "".join(lines[start:first]), first + 1
    for index in range(start, len(lines)):
        if (code := lines[index].rstrip()).endswith(fence):
            return "".join(lines[start:index]) + code.removesuffix(fence) + "\n", index + 1
    return "".join(lines[start:]), len(lines)


def _read(block: str) -> str:
    """The first reading of a block that is Python, else the block."""
    for reading in _readings(block):
        if parse(reading) is not None:
            return reading
    return block


def _readings(block: str) -> Iterator[str]:
    """A block as it is, or without what was put around its lines."""
    yield block
    yield textwrap.dedent(block)
    lines = block.splitlines()
    # Text in a fence that is itself in a list may stand less far to the right.
    quoted = [re.sub(r"^[ \t]*>[ ]?", "", line) for line in lines]
    if all(re.match(r"[ \t]*>(?!>>)|[ \t]*$", line) for line in lines):
        yield "\n".join(quoted) + "\n"
    session = [_PROMPT.sub("", line) for line in lines if _PROMPT.match(line)]
    if session:
        yield "\n".join(session) + "\n"
    if any(line.startswith("+") for line in lines):
        yield "\n".join(line[1:] for line in lines if not re.match(r"-|@@|\+\+\+|diff |index ", line)) + "\n"
    if all(_NUMBER.match(line) or not line.strip() for line in lines):
        yield textwrap.dedent(_NUMBER.sub("", block))
    plain = block.translate(_SPACES)
    yield textwrap.dedent(plain)
    yield textwrap.dedent(plain.translate(_QUOTES))
