"""Trains the tokenizer on the corpus.

Documents are split into words by the rule that encoding uses, words are counted by Beam, and SentencePiece trains BPE
with byte fallback on the counts: the size of the corpus costs counting time (about 7 MB a second on one core) but
neither memory nor training time. Only counts are shuffled, packed by the hash of the word.

SentencePiece reads its counts from lines with tabs, so ends of lines and tabs inside words, which source code is full
of ("):" and the newline behind it are one word), go through it as private-use characters and are put back into the
finished model. Training runs on one thread and the model keeps no path and no time: the same corpus gives the same
bytes.

Reads: documents. Writes: `tokenizer.model`, and the counted words as `words-*.parquet` (word, count).
"""

import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
import xxhash
from sentencepiece import sentencepiece_model_pb2

from beam_pipelines.documents import read_shard, shard_name
from beam_pipelines.manifest import Manifest, Tally, digest, merge_tallies
from beam_pipelines.runner import BeamOptions
from beam_pipelines.stage import Stage, main
from beam_pipelines.storage import Directory
from opencoder_jax.data.token_records import TOKENIZER
from opencoder_jax.data.tokenizer import END_OF_DOCUMENT, IM_END, IM_START, PAD, PRE_SPLIT, START, UNKNOWN, Tokenizer
from opencoder_jax.recipe import UserError, configurable

# Words are counted in this many groups, by hash; a worker flushes its counts when it holds so many different words.
_GROUPS = 16
_WORDS_IN_MEMORY = 2_000_000

# Of counting, on one core.
_MEGABYTES_PER_SECOND = 7.0

# Longer words are data (base64, tables of digits), from which nothing is to be learnt.
_LONGEST_WORD = 128
# cl100k has indentations of this length as one token; SentencePiece's default is 16.
_LONGEST_PIECE = 32

_PLACEHOLDERS = str.maketrans({"\t": "\ue009", "\n": "\ue00a", "\r": "\ue00d"})
_ORIGINALS = str.maketrans({"\ue009": "\t", "\ue00a": "\n", "\ue00d": "\r"})
# Words with these would be mistaken: the placeholders, SentencePiece's sign for a space, the end of a C string.
_MISTAKABLE = re.compile("[\ue009\ue00a\ue00d\u2581\0]")

_CONTROLS_AND_BYTES = 4 + 256


@configurable
@dataclass(frozen=True)
class TokenizerConfig:
    """What is trained.

    Attributes:
        vocab_size: number of ids, 96,640 for OpenCoder.
        reserved_ids: how many of them, at the end, are control tokens; the first two open and close chat messages.
            OpenCoder's `<|im_end|>` is 96,539, so 101.
        minimum_count: words that occur less often aren't trained on.
        character_coverage: share of the characters in the corpus that get a token of their own where no larger piece
            holds them; the rarest others are spelt in bytes.
    """

    vocab_size: int = 96_640
    reserved_ids: int = 101
    minimum_count: int = 2
    character_coverage: float = 0.9995

    def __post_init__(self) -> None:
        if self.reserved_ids < 2:
            raise ValueError(f"reserved_ids must be at least 2, for the chat's control tokens; got {self.reserved_ids}")
        if self.vocab_size - self.reserved_ids <= _CONTROLS_AND_BYTES:
            raise ValueError(
                f"vocab_size must be above reserved_ids + {_CONTROLS_AND_BYTES} = "
                f"{self.reserved_ids + _CONTROLS_AND_BYTES}; got {self.vocab_size}"
            )
        if self.minimum_count < 1:
            raise ValueError(f"minimum_count must be at least 1; got {self.minimum_count}")
        if not 0.9 <= self.character_coverage <= 1:
            raise ValueError(f"character_coverage must lie in 0.9 .. 1; got {self.character_coverage}")


def run(inputs: Sequence[str], output: str, config: TokenizerConfig, options: BeamOptions) -> Manifest:
    """Counts the words of all inputs' documents and trains on them."""

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        manifests = [Manifest.read(source) for source in inputs]
        shards = [(source, name) for source, read in zip(inputs, manifests, strict=True) for name in read.shards()]
        documents = merge_tallies(read.table("out") for read in manifests)
        megabytes = sum(documents.get("bytes", {}).values()) / 1e6
        with options.pipeline(megabytes / _MEGABYTES_PER_SECOND) as pipeline:
            _ = (
                pipeline
                | beam.Create(shards)
                | "count words" >> beam.FlatMap(_count_shard)
                | beam.GroupByKey()
                | "sum" >> beam.Map(_write_group, output, config.minimum_count)
            )
        names = [shard_name("words", group, _GROUPS) for group in range(_GROUPS) if shards]
        counts = dict(pair for name in names for pair in _read_group(directory, name))
        directory.write_bytes(TOKENIZER, train(counts, config))
        tally = {"in": documents, "count": {"words": sum(counts.values()), "different words": len(counts)}}
        return tally, {name: digest(directory, name) for name in [*names, TOKENIZER]}

    if not inputs:
        raise UserError("train_tokenizer reads directories of documents: give at least one --input")
    return Stage("train_tokenizer", __name__, config, tuple(inputs), output).run(work)


