"""That removing notices changes no code: real files, beside tree-sitter as the oracle.

Run: python -m tests.benchmarks.redaction_keeps_code --source=DIR [--source=DIR …] [--files=20000]

Of each file with a notice: the leaves of its syntax tree that are no comment (and, in Python, no docstring) must be the
same before and after. The oracle shares nothing with the scanner that `redact` trusts. Also printed: how many files had
a notice, how many the scanner's own check kept as they were, and the time of the slowest file.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tree_sitter import Language, Node, Parser

from opencoder_jax.beam_pipelines.languages.detect import identify
from opencoder_jax.beam_pipelines.redaction.redact import RedactConfig, redact
from opencoder_jax.beam_pipelines.signals.views.syntax import GRAMMARS

LANGUAGES = GRAMMARS | {"Python": "tree_sitter_python"}
LARGEST = 1 << 20


def files(sources: list[Path], most: int) -> list[tuple[Path, str]]:
    """Files of the languages that have a grammar, in an order that mixes folders."""
    found = []
    for source in sources:
        for path in sorted(source.rglob("*")):
            language = identify(path.name).name
            if language in LANGUAGES and not path.is_symlink() and path.is_file() and path.stat().st_size <= LARGEST:
                found.append((path, language))
    random.Random(0).shuffle(found)
    return found[:most]


def leaves(node: Node) -> Iterator[bytes]:
    """The source of all leaves that are code, from the first to the last."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if "comment" in node.type or (node.type == "expression_statement" and _only_a_string(node)):
            continue
        if node.children:
            waiting += reversed(node.children)
        elif node.text and node.text.strip():
            yield node.text


def _only_a_string(node: Node) -> bool:
    return len(node.children) == 1 and node.children[0].type == "string"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", type=Path, required=True)
    parser.add_argument("--files", type=int, default=20_000)
    flags = parser.parse_args()
    parsers = {name: Parser(Language(import_module(module).language())) for name, module in LANGUAGES.items()}
    counts: Counter[str] = Counter()
    slowest, differing = (0.0, ""), []
    for path, language in files(flags.source, flags.files):
        text = path.read_text(encoding="utf-8", errors="replace")
        begin = time.process_time()
        redacted, hits = redact(text, language, RedactConfig(kinds=()))
        slowest = max(slowest, (time.process_time() - begin, str(path)))
        counts["files"] += 1
        counts.update(hits)
        if redacted == text:
            continue
        before, after = (list(leaves(parsers[language].parse(one.encode()).root_node)) for one in (text, redacted))
        if before != after:
            differing.append(str(path))
        if counts["files"] % 1000 == 0:
            print(dict(counts), f"{len(differing)} differ", flush=True)
    print(f"{dict(counts)}; {len(differing)} differ; slowest {slowest[0]:.2f} s: {slowest[1]}")
    print(*differing[:20], sep="\n")


if __name__ == "__main__":
    main()
