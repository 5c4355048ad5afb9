"""Trains the tokenizer on the corpus.

Documents are split into words by the rule that encoding uses, words are counted by Beam, and SentencePiece trains BPE
with byte fallback on the counts. The size of the corpus costs counting time (about 15 MB a second on one core), but
neither memory nor training time:

- Each input shard becomes one file of its counts, grouped by the hash of the word; text isn't moved. Then the groups
  are summed, each in a table of its own; a larger corpus has more groups.
- Words that occur less often than `minimum_count` in the whole corpus are left out. If more than `maximum_words` are
  left, `minimum_count` is raised until they are few enough: words of equal counts stay or go together, so that what is
  trained on depends on nothing but the counts. The manifest says what was left out.

SentencePiece reads its counts from lines with tabs, so ends of lines and tabs inside words, which source code is full
of ("):" and the newline behind it are one word), go through it as private-use characters and are put back into the
finished model. Training runs on one thread and the model keeps no path and no time: the same corpus gives the same
bytes, on any runner and number of workers.

Writes: `tokenizer.model`, and the counted words as `words-*.parquet` (word, count).
"""

import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sentencepiece
import xxhash
from sentencepiece import sentencepiece_model_pb2

from opencoder_jax.beam_pipelines.core.documents import read_shard, shard_name
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, digest, merge_tallies, open_finished, open_whole
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, input_shards, report_shard, run_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.tokens.texts import texts_of
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import UserError, configurable
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import (
    END_OF_DOCUMENT,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    IM_END,
    IM_START,
    PAD,
    SPACE_SIGN,
    START,
    UNKNOWN,
    Tokenizer,
)
from opencoder_jax.tokenization.tokenizer_files import TOKENIZER

# Words are summed in groups, by hash. A gigabyte of source code has about three million different words.
_BYTES_PER_GROUP = 1 << 30
_GROUPS = (8, 512)
# A worker writes its counts down when it holds so many different words.
_WORDS_IN_MEMORY = 2_000_000

# On one core, in megabytes of the documents' text.
_COUNT_MEGABYTES_PER_SECOND = 15.0
_SUM_MEGABYTES_PER_SECOND = 150.0

# Longer words are data (base64, tables of digits), from which nothing is to be learnt.
_LONGEST_WORD = 128
# cl100k has indentations of this length as one token; SentencePiece's default is 16.
_LONGEST_PIECE = 32

_PLACEHOLDERS = {"\t": "\ue009", "\n": "\ue00a", "\r": "\ue00d"}
_ORIGINALS = str.maketrans({placeholder: original for original, placeholder in _PLACEHOLDERS.items()})
# Words with these would be mistaken: the placeholders, SentencePiece's sign for a space, the end of a C string.
_MISTAKABLE = f"[\ue009\ue00a\ue00d{SPACE_SIGN}\\x00]"

_CONTROLS_AND_BYTES = 4 + 256
_FILL_IN_THE_MIDDLE = (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)

_WORDS = pa.schema([("word", pa.string()), ("count", pa.int64())])
_GROUPED = pa.schema([("group", pa.int32()), *_WORDS])


@configurable
@dataclass(frozen=True)
class TokenizerConfig:
    """What is trained.

    Attributes:
        vocab_size: number of ids, 96,640 for OpenCoder.
        reserved_ids: how many of them, at the end, are control tokens; the first two close and open chat messages.
            OpenCoder's `<|im_end|>` is 96,539, so 101.
        fill_in_the_middle: names the next three `<|fim_prefix|>`, `<|fim_middle|>` and `<|fim_suffix|>`. OpenCoder
            has none.
        minimum_count: words that occur less often aren't trained on.
        maximum_words: no more different words are trained on, the most frequent ones.
        character_coverage: share of the characters in the corpus that get a token of their own where no larger piece
            holds them; the rarest others are spelt in bytes.
    """

    vocab_size: int = 96_640
    reserved_ids: int = 101
    fill_in_the_middle: bool = False
    minimum_count: int = 2
    maximum_words: int = 1_000_000
    character_coverage: float = 0.9995

    def __post_init__(self) -> None:
        needed = 2 + len(_FILL_IN_THE_MIDDLE) * self.fill_in_the_middle
        if self.reserved_ids < needed:
            raise ValueError(f"reserved_ids={self.reserved_ids}: must be {needed} or more, for the control tokens")
        fixed = self.reserved_ids + _CONTROLS_AND_BYTES
        if self.vocab_size <= fixed:
            raise ValueError(
                f"vocab_size={self.vocab_size}: must be above reserved_ids + {_CONTROLS_AND_BYTES} = {fixed}"
            )
        check(self, minimum_count=at_least(1), maximum_words=at_least(1), character_coverage=between(0.9, 1))


