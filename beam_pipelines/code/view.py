"""What the signals look at: one document as characters, lines, words, code, comments and syntax tree.

Each view is made when a signal first asks for it and kept for the others, so a document is scanned once for each kind
of view whatever the number of signals. The definitions are those of OpenCoder's filter (opc_data_filtering,
document.py), without its defects: comments are found by `comments.scan` rather than by a hand scanner that takes the
rest of a file for a comment, and words end at punctuation and underscores, without a natural-language tokenizer.
"""

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from beam_pipelines.code.comments import Span, scan
from beam_pipelines.code.syntax import Syntax, parse

# For ASCII text: lower case, and a blank for whatever is neither letter nor digit.
_ASCII_WORDS = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_TRIPLE = ('"""', "'''")
_WORD = re.compile(r"[^\W_]+")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_HAN_WORD = re.compile(rf"[{_HAN}]{{1,2}}|[^\W_{_HAN}]+")
_KANA = re.compile("[\u3040-\u30ff]")
_HAN_CHARACTER = re.compile(f"[{_HAN}]")

# Where a node of Python's syntax tree keeps statements.
_BLOCKS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Module: ("body",),
    ast.FunctionDef: ("body",),
    ast.AsyncFunctionDef: ("body",),
    ast.ClassDef: ("body",),
    ast.With: ("body",),
    ast.AsyncWith: ("body",),
    ast.If: ("body", "orelse"),
    ast.For: ("body", "orelse"),
    ast.AsyncFor: ("body", "orelse"),
    ast.While: ("body", "orelse"),
    ast.Try: ("body", "handlers", "orelse", "finalbody"),
    ast.TryStar: ("body", "handlers", "orelse", "finalbody"),
    ast.ExceptHandler: ("body",),
    ast.Match: ("cases",),
    ast.match_case: ("body",),
}


