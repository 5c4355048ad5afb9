"""Writes token records: documents become tokens, in a fixed hashed order.

A document is its tokens and the end-of-document token, all of them trained on. A conversation (kind "chat", whose text
is a JSON list of messages) is encoded as ChatML, and only what the assistant says is trained on.

Records are ordered by a hash of the document's id and a seed: a global shuffle that doesn't depend on workers, inputs'
shards or the number of output shards. Text isn't moved for it: each input shard is encoded into one file of tokens, a
batch of it for each output shard; then each output shard collects its batches, sorts and writes them. (The file is
Arrow's own, not Parquet: a batch among 4096 is found in half a millisecond, and not in 30, and each output shard looks
into each file.) A share of the documents, chosen by another hash of their ids, can be held out: run the stage
once for part "train" and once for part "heldout".

Writes: token records (opencoder_jax/data/token_records.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA, one_batch, read_shard, shard_name, write_shard
from opencoder_jax.beam_pipelines.core.manifest import (
    Manifest,
    Tally,
    digest,
    merge_tallies,
    open_finished,
    open_whole,
    read_finished,
    tally_documents,
    tally_drops,
)
from opencoder_jax.beam_pipelines.core.maps import Drop, drop_table, keep_rows
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, input_shards, report_shard, run_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.tokens.texts import files_of_tokenizer, need_tokenizer, tokenizer_of
from opencoder_jax.checks import at_least, check, one_of, or_none
from opencoder_jax.data.token_records import RecordWriter, metadata_files, shard_names, summarise
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.tokenizer import IM_END, IM_START, TextTokenizer

CHATML = f"the tokenizer has no {IM_START} and {IM_END}, so conversations can't be written for it as they are here"

# On one core, in megabytes of the documents' text.
_ENCODE_MEGABYTES_PER_SECOND = 6.0
_WRITE_MEGABYTES_PER_SECOND = 80.0

# Encoded documents on their way to an output shard; no loss mask means that every token is trained on.
_ENCODED = pa.schema(
    [("shard", pa.int32()), ("key", pa.uint64()), ("tokens", pa.large_binary()), ("loss_mask", pa.large_binary())]
)
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


@configurable
@dataclass(frozen=True)
class TokenRecordsConfig:
    """How records are laid out.

    Attributes:
        shards: number of output files; the order of records is the same for any number.
        seed: of the order.
        heldout: share of the documents that are held out, the same ones whatever the seed.
        part: "train" writes the documents that aren't held out, "heldout" those that are.
        chat_tokens: conversations of more tokens are dropped, counted as "too_long" (OpenCoder's tuning script cuts
            them, at 1216 and 1500, and loses their ends); None keeps all.
        chat_newline: adds a newline to every answer, as OpenCoder's tuning script does (chat.py).
    """

    shards: int = 256
    seed: int = 0
    heldout: float = 0.0
    part: str = "train"
    chat_tokens: int | None = None
    chat_newline: bool = False

    def __post_init__(self) -> None:
        check(self, shards=at_least(1), seed=at_least(0), chat_tokens=or_none(at_least(1)))
        check(self, part=one_of("train", "heldout"))
        if not 0 <= self.heldout < 1:
            raise ValueError(f"heldout={self.heldout}: must be a share in 0 .. 1, 1 excluded")
        if self.part == "heldout" and self.heldout == 0:
            raise ValueError('part "heldout" has no documents while heldout is 0; set heldout to a share such as 0.01')


def run(
    documents: Sequence[str], tokenizer: str, output: str, config: TokenRecordsConfig, options: BeamOptions
) -> Manifest:
    """Encodes documents.

    Args:
        documents: what is encoded.
        tokenizer: the directory of the tokenizer that encodes it.

    Raises:
        UserError: there's no tokenizer, or no document for the part that is asked for.
    """
    need_tokenizer(tokenizer)
    name = f"token_records_{config.part}"
    inputs = (*documents, tokenizer)

    def encode(parts: Directory) -> tuple[Tally, dict[str, str]]:
        shards = [(source, shard) for source in documents for shard in input_shards(source)]
        size = sum(Manifest.read(source).total("out", "bytes") for source in documents)
        step = EncodeShard(shards, tokenizer, parts.uri, config)
        run_shards(f"{name}: encode", parts, step, len(shards), options, size, _ENCODE_MEGABYTES_PER_SECOND)
        return gather_reports(parts, len(shards))

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        parts = directory.child("parts")
        encoded = Stage(f"{name}_parts", __name__, config, inputs, parts.uri).run(encode, options)
        if encoded.total("out", "documents") == 0:
            raise UserError(f'{", ".join(documents)}: no documents for part "{config.part}"')
        step = WriteShard(parts.uri, encoded.shards("encoded"), directory.uri, config.shards)
        size = encoded.total("out", "bytes")
        run_shards(f"{name}: write", directory, step, config.shards, options, size, _WRITE_MEGABYTES_PER_SECOND)
        _, files = gather_reports(directory, config.shards)
        summaries = []
        for shard in range(config.shards):
            names = shard_names(shard, config.shards)
            opened = (open_whole(directory, name, files[name]) for name in (names.places, names.checksums))
            with next(opened) as index, next(opened) as checksums:
                summaries.append(summarise(index, checksums.read()))
        rest = metadata_files(summaries, files_of_tokenizer(tokenizer))
        rest |= {drops: read_finished(parts, drops) for drops in encoded.shards("drops")}
        for file, content in rest.items():
            directory.write_bytes(file, content)
            files[file] = digest(directory, file)
        parts.remove_tree()
        return encoded.tally, files

    return Stage(name, __name__, config, inputs, output).run(work, options)


@dataclass(eq=False)
class EncodeShard(beam.DoFn):
    """Encodes an input shard into one file, a batch for each output shard, and writes its drops and report."""

    shards: list[tuple[str, str]]
    tokenizer: str
    output: str
    config: TokenRecordsConfig

    def setup(self) -> None:
        """Loads the tokenizer, once a worker."""
        self.encoder = tokenizer_of(self.tokenizer)

    def process(self, number: int) -> Iterator[int]:
        """Encodes the shard of this number."""
        source, name = self.shards[number]
        encoded: list[pa.RecordBatch] = []
        dropped: list[pa.RecordBatch] = []
        tallies: list[Tally] = []
        for documents in read_shard(Directory(source), name):
            table, drops, tally = encode_documents(documents, self.encoder, self.config)
            encoded.append(table)
            dropped.append(drops)
            tallies.append(tally)
        directory = Directory(self.output)
        names = [shard_name("encoded", number, len(self.shards)).replace(".parquet", ".arrow")]
        with directory.atomic(names[0]) as stream, pa.ipc.new_file(stream, _ENCODED, options=_COMPRESSED) as file:
            for batch in _by_output_shard(encoded, self.config.shards):
                file.write_batch(batch)
        if any(batch.num_rows for batch in dropped):
            names.append(shard_name("drops", number, len(self.shards)))
            write_shard(directory, names[1], dropped, DROP_SCHEMA)
        report_shard(directory, number, merge_tallies(tallies), names)
        yield number


@dataclass(eq=False)
class WriteShard(beam.DoFn):
    """Collects the records of an output shard from all encoded files, and writes them in the order of their hashes."""

    parts: str
    names: list[str]
    output: str
    shards: int

    def process(self, shard: int) -> Iterator[int]:
        """Writes the output shard of this number."""
        batches = []
        for name in self.names:
            with open_finished(Directory(self.parts), name) as stream:
                batches.append(pa.ipc.open_file(stream).get_batch(shard))
        table = pa.Table.from_batches(batches)
        order = np.argsort(table.column("key").to_numpy(), kind="stable")
        tokens, masks = table.column("tokens"), table.column("loss_mask")
        directory = Directory(self.output)
        names = shard_names(shard, self.shards)
        with directory.atomic(names.tokens) as stream:
            writer = RecordWriter(stream)
            for row in order.tolist():
                mask = masks[row].as_buffer()
                writer.write(
                    np.frombuffer(tokens[row].as_buffer(), "<i4"),
                    None if mask is None else np.frombuffer(mask, np.uint8),
                )
        index, checksums = writer.finish()
        directory.write_bytes(names.places, index)
        directory.write_bytes(names.checksums, checksums)
        report_shard(directory, shard, {}, names)
        yield shard


def encode_documents(
    documents: pa.RecordBatch, tokenizer: TextTokenizer, config: TokenRecordsConfig
) -> tuple[pa.RecordBatch, pa.RecordBatch, Tally]:
    """Encodes those documents of a batch that belong to the part.

    Returns:
        The encoded documents, the dropped ones, and the counts: documents in and out, drops, tokens per language, and
        how many documents the other part has.
    """
    heldout = np.array([_share(identifier) < config.heldout for identifier in documents.column("id").to_pylist()], bool)
    mine = documents.filter(pa.array(heldout if config.part == "heldout" else ~heldout))
    rows: list[dict[str, Any]] = []
    drops: list[Drop] = []
    tokens_by_language: dict[str, int] = {}
    columns = [mine.column(name).to_pylist() for name in ("id", "kind", "language", "text")]
    for row, (identifier, kind, language, text) in enumerate(zip(*columns, strict=True)):
        loss_mask = None
        if kind == "chat":
            if tokenizer.im_start is None:
                raise UserError(f"{CHATML}; tokenise conversations with one that has, or leave them out")
            try:
                ids, spoken = chat.encode(tokenizer, chat.parse(text), config.chat_newline)
            except ValueError as error:
                drops.append(Drop(row, "not_a_conversation", str(error)))
                continue
            if config.chat_tokens is not None and len(ids) > config.chat_tokens:
                drops.append(Drop(row, "too_long", f"{len(ids)} tokens"))
                continue
            loss_mask = spoken.tobytes()
        else:
            ids = np.append(tokenizer.encode_array(text), np.int32(tokenizer.end_of_document))
        key = xxhash.xxh3_64_intdigest(identifier.encode(), seed=config.seed)
        # The order of the keys is the order of the shards too.
        shard = key * config.shards >> 64
        rows.append({"shard": shard, "key": key, "tokens": ids.astype("<i4").tobytes(), "loss_mask": loss_mask})
        tokens_by_language[language] = tokens_by_language.get(language, 0) + len(ids)
    dropped = drop_table(mine, drops)
    tally = merge_tallies(
        [
            tally_documents("in", mine),
            tally_documents("out", keep_rows(mine, drops)),
            tally_drops(dropped),
            {
                "tokens": tokens_by_language,
                "count": {"documents of the other part": documents.num_rows - mine.num_rows},
            },
        ]
    )
    return pa.RecordBatch.from_pylist(rows, schema=_ENCODED), dropped, tally


def _share(identifier: str) -> float:
    """A number in 0 .. 1 for each document, independent of its place in the order."""
    return xxhash.xxh3_64_intdigest(f"heldout/{identifier}".encode()) / 2**64


def _by_output_shard(batches: list[pa.RecordBatch], shards: int) -> Iterator[pa.RecordBatch]:
    """The rows of all batches, one batch for each output shard, with or without any."""
    table = pa.Table.from_batches(batches, _ENCODED).sort_by("shard").combine_chunks()
    cuts = np.searchsorted(table.column("shard").to_numpy(), np.arange(shards + 1))
    for start, stop in pairwise(cuts.tolist()):
        yield one_batch(table.slice(start, stop - start))