def train(counts: dict[str, int], config: TokenizerConfig) -> bytes:
    """Trains a tokenizer model on words and how often they occur.

    Raises:
        UserError: the words are too few for the vocabulary.
    """
    known = [(word, count) for word, count in counts.items() if not _MISTAKABLE.search(word)]
    known.sort(key=lambda item: (-item[1], item[0]))
    lines = [f"{word.translate(_PLACEHOLDERS)}\t{count}\n" for word, count in known]
    if not lines:
        raise UserError("no words to train a tokenizer on: the documents are empty")
    pieces = config.vocab_size - config.reserved_ids
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "words.tsv")
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=path,
                input_format="tsv",
                model_writer=model,
                model_type="bpe",
                vocab_size=pieces,
                character_coverage=config.character_coverage,
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                # Words are already split: pieces may hold whatever words hold.
                split_by_whitespace=False,
                split_by_unicode_script=False,
                split_by_number=False,
                allow_whitespace_only_pieces=True,
                max_sentencepiece_length=_LONGEST_PIECE,
                shuffle_input_sentence=False,
                num_threads=1,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                unk_piece=UNKNOWN,
                bos_piece=START,
                eos_piece=END_OF_DOCUMENT,
                pad_piece=PAD,
                minloglevel=2,
            )
        except RuntimeError as error:
            limit = re.search(r"value <= (\d+)", str(error))
            if not limit:
                raise
            raise _too_small(config, int(limit[1])) from None
    return _finish(model.getvalue(), config)


def _finish(model: bytes, config: TokenizerConfig) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    if len(proto.pieces) < config.vocab_size - config.reserved_ids:
        raise _too_small(config, len(proto.pieces))
    for piece in proto.pieces:
        piece.piece = piece.piece.translate(_ORIGINALS)
    controls = [IM_END, IM_START, *(f"<|reserved_{number}|>" for number in range(2, config.reserved_ids))]
    for name in controls:
        proto.pieces.add(piece=name, score=0.0, type=proto.SentencePiece.CONTROL)
    proto.trainer_spec.vocab_size = config.vocab_size
    proto.trainer_spec.ClearField("input")
    finished: bytes = proto.SerializeToString(deterministic=True)
    return Tokenizer(finished).model


def _too_small(config: TokenizerConfig, pieces: int) -> UserError:
    return UserError(
        f"TokenizerConfig.vocab_size = {config.vocab_size}, but the words of this corpus give at most "
        f"{pieces + config.reserved_ids}: lower vocab_size or minimum_count, or give more documents"
    )


def _count_shard(shard: tuple[str, str]) -> Iterator[tuple[int, tuple[list[str], list[int]]]]:
    """The words of a shard and their counts, packed by group."""
    source, name = shard
    counts: Counter[str] = Counter()
    for batch in read_shard(Directory(source), name):
        for text in batch.column("text").to_pylist():
            counts.update(PRE_SPLIT.findall(text))
        if len(counts) > _WORDS_IN_MEMORY:
            yield from _packed(counts)
            counts.clear()
    yield from _packed(counts)


def _packed(counts: Counter[str]) -> Iterator[tuple[int, tuple[list[str], list[int]]]]:
    groups: list[tuple[list[str], list[int]]] = [([], []) for _ in range(_GROUPS)]
    for word, count in counts.items():
        if len(word) <= _LONGEST_WORD:
            words, numbers = groups[xxhash.xxh3_64_intdigest(word.encode()) % _GROUPS]
            words.append(word)
            numbers.append(count)
    yield from enumerate(groups)


def _write_group(group: tuple[int, Iterable[tuple[list[str], list[int]]]], output: str, minimum_count: int) -> None:
    """Sums the counts of a group's words and writes those that are frequent enough, in order."""
    number, packs = group
    counts: Counter[str] = Counter()
    for words, numbers in packs:
        counts.update(dict(zip(words, numbers, strict=True)))
    kept = sorted(word for word, count in counts.items() if count >= minimum_count)
    table = pa.table({"word": kept, "count": [counts[word] for word in kept]})
    with Directory(output).atomic(_group_name(number)) as stream:
        pq.write_table(table, stream, compression="zstd")


def _group_name(group: int) -> str:
    return shard_name("words", group, _GROUPS)


def _read_group(directory: Directory, name: str) -> Iterator[tuple[str, int]]:
    with directory.read(name) as stream:
        columns = pq.read_table(stream).to_pydict()
    return zip(columns["word"], columns["count"], strict=True)


if __name__ == "__main__":
    main("beam_pipelines.tokens.train_tokenizer")
