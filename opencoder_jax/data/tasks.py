"""Token records for SeqIO: a Task for each directory, and the recipe's mixture of them.

Our own training reads records through batches.py, whose batch k is arithmetic; these are for programs that speak SeqIO.
A Task gives exactly the records of its directory, in their order: `targets` are the tokens, `loss_mask` says which of
them are trained on. Nothing is registered at import: `seqio.get_dataset` takes the objects, and
`seqio.TaskRegistry.add_provider(task.name, task)` gives one a name for other programs.

This is the one module that imports SeqIO and TensorFlow (several seconds, and half a gigabyte of memory).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from opencoder_jax.data.batches import DataConfig
from opencoder_jax.data.token_records import TOKENIZER, TokenRecords, shard_names
from opencoder_jax.data.tokenizer import Tokenizer

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


def task(name: str, directory: str | Path) -> seqio.Task:
    """The records of a directory as a Task with the split "train" and the features `targets` and `loss_mask`.

    Raises:
        UserError: the directory isn't whole.
    """
    return _task(name, TokenRecords.open(directory))


def mixture(name: str, config: DataConfig, directory: str | Path) -> seqio.Mixture:
    """The recipe's mixture of the Tasks of its sources.

    SeqIO mixes examples and the recipe weighs tokens, so a Task's rate is its weight divided by its tokens a record.

    Raises:
        UserError: a source's directory isn't whole.
    """
    tasks = []
    for source, weight in config.mixture.items():
        records = TokenRecords.open(Path(directory) / source)
        tasks.append((_task(source, records), weight * len(records) / records.tokens))
    return seqio.Mixture(name, tasks)


def _task(name: str, records: TokenRecords) -> seqio.Task:
    shards = records.shards
    files = [str(records.directory / shard_names(shard, shards)[0]) for shard in range(shards)]
    vocabulary = RecordVocabulary(Tokenizer.load(records.directory / TOKENIZER))
    return seqio.Task(
        name,
        source=seqio.TFExampleDataSource(
            split_to_filepattern={"train": files},
            feature_description=_FEATURES,
            num_input_examples={"train": len(records)},
            # One file after the other: the order of the records is a shuffle already.
            cycle_length=1,
        ),
        preprocessors=[_parse],
        output_features={
            "targets": seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32),
            "loss_mask": seqio.Feature(seqio.PassThroughVocabulary(2), add_eos=False, dtype=tf.int32),
        },
    )


def _parse(dataset: tf.data.Dataset) -> tf.data.Dataset:
    def parse(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        mask = tf.io.decode_raw(example["loss_mask"], tf.uint8)
        return {"targets": tf.io.decode_raw(example["tokens"], tf.int32), "loss_mask": tf.cast(mask, tf.int32)}

    return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
