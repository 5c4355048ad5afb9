"""Token records for SeqIO: a Task for each directory, the recipe's mixture of them, and the recipe's very batches.

Our own training reads records through batches.py, whose batch k is arithmetic; these are for programs that speak SeqIO:

- `task` gives the documents of a directory, in their order: `targets` are the tokens, `loss_mask` says which of them
  are trained on; with fill-in-the-middle the same ones are transformed, and in the same way, as batches.py does it.
- `mixture` mixes such Tasks by the recipe's weights; shuffling and packing are SeqIO's.
- `batches_task` gives the rows of batches.py itself, row for row, for a SeqIO program that is to train on exactly what
  ours trains on.

Nothing is registered at import: `seqio.get_dataset` takes the objects, and `seqio.TaskRegistry.add_provider(task.name,
task)` gives one a name for other programs.

This is the one module that imports SeqIO and TensorFlow (several seconds, and half a gigabyte of memory).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from opencoder_jax.data.batches import Batches, DataConfig, fill_in_the_middle
from opencoder_jax.data.fim import FillInTheMiddle, fim_tokens
from opencoder_jax.data.token_records import TokenRecords, shard_names
from opencoder_jax.tokenization.tokenizer import Tokenizer
from opencoder_jax.tokenization.tokenizer_files import TOKENIZER

_FEATURES = {"tokens": tf.io.FixedLenFeature([], tf.string), "loss_mask": tf.io.FixedLenFeature([], tf.string)}


class RecordVocabulary(seqio.Vocabulary):
    """Our tokenizer as a SeqIO vocabulary. SeqIO pads with id 0, which our tokenizer never makes from text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def eos_id(self) -> int:
        """The end-of-document token."""
        return self.tokenizer.end_of_document

    @property
    def unk_id(self) -> int:
        """`<unk>`."""
        return 0

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: tf.Tensor) -> np.ndarray:
            return self.tokenizer.encode_batch([text.numpy().decode()])[0]

        return tf.ensure_shape(tf.py_function(encode, [s], tf.int32), [None])

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(values: tf.Tensor) -> str:
            return self.tokenizer.decode(values.numpy().tolist())

        return tf.ensure_shape(tf.py_function(decode, [ids], tf.string), [])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordVocabulary) and self.tokenizer.fingerprint == other.tokenizer.fingerprint


def task(name: str, directory: str | Path, config: DataConfig | None = None) -> seqio.Task:
    """The documents of a directory as a Task with the split "train" and the features `targets` and `loss_mask`.

    Args:
        config: says whether to transform documents for filling in the middle; None: don't.

    Raises:
        UserError: the directory isn't whole, or its tokenizer has no tokens for filling in the middle.
    """
    return _task(name, TokenRecords.open(directory), config or DataConfig())


def mixture(name: str, config: DataConfig, directory: str | Path) -> seqio.Mixture:
    """The recipe's mixture of the Tasks of its sources.

    SeqIO mixes examples and the recipe weighs tokens, so a Task's rate is its weight divided by its tokens a record.

    Raises:
        UserError: a source's directory isn't whole.
    """
    tasks = []
    for source, weight in config.mixture.items():
        records = TokenRecords.open(Path(directory) / source)
        tasks.append((_task(source, records, config), weight * len(records) / records.tokens))
    return seqio.Mixture(name, tasks)


def batches_task(name: str, config: DataConfig, directory: str | Path, first: int, stop: int) -> seqio.Task:
    """The rows of the recipe's batches `first` to before `stop`, one an example, in their order.

    Its features are those of `batches.Batch`: `tokens`, `targets`, `positions` and `loss_mask`, each int32 [length].
    Read it with `shuffle=False`: the order is part of the recipe.

    Raises:
        UserError: see Batches.
    """
    tokenizer = Tokenizer.load(Path(directory) / next(iter(config.mixture)) / TOKENIZER)
    batches = Batches(config, directory, tokenizer.pad, tokenizer.end_of_document, fim_tokens(tokenizer.controls))
    features = ("tokens", "targets", "positions", "loss_mask")

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for step in range(first, stop):
            for row in zip(*batches(step), strict=True):
                yield {feature: array.astype(np.int32) for feature, array in zip(features, row, strict=True)}

    def dataset(split: str, shuffle_files: bool) -> tf.data.Dataset:
        del split, shuffle_files
        return tf.data.Dataset.from_generator(
            rows, output_signature={feature: tf.TensorSpec([None], tf.int32) for feature in features}
        )

    count = sum(batches.shape(step)[0] for step in range(first, stop))
    vocabulary = RecordVocabulary(tokenizer)
    numbers = seqio.PassThroughVocabulary(max(length for _, length, _ in config.phases))
    return seqio.Task(
        name,
        source=seqio.FunctionDataSource(dataset, splits=["train"], num_input_examples={"train": count}),
        preprocessors=[],
        output_features={
            feature: seqio.Feature(
                vocabulary if feature in ("tokens", "targets") else numbers, add_eos=False, dtype=tf.int32
            )
            for feature in features
        },
    )


def _task(name: str, records: TokenRecords, config: DataConfig) -> seqio.Task:
    names = [shard_names(shard, records.shards) for shard in range(records.shards)]
    tokenizer = Tokenizer.load(records.directory / TOKENIZER)
    vocabulary = RecordVocabulary(tokenizer)
    fim = fill_in_the_middle(config, fim_tokens(tokenizer.controls))
    return seqio.Task(
        name,
        source=seqio.FileDataSource(
            _numbered(records.first_records),
            split_to_filepattern={"train": [str(records.directory / name.tokens) for name in names]},
            num_input_examples={"train": len(records)},
            # One file after the other: the order of the records is a shuffle already.
            cycle_length=1,
        ),
        preprocessors=[partial(_parse, fim=fim)],
        output_features={
            "targets": seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32),
            "loss_mask": seqio.Feature(seqio.PassThroughVocabulary(2), add_eos=False, dtype=tf.int32),
        },
    )


def _numbered(first_records: list[int]) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Reads a shard's records with their numbers, however SeqIO orders or divides the shards."""

    def read(file: tf.Tensor) -> tf.data.Dataset:
        shard = tf.strings.to_number(tf.strings.regex_replace(file, r".*-(\d+)-of-\d+$", r"\1"), tf.int32)
        first = tf.gather(tf.constant(first_records, tf.int64), shard)
        return tf.data.TFRecordDataset(file).enumerate(first)

    return read


def _parse(dataset: tf.data.Dataset, fim: FillInTheMiddle | None) -> tf.data.Dataset:
    def parse(record: tf.Tensor, content: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(content, _FEATURES)
        tokens, mask = tf.io.decode_raw(example["tokens"], tf.int32), tf.io.decode_raw(example["loss_mask"], tf.uint8)
        if fim is not None:
            tokens, mask = tf.numpy_function(fim.apply, [record, tokens, mask], [tf.int32, tf.uint8])
            tokens, mask = tf.ensure_shape(tokens, [None]), tf.ensure_shape(mask, [None])
        return {"targets": tokens, "loss_mask": tf.cast(mask, tf.int32)}

    return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
