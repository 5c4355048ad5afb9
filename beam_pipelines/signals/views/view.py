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
from collections.abc import Callable
from functools import cache, cached_property

import numpy as np

from opencoder_jax.beam_pipelines.languages.comments import Lexeme, scan
from opencoder_jax.beam_pipelines.signals.views.ngrams import LETTERS_AND_DIGITS, Words, count_bytes, measure_words
from opencoder_jax.beam_pipelines.signals.views.syntax import Syntax, parse

_TRIPLE = ('"""', "'''")
_BETWEEN_WORDS = re.compile(r"[\W_]++")
# Characters that aren't ASCII, with the one before, which they may combine with; those near each other in one piece.
_NOT_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f](?:[\x00-\x7f]{0,32}[^\x00-\x7f])*+")
_NOT_ASCII_RUN = re.compile(r"[^\x00-\x7f]++")
_RARE_BLANKS = re.compile("[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_BLANKS = b" \t\r\v\f\x1c\x1d\x1e\x1f"  # of ASCII, but for the line break
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_is_han, _is_kana = re.compile(f"[{_HAN}]").match, re.compile("[\u3040-\u30ff]").match
_HAN_WORD = re.compile(rf"[{_HAN}]{{1,2}}|[^\W_{_HAN}]+")

# Where a node of Python's syntax tree keeps statements.
_BLOCKS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: fields
    for fields, kinds in {
        ("body",): (
            *(ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With, ast.AsyncWith),
            *(ast.ExceptHandler, ast.match_case),
        ),
        ("body", "orelse"): (ast.If, ast.For, ast.AsyncFor, ast.While),
        ("body", "handlers", "orelse", "finalbody"): (ast.Try, ast.TryStar),
        ("cases",): (ast.Match,),
    }.items()
    for kind in kinds
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

    @property
    def syntax(self) -> Syntax:
        """The syntax tree, for the languages that have a grammar (syntax.GRAMMARS).

        Raises:
            ValueError: the text cannot be parsed in reasonable time.
        """
        if isinstance(self._syntax, ValueError):
            raise self._syntax
        return self._syntax

    @cached_property
    def _syntax(self) -> Syntax | ValueError:
        try:
            return parse(self.text, self.language)
        except ValueError as error:
            return error  # for every signal, without parsing again

    @cached_property
    def lines(self) -> list[str]:
        """All lines with their line breaks; a line break at the end opens no further line."""
        return _lines(self.text)

    @cached_property
    def utf8(self) -> bytes:
        return self.text.encode("utf-8", "replace")

    @cached_property
    def _bytes(self) -> tuple[np.ndarray, int, int]:
        return count_bytes(np.frombuffer(self.utf8, np.uint8))

    @property
    def longest_line(self) -> int:
        """Characters of the longest line, with its line break."""
        return self._bytes[1]

    @property
    def longest_run(self) -> int:
        """Bytes of the longest run of letters, digits, + and /."""
        return self._bytes[2]

    @cached_property
    def num_lines(self) -> int:
        """How many `lines` there are."""
        return int(self._bytes[0][ord("\n")]) + (self.text[-1:] not in ("", "\n"))

    @cached_property
    def _others(self) -> Counter[str]:
        """How often each character occurs that isn't ASCII."""
        return Counter() if self.text.isascii() else Counter("".join(_NOT_ASCII_RUN.findall(self.text)))

    def count(self, belongs: Callable[[str], object]) -> int:
        """How many characters belong to a class, such as `str.isdigit`."""
        others = sum(count for character, count in self._others.items() if belongs(character))
        return int(self._bytes[0][_ascii(belongs)].sum()) + others

    def count_of(self, character: str) -> int:
        """How often one character occurs."""
        return int(self._bytes[0][ord(character)]) if character.isascii() else self._others[character]

    @cached_property
    def visible(self) -> int:
        """Characters that aren't white space."""
        return self.count(_is_visible)

    @cached_property
    def natural_language(self) -> str:
        """Chinese ("zh") where Han characters are a fifth of the visible ones and kana few; else, and for code, "en".

        The reference asks a fastText model that isn't published; its tables know only these two.
        """
        if self.kind not in ("text", "web") or self.text.isascii():
            return "en"
        han = self.count(_is_han)
        return "zh" if 5 * han >= max(1, self.visible) and 10 * self.count(_is_kana) <= han else "en"

    @cached_property
    def words(self) -> Words:
        """Runs of letters and digits, lower-cased and NFKC-normalised.

        Chinese isn't segmented by a dictionary: its characters are taken in pairs, anew in each run of them, which is
        near to the length of its words, so that thresholds on words and their lengths keep their meaning.
        """
        if self.text.isascii():
            return measure_words(self.utf8, LETTERS_AND_DIGITS)
        if self.natural_language == "zh":
            text = " ".join(_HAN_WORD.findall(unicodedata.normalize("NFKC", self.text).lower()))
        elif "Σ" in self.text:  # what its lower case is depends on where its word ends
            text = _folded(self.text)
        else:
            text = _NOT_ASCII.sub(lambda piece: _folded(piece[0]), self.text)
        return measure_words(text.encode("utf-8", "replace"), LETTERS_AND_DIGITS)

    @cached_property
    def raw_words(self) -> list[str]:
        """The words as written, in whatever case, with the signs on them: what white space separates."""
        return self.text.split()

    @property
    def lexed(self) -> str:
        """The text that `spans` are places in."""
        return self.text

    @cached_property
    def spans(self) -> list[Lexeme]:
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
    def bare_code(self) -> bytes:
        """The code without white space but for the line breaks, in UTF-8."""
        code = self.code if self.code.isascii() else _RARE_BLANKS.sub("", self.code)
        return code.encode("utf-8", "replace").translate(None, _BLANKS)

    @cached_property
    def bare_lines(self) -> dict[bytes, int]:
        """The lines of `bare_code` that hold something, and how often each occurs."""
        lines = Counter(self.bare_code.split(b"\n"))
        del lines[b""]
        return lines

    @cached_property
    def num_code_lines(self) -> int:
        """How many `code_lines` there are."""
        return sum(self.bare_lines.values())

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


def _is_visible(character: str) -> bool:
    return not character.isspace()


@cache
def _ascii(belongs: Callable[[str], object]) -> np.ndarray:
    """The places of a class of characters in ASCII."""
    return np.array([code for code in range(128) if belongs(chr(code))], np.intp)


def _folded(text: str) -> str:
    """Normalised, in lower case, with a blank for all that is neither letter nor digit."""
    return _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", text).lower())


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])
