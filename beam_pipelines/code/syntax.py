"""Programs as syntax trees: one parse and one query a document, by tree-sitter.

queries.toml says what is looked for in each language. tree-sitter makes a tree of any text, with ERROR nodes for what
it could make nothing of; it reads about 10 MB/s and its time is linear in the text.
"""

import importlib
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

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

# A tree takes some fifty times the memory of its text; what a file of this size begins with tells what it is.
MAX_BYTES = 2_000_000


class Syntax(NamedTuple):
    """What a query found.

    Attributes:
        source: what was parsed: the document's UTF-8, at most MAX_BYTES.
        root: the whole tree.
        found: nodes by the names of queries.toml.
    """

    source: bytes
    root: Node
    found: dict[str, list[Node]]

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
    """Parses a document in one of GRAMMARS' languages."""
    parser, query = _tools(language)
    source = text.encode("utf-8", "replace")[:MAX_BYTES]
    root = parser.parse(source).root_node
    return Syntax(source, root, QueryCursor(query).captures(root))


@cache
def _queries() -> dict[str, str]:
    return tomllib.loads(Path(__file__).with_name("queries.toml").read_text(encoding="utf-8"))


@cache
def _tools(language: str) -> tuple[Parser, Query]:
    grammar = Language(importlib.import_module(GRAMMARS[language]).language())
    return Parser(grammar), Query(grammar, _queries()[language])
