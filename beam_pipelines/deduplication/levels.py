"""What is compared with what: files, repositories or chunks (OpenCoder ablates these levels of deduplication).

- file: one document.
- repository: all documents of a repository. Two are exact copies when they hold the same contents, however their files
  are named, and near copies by the grams of all their files. (A gram that would reach from one file into the next isn't
  counted, so the order of files doesn't matter, and text needn't be brought together.)
- chunk: pieces of 4096 tokens. Duplicates disappear from their documents; what remains is joined.

A unit has a node, as documents do: its priority and its address. A chunk's address is shard:24 | row:28 | chunk:12;
of a repository it's the hash of its name, and its priority is that of its best document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from opencoder_jax.beam_pipelines.core.documents import PRIORITY_COLUMNS, ROW_BITS, addresses, priorities, read_shard
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.deduplication.texts import IS_WORD, Texts
from opencoder_jax.checks import above, at_least, between, check, one_of, power_of_two

if TYPE_CHECKING:
    from opencoder_jax.tokenization.tokenizer import Tokenizer

LEVELS = ("file", "repository", "chunk")
CHUNK_BITS = 12


@dataclass(frozen=True)
class DuplicatesConfig:
    """What exact and near duplicates share.

    Attributes:
        level: file, repository or chunk.
        chunk_tokens: tokens a chunk, at the level of chunks.
        tokenizer: path of the `tokenizer.model` that counts them; without one, a word or a symbol is a token.
        segments: parts of each shuffle, a power of two; aim at 10 to 100 MB each (40 to 48 bytes a unit).
        alarm_share: a cluster of more than this share of the input is announced.
        abort_share: a source that loses more than this share of its documents stops the stage.
        abort_documents: both only where there are at least as many documents.
    """

    level: str = "file"
    chunk_tokens: int = 4096
    tokenizer: str = ""
    segments: int = 16
    alarm_share: float = 0.05
    abort_share: float = 0.95
    abort_documents: int = 1000

    def __post_init__(self) -> None:
        whole, share = at_least(1), ("alarm_share", "abort_share")
        check(self, level=one_of(*LEVELS), segments=power_of_two(), chunk_tokens=whole, abort_documents=whole)
        check(self, **dict.fromkeys(share, above(0)))
        check(self, **dict.fromkeys(share, between(0, 1)))


@dataclass(frozen=True)
class Units:
    """Units of some documents: texts, nodes (uint64 [units, 4]), and the hash of the repository of each."""

    texts: Texts
    nodes: np.ndarray
    repositories: np.ndarray


def read_units(shard: int, source: Directory, names: list[str], config: DuplicatesConfig) -> Iterator[Units]:
    """The units of a shard, batch by batch. Repositories come as their files: who calls brings them together."""
    first_row = 0
    for batch in read_shard(source, names[shard], [*PRIORITY_COLUMNS, "text", "repository"]):
        texts = Texts.of(batch.column("text"))
        nodes = np.column_stack([priorities(batch), addresses(shard, batch.num_rows, first_row)])
        repositories = repository_hashes(batch)
        if config.level == "chunk":
            begins = [
                [0, *chunk_cuts(bytes(texts.text(row)), config.chunk_tokens, config.tokenizer)]
                for row in range(batch.num_rows)
            ]
            counts = [len(each) for each in begins]
            nodes, repositories = np.repeat(nodes, counts, axis=0), np.repeat(repositories, counts)
            rows = np.repeat(np.arange(first_row, first_row + batch.num_rows), counts)
            numbers = np.concatenate([np.zeros(0, np.int64), *map(np.arange, counts)])
            nodes[:, -1] = (np.uint64(shard) << np.uint64(ROW_BITS)) + (rows << CHUNK_BITS | numbers).astype(np.uint64)
            starts = np.concatenate([np.zeros(0, np.int64), *begins]) + np.repeat(texts.offsets[:-1], counts)
            texts = Texts(texts.data, np.append(starts, texts.offsets[-1]))
        yield Units(texts, nodes, repositories)
        first_row += batch.num_rows


def repository_hashes(documents: pa.RecordBatch | pa.Table) -> np.ndarray:
    """uint64 [rows]: the hash of each document's repository's name."""
    column = documents.column("repository")
    names = column.unique()
    hashes = [xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape")) for name in names.to_pylist()]
    return np.array(hashes, np.uint64)[pc.index_in(column, names).to_numpy()]


def chunks(text: bytes, tokens: int, tokenizer: str = "") -> list[bytes]:
    """Cuts UTF-8 text into pieces of so many tokens, the last one shorter; joined they are the text. At least one."""
    cuts = chunk_cuts(text, tokens, tokenizer)
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def chunk_cuts(text: bytes, tokens: int, tokenizer: str = "") -> list[int]:
    """Where all chunks of a text but the first begin.

    No chunk ends within a character. A text of more than 4096 chunks (no document of at most 8 MB has as many) keeps
    its end in one.
    """
    if tokenizer:
        model = _tokenizer(tokenizer)
        ids = model.encode(text.decode())
        parts = [model.decode_bytes(ids[start : start + tokens]) for start in range(0, len(ids), tokens)]
        cuts = np.cumsum([len(part) for part in parts], dtype=np.int64)[:-1].tolist()
        for place, cut in enumerate(cuts):
            while cut < len(text) and text[cut] & 0xC0 == 0x80:  # the bytes of one character may be several tokens
                cut += 1
            cuts[place] = cut
    else:
        characters = np.frombuffer(text, np.uint8)
        word = IS_WORD[characters]
        begins = characters > ord(" ")
        begins[1:] &= ~(word[1:] & word[:-1])
        cuts = np.flatnonzero(begins)[tokens::tokens].tolist()
    return cuts[: (1 << CHUNK_BITS) - 1]


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> "Tokenizer":
    from opencoder_jax.tokenization.tokenizer import (
        Tokenizer,  # few runs need it, and every worker would load SentencePiece
    )

    return Tokenizer.load(path)