class View:
    """A document, lazily computed.

    Attributes:
        text: as stored.
        language: linguist's name.
        kind: code | data | text.
        size: bytes of the text in UTF-8.
        path: inside its repository.
    """

    def __init__(self, text: str, language: str, kind: str, size: int, path: str = "") -> None:
        self.text = text
        self.language = language
        self.kind = kind
        self.size = size
        self.path = path

    @cached_property
    def syntax(self) -> Syntax:
        """The syntax tree, for the languages that have a grammar (syntax.GRAMMARS)."""
        return parse(self.text, self.language)

    @cached_property
    def lines(self) -> list[str]:
        """All lines with their line breaks; a line break at the end opens no further line."""
        return _lines(self.text)

    @cached_property
    def histogram(self) -> dict[str, int]:
        """How often each character occurs."""
        if self.text.isascii():
            codes = np.frombuffer(self.text.encode(), np.uint8)
        else:
            codes = np.frombuffer(self.text.encode("utf-32-le"), np.uint32)
        counts = np.bincount(codes)
        present = np.flatnonzero(counts)
        return dict(zip(map(chr, present.tolist()), counts[present].tolist(), strict=True))

    @cached_property
    def visible(self) -> int:
        """Characters that aren't white space."""
        return sum(count for character, count in self.histogram.items() if not character.isspace())

    @cached_property
    def natural_language(self) -> str:
        """Chinese ("zh") where Han characters are a fifth of the visible ones and kana few; else, and for code, "en".

        The reference asks a fastText model that isn't published; its tables know only these two.
        """
        if self.kind not in ("text", "web") or self.text.isascii():
            return "en"
        han = self._count(_HAN_CHARACTER)
        return "zh" if 5 * han >= max(1, self.visible) and 10 * self._count(_KANA) <= han else "en"

    def _count(self, characters: re.Pattern[str]) -> int:
        return sum(count for character, count in self.histogram.items() if characters.match(character))

    @cached_property
    def words(self) -> list[str]:
        """Runs of letters and digits, lower-cased and NFKC-normalised.

        Chinese isn't segmented by a dictionary: its characters are taken in pairs, anew in each run of them, which is
        near to the length of its words, so that thresholds on words and their lengths keep their meaning.
        """
        if self.text.isascii():
            return self.text.translate(_ASCII_WORDS).split()
        word = _HAN_WORD if self.natural_language == "zh" else _WORD
        return word.findall(unicodedata.normalize("NFKC", self.text).lower())

    @cached_property
    def raw_words(self) -> list[str]:
        """The words as written, in whatever case, with the signs on them: what white space separates."""
        return self.text.split()

    @cached_property
    def word_lengths(self) -> np.ndarray:
        """Characters of each word, int64 [words]."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def word_counts(self) -> dict[str, int]:
        return Counter(self.words)

    @cached_property
    def grams(self) -> "Grams":
        return Grams(self.words, self.word_lengths, self.word_counts)

    @property
    def lexed(self) -> str:
        """The text that `spans` are places in."""
        return self.text

    @cached_property
    def spans(self) -> list[Span]:
        return list(scan(self.lexed, self.language))

    @cached_property
    def comments(self) -> str:
        """Comments and docstrings, one after the other."""
        return "\n".join(self.lexed[span.start : span.stop] for span in self.spans if span.kind != "string")

    @cached_property
    def code(self) -> str:
        """The text without its comments and docstrings."""
        pieces, last = [], 0
        for span in self.spans:
            if span.kind != "string":
                pieces.append(self.lexed[last : span.start])
                last = span.stop
        return "".join([*pieces, self.lexed[last:]])

    @cached_property
    def code_lines(self) -> list[str]:
        """The lines of the code that hold something, stripped."""
        return [stripped for line in self.code.split("\n") if (stripped := line.strip())]

    @cached_property
    def strings(self) -> list[str]:
        """What stands in the string literals of the code; docstrings are comments."""
        literals = (self.lexed[span.start : span.stop] for span in self.spans if span.kind == "string")
        return [literal[3:-3] if literal[:3] in _TRIPLE else literal[1:-1] for literal in literals]

    @cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree of a Python document; None where this interpreter cannot parse it."""
        try:
            return ast.parse(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None

    @cached_property
    def statements(self) -> list[ast.stmt] | None:
        """All statements of a Python document; None where this interpreter cannot parse it (Python 2 among others).

        Expressions aren't visited: they are most of a tree and hold no statement.
        """
        if self.tree is None:
            return None
        nodes: list[ast.AST] = [self.tree]
        for node in nodes:  # grows while it's read
            for field in _BLOCKS.get(type(node), ()):
                nodes += getattr(node, field)
        return [node for node in nodes if isinstance(node, ast.stmt)]


class Grams:
    """Repeated word n-grams: the most frequent for n from 2 to 4, all that repeat for n from 2 to 10.

    An n-gram can only occur twice if its first n - 1 words do, so each length looks at the survivors of the one before:
    most of a document drops out at n = 2 or 3. Sequences are compared as 64-bit hashes.
    """

    LENGTHS = range(2, 11)
    TOP = (2, 3, 4)

    def __init__(self, words: list[str], lengths: np.ndarray, vocabulary: Iterable[str]) -> None:
        ids = {word: number for number, word in enumerate(vocabulary)}
        numbers = np.fromiter(map(ids.__getitem__, words), np.uint64, len(words))
        self._ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self.chars = int(self._ends[-1])
        self._top = dict.fromkeys(self.TOP, 0.0)
        self._duplicate = dict.fromkeys(self.LENGTHS, 0.0)
        first, hashes = np.arange(len(words)), _mix(numbers)
        single = hashes
        for length in self.LENGTHS:
            inside = first + length <= len(words)
            first, hashes = first[inside], hashes[inside]
            if not len(first):
                break
            hashes = _mix(np.uint64(3) * hashes + single[first + length - 1])  # the order of words matters
            order = np.argsort(hashes)
            changes = np.flatnonzero(np.diff(hashes[order])) + 1
            starts = np.concatenate([np.zeros(1, np.int64), changes])
            counts = np.diff(starts, append=len(order))
            if length in self.TOP:
                self._top[length] = self._share_of_top(first[order], starts, counts, length)
            repeated = np.sort(order[np.repeat(counts > 1, counts)])
            first, hashes = first[repeated], hashes[repeated]
            self._duplicate[length] = self._share_of_covered(first, length)

    def top(self, length: int) -> float:
        """Characters in all copies of the most frequent n-gram, by all words' characters; 0 if it occurs once.

        Of several most frequent ones the first in the text counts.
        """
        return self._top[length]

    def duplicate(self, length: int) -> float:
        """Characters of words in any n-gram that occurs twice or more (overlaps once), by all words' characters."""
        return self._duplicate[length]

    def _share_of_top(self, first: np.ndarray, starts: np.ndarray, counts: np.ndarray, length: int) -> float:
        most = int(counts.max())
        if most < 2:
            return 0.0
        start = int(np.minimum.reduceat(first, starts)[counts == most].min())
        return float(self._ends[start + length] - self._ends[start]) * most / self.chars

    def _share_of_covered(self, first: np.ndarray, length: int) -> float:
        if not len(first):
            return 0.0
        # The part of each n-gram that the one before it (they're in order) doesn't cover already.
        stops = first + length
        starts = np.maximum(first, np.concatenate([np.zeros(1, np.int64), stops[:-1]]))
        return float((self._ends[stops] - self._ends[starts]).sum()) / self.chars


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: spreads neighbouring numbers over 64 bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])