@dataclass(frozen=True)
class Counting:
    """What the counts depend on beside the documents: another vocabulary needs no new ones."""

    groups: int


def run(documents: Sequence[str], output: str, config: TokenizerConfig, options: BeamOptions) -> Manifest:
    """Counts the words of documents and trains on them.

    Args:
        documents: the corpus.
    """
    shards = [(source, shard) for source in documents for shard in input_shards(source)]
    corpus = merge_tallies(Manifest.read(source).table("out") for source in documents)
    size = sum(corpus.get("bytes", {}).values())
    inputs = tuple(documents)
    groups = int(np.clip(size // _BYTES_PER_GROUP, *_GROUPS))

    def count(parts: Directory) -> tuple[Tally, dict[str, str]]:
        step = CountShard(shards, groups, parts.uri)
        run_shards("count words", parts, step, len(shards), options, size, _COUNT_MEGABYTES_PER_SECOND)
        return gather_reports(parts, len(shards))

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        parts = directory.child("parts")
        counted = Stage("train_tokenizer_parts", __name__, Counting(groups), inputs, parts.uri).run(count, options)
        step = SumGroup(parts.uri, counted.shards("counts"), groups, directory.uri, config.minimum_count)
        run_shards("sum words", directory, step, groups, options, size, _SUM_MEGABYTES_PER_SECOND)
        tally, files = gather_reports(directory, groups)
        least, trained_on = most_frequent(directory, files, config)
        directory.write_bytes(TOKENIZER, train(trained_on, config))
        files[TOKENIZER] = digest(directory, TOKENIZER)
        parts.remove_tree()
        used = {"words trained on": trained_on.num_rows, "least count of a word trained on": least}
        return merge_tallies([{"in": corpus}, tally, {"count": used}]), files

    return Stage("train_tokenizer", __name__, config, inputs, output).run(work, options)


@dataclass(eq=False)
class CountShard(beam.DoFn):
    """Counts the words of an input shard into one file, a row group for each group of words, or several."""

    shards: list[tuple[str, str]]
    groups: int
    output: str

    def process(self, number: int) -> Iterator[int]:
        """Counts the shard of this number."""
        source, shard = self.shards[number]
        directory = Directory(self.output)
        name = shard_name("counts", number, len(self.shards))
        counts: Counter[str] = Counter()
        with directory.atomic(name) as stream, pq.ParquetWriter(stream, _GROUPED, compression="zstd") as file:
            for batch in read_shard(Directory(source), shard):
                for text in texts_of(batch):
                    counts.update(PRE_SPLIT.findall(text))
                if len(counts) > _WORDS_IN_MEMORY:
                    self._write(counts, file)
                    counts.clear()
            self._write(counts, file)
        report_shard(directory, number, {}, [name])
        yield number

    def _write(self, counts: Counter[str], file: pq.ParquetWriter) -> None:
        words = [word for word in counts if len(word) <= _LONGEST_WORD]
        encoded = [word.encode() for word in words]
        groups = np.array([xxhash.xxh3_64_intdigest(word) % self.groups for word in encoded], np.int32)
        table = pa.table([groups, encoded, [counts[word] for word in words]], _GROUPED.names).cast(_GROUPED)
        order = np.argsort(groups, kind="stable")
        cuts = np.searchsorted(groups[order], np.arange(self.groups + 1))
        for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            file.write_table(table.take(order[first:last]))


@dataclass(eq=False)
class SumGroup(beam.DoFn):
    """Adds up the counts of a group's words and writes those that are frequent enough, in order."""

    parts: str
    names: list[str]
    groups: int
    output: str
    minimum_count: int

    def process(self, group: int) -> Iterator[int]:
        """Sums the group of this number."""
        total = _WORDS.empty_table()
        for part in self.names:
            with open_finished(Directory(self.parts), part) as stream:
                counts = pq.read_table(stream, filters=pc.field("group") == group, columns=_WORDS.names)
            total = pa.concat_tables([total, counts])
            if total.num_rows > _WORDS_IN_MEMORY:
                total = _added_up(total)
        total = _added_up(total)
        kept = total.filter(pc.field("count") >= self.minimum_count).sort_by("word")
        directory = Directory(self.output)
        name = shard_name("words", group, self.groups)
        with directory.atomic(name) as stream:
            pq.write_table(kept, stream, compression="zstd")
        counts = {"words": pc.sum(kept["count"]).as_py() or 0, "different words": kept.num_rows}
        left_out = {"different words that are too rare": total.num_rows - kept.num_rows}
        report_shard(directory, group, {"count": counts | left_out}, [name])
        yield group


def _added_up(counts: pa.Table) -> pa.Table:
    return counts.group_by("word").aggregate([("count", "sum")]).rename_columns(_WORDS.names).cast(_WORDS)


def most_frequent(directory: Directory, files: Mapping[str, str], config: TokenizerConfig) -> tuple[int, pa.Table]:
    """The words to train on: a least count, and the words (word, count) that reach it, at most `maximum_words`.

    Args:
        files: of words, with their digests.

    Raises:
        UserError: so many words have one count that none would be left.
    """
    histogram: Counter[int] = Counter()
    for name in sorted(files):
        with open_whole(directory, name, files[name]) as stream:
            counts, times = np.unique(pq.read_table(stream, columns=["count"])["count"].to_numpy(), return_counts=True)
        histogram.update(dict(zip(counts.tolist(), times.tolist(), strict=True)))
    least, words = max(histogram, default=0) + 1, 0
    for count in sorted(histogram, reverse=True):
        words += histogram[count]
        if words > config.maximum_words:
            break
        least = count
    if histogram and least > max(histogram):
        raise UserError(f"{histogram[least - 1]} words are equally frequent: TokenizerConfig.maximum_words keeps none")
    tables = [_WORDS.empty_table()]
    for name in sorted(files):
        with open_whole(directory, name, files[name]) as stream:
            tables.append(pq.read_table(stream, filters=pc.field("count") >= least))
    return least, pa.concat_tables(tables)


def word_table(counts: Mapping[str, int]) -> pa.Table:
    """Words and how often they occur, as `train` takes them."""
    return pa.table([list(counts.keys()), list(counts.values())], _WORDS)


def train(words: pa.Table, config: TokenizerConfig) -> bytes:
    """Trains a tokenizer model on words and how often they occur, in any order: columns word and count.

    Raises:
        UserError: the words are too few for the vocabulary.
    """
    known = words.filter(pc.invert(pc.match_substring_regex(words["word"], _MISTAKABLE)))
    known = known.sort_by([("count", "descending"), ("word", "ascending")])
    if not known.num_rows:
        raise UserError("no words to train a tokenizer on: the documents are empty")
    if not pc.any(pc.match_substring(known["word"], " ")).as_py():
        # Without a token of its own, a space would be spelt as the bytes of SentencePiece's sign for it.
        known = pa.concat_tables([known, word_table({" ": 1})])
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "words.tsv")
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for batch in known.to_batches(max_chunksize=100_000):
                file.writelines(_lines(batch))
        return _finish(_sentencepiece(path, config), config)


def _lines(batch: pa.RecordBatch) -> Iterable[str]:
    column = batch.column("word")
    for original, placeholder in _PLACEHOLDERS.items():
        column = pc.replace_substring(column, original, placeholder)
    return (f"{word}\t{count}\n" for word, count in zip(column.to_pylist(), batch["count"].to_pylist(), strict=True))


def _sentencepiece(path: str, config: TokenizerConfig) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=path,
            input_format="tsv",
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocab_size - config.reserved_ids,
            character_coverage=config.character_coverage,
            required_chars=SPACE_SIGN,
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
    return model.getvalue()


def _finish(model: bytes, config: TokenizerConfig) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    if len(proto.pieces) < config.vocab_size - config.reserved_ids:
        raise _too_small(config, len(proto.pieces))
    for piece in proto.pieces:
        piece.piece = piece.piece.translate(_ORIGINALS)
    controls = [IM_END, IM_START, *(_FILL_IN_THE_MIDDLE if config.fill_in_the_middle else ())]
    controls += [f"<|reserved_{number}|>" for number in range(len(controls), config.reserved_ids)]
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
