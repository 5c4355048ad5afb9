"""Programs as syntax trees: one parse and one query a document, by tree-sitter.

queries.toml says what is looked for in each language. tree-sitter makes a tree of any text, with ERROR nodes for what
it could make nothing of; it reads 5 to 10 MB/s of real code. On some text that is no program its time is quadratic:
such text is refused, by its depth or by the steps that the parser takes, which are the same on every machine.
"""

import importlib
import itertools
import threading
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tree_sitter import Language, Node, Parser, Query, QueryCursor

# Linguist's name -> the module of its grammar.
GRAMMARS = {
    "C": "tree_sitter_c",
    "C++": "tree_sitter_cpp",
    "C#": "tree_sitter_c_sharp",
    "Go": "tree_sitter_go",
    "HTML": "tree_sitter_html",
    "Java": "tree_sitter_java",
    "JavaScript": "tree_sitter_javascript",
}

# What a file begins with tells what it is. A query's time is quadratic in the children of a node, of which text that is
# no program has one for each of its words: a second for so many bytes. Less is read of the languages that take longest
# to parse: rules decide the same as with 100 kB on 1,108 of 1,109 real files.
MAX_BYTES = 100_000
SLOW = frozenset(("C++", "C#", "Go"))
MAX_BYTES_SLOW = 16_000

# More brackets than this, one in the other, are no program; tree-sitter would go through all of them at each step.
MAX_DEPTH = 2_000

# Steps as tree-sitter counts them, of which each language's programs take their own number. Of 5,812 real files three
# take more than this, all minified JavaScript; most text that has many readings does. At the end of such text a single
# step takes time and memory quadratic in its length: C of 12 kB 1.2 s and 0.9 GB, of 28 kB 7 s and almost 5 GB.
_STEPS = 60
_BYTES_A_STEP = {"C": 80, "C++": 60, "C#": 50, "Go": 70, "HTML": 20, "Java": 80, "JavaScript": 50}

_thread = threading.local()

_DEPTH = np.zeros(256, np.int8)
_DEPTH[list(b"([{")] = 1
_DEPTH[list(b")]}")] = -1


class Syntax(NamedTuple):
    """What a query found.

    Attributes:
        source: what was parsed: the document's UTF-8, at most MAX_BYTES or MAX_BYTES_SLOW.
        root: the whole tree.
        found: nodes by the names of queries.toml.
        share: of the document that was parsed.
    """

    source: bytes
    root: Node
    found: dict[str, list[Node]]
    share: float

    def nodes(self, name: str) -> list[Node]:
        """The nodes that were captured under a name, in no particular order."""
        return self.found.get(name, [])

    def count(self, *names: str) -> int:
        return sum(len(self.nodes(name)) for name in names)

    def texts(self, name: str) -> list[str]:
        """What stands where the nodes of a name are."""
        return [self.source[node.start_byte : node.end_byte].decode("utf-8", "replace") for node in self.nodes(name)]

    def lines(self, name: str) -> int:
        """On how many lines nodes of a name begin."""
        return len({node.start_point.row for node in self.nodes(name)})

    @property
    def broken(self) -> float:
        """The share of the bytes that the parser could make nothing of."""
        if self.root.type == "ERROR":
            return 1.0
        # Errors may lie in each other: a byte counts once.
        spans = sorted((node.start_byte, node.end_byte) for node in self.nodes("error"))
        total = end = 0
        for start, stop in spans:
            total += max(0, stop - max(start, end))
            end = max(end, stop)
        return total / max(1, len(self.source))


def parse(text: str, language: str) -> Syntax:
    """Parses a document in one of GRAMMARS' languages.

    Raises:
        ValueError: it's nested too deeply, or takes several times the steps of any program.
    """
    whole = text.encode("utf-8", "replace")
    source = whole[: MAX_BYTES_SLOW if language in SLOW else MAX_BYTES]
    if sum(map(source.count, (b"(", b"[", b"{"))) > MAX_DEPTH and _depth(source) > MAX_DEPTH:
        raise ValueError(f"brackets are nested over {MAX_DEPTH} deep: not parsed")
    grammar, query = _tools(language, any(word in source for word in _print_words(language)))
    steps, bytes_a_step = itertools.count(), _BYTES_A_STEP[language]

    def exhausted(place: int, _: bool) -> bool:
        return next(steps) > _STEPS + place // bytes_a_step

    piece, whole_source = len(source), _reused(source)

    def read(start: int, _: object) -> bytes | bytearray:
        return whole_source if start == 0 and piece == len(source) else source[start : start + piece]

    try:  # a parser of its own: workers are threads
        tree = Parser(grammar).parse(read, progress_callback=exhausted)
    except ValueError:
        raise ValueError("parsing takes too many steps: not parsed") from None
    piece = 64  # a query reads every name that it compares, and would copy the source for each
    found = QueryCursor(query).captures(tree.root_node)
    return Syntax(source, tree.root_node, found, len(source) / max(1, len(whole)))


def _reused(source: bytes) -> bytearray:
    """A copy in the one buffer of this thread: py-tree-sitter 0.26 never gives up a reference to what it has read."""
    if not hasattr(_thread, "buffer"):
        _thread.buffer = bytearray()
    buffer: bytearray = _thread.buffer
    buffer[:] = source
    return buffer


def _depth(source: bytes) -> int:
    """The most brackets that are open at once."""
    depth = np.cumsum(_DEPTH[np.frombuffer(source, np.uint8)], dtype=np.int64)
    return int((depth - np.minimum.accumulate(depth)).max())


@cache
def _queries() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("queries.toml").read_text(encoding="utf-8"))


@cache
def _print_words(language: str) -> list[bytes]:
    return [word.encode() for word in _queries()["print"].get(language, {"words": []})["words"]]


@cache
def _tools(language: str, prints: bool) -> tuple[Language, Query]:
    grammar = Language(importlib.import_module(GRAMMARS[language]).language())
    return grammar, Query(grammar, _queries()[language] + (_queries()["print"][language]["query"] if prints else ""))
