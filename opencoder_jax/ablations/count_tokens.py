"""Counts the tokens of documents by project, and those that stand in exact copies of other files."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import xxhash

from opencoder_jax.ablations.rows import Text, texts, write_rows
from opencoder_jax.beam_pipelines.experiments.hold_out import HoldOutConfig
from opencoder_jax.recipe import build, parse_flags, refuse_unknown
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer import TextTokenizer


class Counts(NamedTuple):
    """What a project holds, in tokens; `copies` stand in files whose very text stands in another one, too."""

    project: str
    documents: int
    bytes: int
    tokens: int
    copies: int


def main(argv: list[str]) -> None:
    """Writes a line a project. Raises UserError where documents or tokenizer are missing."""
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax count_tokens",
        description=(__doc__ or "").strip(),
        epilog="Example: python -m opencoder_jax count_tokens --documents=runs/refinecode/sample "
        "--tokenizer=runs/tokenizer --output=runs/counts",
    )
    parser.add_argument("--documents", action="append", required=True, metavar="DIR", help="a stage; repeatable")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="the tokenizer's directory")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the counts go")
    flags, rest = parse_flags(parser, argv, HoldOutConfig)
    refuse_unknown(parser, rest)
    documents = texts(flags.documents, build(HoldOutConfig).version)
    rows = count(documents, open_tokenizer(flags.tokenizer))
    write_rows(flags.output, rows)
    print(f"{flags.output}: {sum(row.tokens for row in rows):,} tokens of {len(rows):,} projects")


def count(documents: Iterable[Text], tokenizer: TextTokenizer) -> list[Counts]:
    """The tokens of each project, in the order of their names."""
    seen: set[int] = set()
    found: dict[str, list[int]] = {}
    for each in documents:
        raw, tokens = each.text.encode(), len(tokenizer.encode_array(each.text)) + 1
        key = xxhash.xxh3_64_intdigest(raw)
        sums = found.setdefault(each.project, [0, 0, 0, 0])
        for index, more in enumerate((1, len(raw), tokens, tokens if key in seen else 0)):
            sums[index] += more
        seen.add(key)
    return [Counts(project, *sums) for project, sums in sorted(found.items())]
