"""TFDS and SeqIO read our records, and see what our own reader sees. The only tests that load TensorFlow."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.data.fim import FillInTheMiddle, fim_tokens
from opencoder_jax.data.tasks import batches_task, mixture, task
from opencoder_jax.data.token_records import TokenRecords, shard_names, write_records
from opencoder_jax.tokenization.tokenizer import Tokenizer

FEATURES = tfds.features.FeaturesDict(
    {
        "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes"),
        "loss_mask": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
    }
)


def documents(number: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 300, number)
    return [
        (np.append(rng.integers(4, 260, length - 1), 2).astype(np.int32), rng.integers(0, 2, length, np.uint8))
        for length in lengths
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One with the tokens for filling in the middle."""
    words = Counter({"def": 9, " return": 9, "    ": 9})
    config = TokenizerConfig(vocab_size=280, reserved_ids=12, minimum_count=1, fill_in_the_middle=True)
    return Tokenizer(train(word_table(words), config))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """Two sources; the first has an empty shard."""
    root = tmp_path_factory.mktemp("data")
    write_records(root / "a", [documents(20, 0), [], documents(30, 1)], tokenizer.model, tokenizer.vocab_size)
    write_records(root / "b", [documents(10, 2)], tokenizer.model, tokenizer.vocab_size)
    return root


def test_records_are_those_that_tensorflow_writes(data: Path, tmp_path: Path) -> None:
    """The same examples in as many bytes; in which order an example holds its features, TensorFlow leaves to chance."""
    for name, shards in (("a", 3), ("b", 1)):
        records = TokenRecords.open(data / name)
        written = iter(range(len(records)))
        for shard in range(shards):
            file = shard_names(shard, shards).tokens
            index = np.load(data / name / shard_names(shard, shards).places)
            with tf.io.TFRecordWriter(str(tmp_path / file)) as writer:
                for _ in index[0, 1:]:
                    tokens, mask = records.read(next(written))
                    writer.write(FEATURES.serialize_example({"tokens": tokens, "loss_mask": mask}))
            assert (data / name / file).stat().st_size == (tmp_path / file).stat().st_size
            ours, theirs = (
                [
                    tf.train.Example.FromString(record)
                    for record in tf.data.TFRecordDataset(str(place)).as_numpy_iterator()
                ]
                for place in (data / name / file, tmp_path / file)
            )
            assert ours == theirs


def test_tfds_reads_a_directory_unchanged(data: Path) -> None:
    builder = tfds.builder_from_directory(data / "a")
    assert builder.info.splits["train"].num_examples == 50
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    records = TokenRecords.open(data / "a")
    examples = list(tfds.as_numpy(builder.as_dataset(split="train", read_config=in_order)))
    assert len(examples) == len(records)
    for number, example in enumerate(examples):
        tokens, mask = records.read(number)
        assert (example["tokens"].dtype.name, example["loss_mask"].dtype.name) == ("int32", "uint8")
        assert np.array_equal(example["tokens"], tokens)
        assert np.array_equal(example["loss_mask"], mask)


def test_task_gives_the_records_in_their_order(data: Path) -> None:
    source = task("a", data / "a")
    assert source.num_input_examples("train") == 50
    records = TokenRecords.open(data / "a")
    examples = list(source.get_dataset(None, "train", shuffle=False).as_numpy_iterator())
    assert len(examples) == len(records)
    for number, example in enumerate(examples):
        tokens, mask = records.read(number)
        assert np.array_equal(example["targets"], tokens)
        assert np.array_equal(example["loss_mask"], mask)
    assert "a" not in seqio.TaskRegistry.names()


def test_an_epoch_of_batches_is_an_epoch_of_the_task(data: Path) -> None:
    """Same documents, token for token; only the order of an epoch is batches.py's own."""
    examples = task("a", data / "a").get_dataset(None, "train", shuffle=False).as_numpy_iterator()
    seen = sorted(example["targets"].tolist() for example in examples)
    total = sum(map(len, seen))
    batches = Batches(DataConfig(mixture={"a": 1.0}, phases=((0, 1, total),)), data, pad=3, end_of_document=2)
    # Rows of one token, in the order of their documents: the last of a document tells where the next one begins.
    records = TokenRecords.open(data / "a")
    order = batches.rows[0].places(batches._spans[0][0], np.arange(records.tokens))
    stream = batches(0).tokens[np.argsort(order), 0]
    cut = np.split(stream, np.flatnonzero(stream == 2) + 1)[:-1]
    assert sorted(document.tolist() for document in cut) == seen


def test_mixture_weighs_tokens(data: Path) -> None:
    """SeqIO mixes examples: rates times tokens an example must stand as the recipe's weights do."""
    mixed = mixture("annealing", DataConfig(mixture={"a": 3.0, "b": 1.0}), data)
    tokens = {name: TokenRecords.open(data / name) for name in ("a", "b")}
    weights = {
        source.name: mixed.get_rate(source) * tokens[source.name].tokens / len(tokens[source.name])
        for source in mixed.tasks
    }
    assert weights["a"] / weights["b"] == pytest.approx(3.0)
    example = next(mixed.get_dataset(None, "train", shuffle=False, seed=0).as_numpy_iterator())
    assert example["targets"].dtype == np.int32


def test_seqio_packs_the_task_for_a_language_model(data: Path) -> None:
    packed = seqio.get_dataset(
        task("a", data / "a"),
        {"targets": 512},
        dataset_split="train",
        shuffle=False,
        feature_converter=seqio.LMFeatureConverter(pack=True),
    )
    row = next(packed.as_numpy_iterator())
    first = TokenRecords.open(data / "a").read(0)[0]
    assert np.array_equal(row["decoder_target_tokens"][: len(first)], first)
    assert row["decoder_segment_ids"][len(first)] == 2


def test_vocabulary_is_our_tokenizer(data: Path, tokenizer: Tokenizer) -> None:
    vocabulary = task("a", data / "a").output_features["targets"].vocabulary
    text = "def f(x):\n    return 'é\u2581'\n"
    assert vocabulary.vocab_size == tokenizer.vocab_size
    assert vocabulary.encode(text) == tokenizer.encode(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    ids = vocabulary.encode_tf(tf.constant(text))
    assert ids.numpy().tolist() == tokenizer.encode(text)
    assert vocabulary.decode_tf(ids).numpy().decode() == text
    assert vocabulary == task("b", data / "b").output_features["targets"].vocabulary


@pytest.mark.parametrize("shuffle", [False, True])
def test_task_fills_in_the_middle_as_batches_do(data: Path, tokenizer: Tokenizer, shuffle: bool) -> None:
    """The same documents, cut at the same places, also where SeqIO reads the shards in another order."""
    config = DataConfig(mixture={"a": 1.0}, phases=((0, 400, 1),), packing="pad", fim_rate=0.5, seed=3)
    source = task("a", data / "a", config)
    examples = source.get_dataset(None, "train", shuffle=shuffle, seed=1).as_numpy_iterator()
    transformed = [(example["targets"].tolist(), example["loss_mask"].tolist()) for example in examples]
    ids = fim_tokens(tokenizer.controls)
    fim = FillInTheMiddle(0.5, 0.5, 3, *ids)
    records = TokenRecords.open(data / "a")
    expected = [fim.apply(record, *records.read(record)) for record in range(len(records))]
    assert sorted(transformed) == sorted((tokens.tolist(), mask.tolist()) for tokens, mask in expected)
    assert sum(ids[0] in tokens for tokens, _ in transformed) == 25
    batches = Batches(config, data, pad=3, end_of_document=2, fim_tokens=ids)
    rows = [batches(step) for step in range(50 - batches.dropped)]
    read = [[*batch.tokens[0].tolist(), int(batch.targets[0, -1])] for batch in rows]
    padded = [tokens + [3] * (401 - len(tokens)) for tokens, _ in transformed if len(tokens) >= 2]
    assert sorted(read) == sorted(padded)


@pytest.mark.parametrize("fim_rate", [0.0, 0.5])
def test_batches_task_gives_the_very_batches(data: Path, tokenizer: Tokenizer, fim_rate: float) -> None:
    config = DataConfig(
        mixture={"a": 3.0, "b": 1.0},
        phases=((0, 32, 4), (3, 64, 2)),
        attend_across_documents=False,
        fim_rate=fim_rate,
    )
    batches = Batches(config, data, pad=3, end_of_document=2, fim_tokens=fim_tokens(tokenizer.controls))
    source = batches_task("rows", config, data, 1, 6)
    examples = list(source.get_dataset(None, "train", shuffle=False).as_numpy_iterator())
    assert len(examples) == source.num_input_examples("train") == 2 * 4 + 3 * 2
    wanted = [row for step in range(1, 6) for row in zip(*batches(step), strict=True)]
    for example, row in zip(examples, wanted, strict=True):
        for name, array in zip(("tokens", "targets", "positions", "loss_mask"), row, strict=True):
            assert np.array_equal(example[name], array), name
    other = batches_task("rows", replace(config, seed=1), data, 1, 6).get_dataset(None, "train", shuffle=False)
    assert any(
        not np.array_equal(example["tokens"], theirs["tokens"])
        for example, theirs in zip(examples, other.as_numpy_iterator(), strict=True)
    )
