"""The same corpus gives the same tokenizer, bytes and all, however it lies; a corpus that's too small is an error."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentencepiece import sentencepiece_model_pb2

from opencoder_jax.beam_pipelines.core.manifest import Manifest, digest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.tokens import train_tokenizer
from opencoder_jax.beam_pipelines.tokens.texts import texts_of
from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, most_frequent, run, train, word_table
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer

SMALL = TokenizerConfig(vocab_size=500, reserved_ids=11, minimum_count=2)
TEXTS = [file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))]


def words(directory: str) -> dict[str, int]:
    tables = [pq.read_table(file).to_pydict() for file in sorted(Path(directory).glob("words-*.parquet"))]
    return {word: count for table in tables for word, count in zip(table["word"], table["count"], strict=True)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, write_documents: Callable[..., str]) -> str:
    root = tmp_path_factory.mktemp("trained")
    run(
        documents=[write_documents(root / "documents", TEXTS)],
        output=str(root / "tokenizer"),
        config=SMALL,
        options=BeamOptions(),
    )
    return str(root / "tokenizer")


def test_words_are_counted_as_python_counts_them(trained: str) -> None:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    assert words(trained) == {word: count for word, count in counts.items() if count >= 2}
    assert Manifest.read(trained).table("count") == {
        "words": sum(words(trained).values()),
        "different words": len(words(trained)),
        "different words that are too rare": sum(count < 2 for count in counts.values()),
        "words trained on": len(words(trained)),
        "least count of a word trained on": 2,
    }


def test_of_a_conversation_what_is_said_is_read(batch: Callable[..., pa.RecordBatch]) -> None:
    turns = [{"role": "user", "content": 'Say "漢\n".'}, {"role": "assistant", "content": "\tdone"}]
    documents = batch("[]", {"text": json.dumps(turns), "kind": "chat"}, {"text": "{", "kind": "chat"})
    assert texts_of(documents) == ["[]", 'Say "漢\n".\n\tdone', ""]


def test_a_larger_corpus_has_more_groups_and_the_same_model(
    trained: str, tmp_path: Path, write_documents: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tokenizer, "_GROUPS", (3, 512))
    run(
        documents=[write_documents(tmp_path / "documents", TEXTS)],
        output=str(tmp_path / "few"),
        config=SMALL,
        options=BeamOptions(),
    )
    monkeypatch.setattr(train_tokenizer, "_BYTES_PER_GROUP", 1000)
    run(
        documents=[write_documents(tmp_path / "documents", TEXTS)],
        output=str(tmp_path / "many"),
        config=SMALL,
        options=BeamOptions(),
    )
    assert len(list((tmp_path / "few").glob("words-*"))) == 3 < len(list((tmp_path / "many").glob("words-*")))
    for place in ("few", "many"):
        assert words(str(tmp_path / place)) == words(trained)
        assert (tmp_path / place / "tokenizer.model").read_bytes() == Path(trained, "tokenizer.model").read_bytes()


def test_too_many_words_raise_the_least_count(
    trained: str, tmp_path: Path, write_documents: Callable[..., str]
) -> None:
    """Words of equal counts stay or go together, so that their order can't matter."""
    counts = sorted(words(trained).values(), reverse=True)
    config = replace(SMALL, vocab_size=400, maximum_words=100)
    run(
        documents=[write_documents(tmp_path / "documents", TEXTS)],
        output=str(tmp_path / "out"),
        config=config,
        options=BeamOptions(),
    )
    tally = Manifest.read(str(tmp_path / "out")).table("count")
    least = tally["least count of a word trained on"]
    assert tally["words trained on"] == sum(count >= least for count in counts) <= 100
    assert sum(count >= least - 1 for count in counts) > 100
    few = {word: count for word, count in words(trained).items() if count >= least}
    assert (tmp_path / "out/tokenizer.model").read_bytes() == train(word_table(few), config)
    equal = Directory(write_words(tmp_path / "equal", {"a": 5, "b": 5}))
    files = {"words": digest(equal, "words")}
    with pytest.raises(UserError, match="2 words are equally frequent"):
        most_frequent(equal, files, replace(SMALL, maximum_words=1))
    with pytest.raises(UserError, match="equal/words: damaged after it was written"):
        most_frequent(equal, dict.fromkeys(files, "0"), SMALL)


def write_words(place: Path, counts: dict[str, int]) -> str:
    place.mkdir()
    pq.write_table(word_table(counts), place / "words")
    return str(place)


def test_killed_it_counts_only_what_is_missing(
    trained: str, tmp_path: Path, write_documents: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_documents(tmp_path / "documents", TEXTS, shards=4)
    report_shard, left = train_tokenizer.report_shard, [2]

    def report_or_fail(*arguments: Any) -> None:
        if not left[0]:
            raise RuntimeError("killed")
        left[0] -= 1
        report_shard(*arguments)

    monkeypatch.setattr(train_tokenizer, "report_shard", report_or_fail)
    with pytest.raises(RuntimeError, match="killed"):
        run(documents=[documents], output=str(tmp_path / "out"), config=SMALL, options=BeamOptions())
    finished = [tmp_path / "out/parts" / f"counts-{shard:05d}-of-00004.parquet" for shard in range(2)]
    before = [file.stat().st_mtime_ns for file in finished]
    left[0] = 2  # the two others, but no group
    with pytest.raises(RuntimeError, match="killed"):
        run(documents=[documents], output=str(tmp_path / "out"), config=SMALL, options=BeamOptions())
    assert [file.stat().st_mtime_ns for file in finished] == before
    monkeypatch.undo()
    run(documents=[documents], output=str(tmp_path / "out"), config=SMALL, options=BeamOptions())
    assert (tmp_path / "out/tokenizer.model").read_bytes() == Path(trained, "tokenizer.model").read_bytes()
    assert not (tmp_path / "out/parts").exists()


def test_the_order_of_words_does_not_matter() -> None:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    table = word_table(counts)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    assert train(shuffled, SMALL) == train(table, SMALL)


def test_fill_in_the_middle_takes_reserved_ids() -> None:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    tokenizer = Tokenizer(train(word_table(counts), replace(SMALL, fill_in_the_middle=True)))
    assert [tokenizer.controls[name] for name in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)] == [491, 492, 493]
    assert tokenizer.controls["<|reserved_5|>"] == 494
    plain = Tokenizer(train(word_table(counts), SMALL))
    assert FIM_PREFIX not in plain.controls
    assert plain.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_bytes_do_not_depend_on_place_or_shards(
    trained: str, tmp_path: Path, write_documents: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that holds few words flushes its counts after each batch.
    monkeypatch.setattr(train_tokenizer, "_WORDS_IN_MEMORY", 10)
    halves = [write_documents(tmp_path / "one", TEXTS[:1], 1), write_documents(tmp_path / "rest", TEXTS[1:], 3)]
    run(documents=halves, output=str(tmp_path / "again"), config=SMALL, options=BeamOptions())
    assert words(str(tmp_path / "again")) == words(trained)
    assert (tmp_path / "again/tokenizer.model").read_bytes() == Path(trained, "tokenizer.model").read_bytes()


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(trained: str, tmp_path: Path, write_documents: Callable[..., str]) -> None:
    documents = write_documents(tmp_path / "documents", TEXTS, 4)
    run(
        documents=[documents],
        output=str(tmp_path / "two"),
        config=SMALL,
        options=BeamOptions(("--direct_num_workers=2",)),
    )
    assert (tmp_path / "two/tokenizer.model").read_bytes() == Path(trained, "tokenizer.model").read_bytes()


def test_model_holds_no_path(trained: str) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(Path(trained, "tokenizer.model").read_bytes())
    assert list(proto.trainer_spec.input) == []
    assert proto.trainer_spec.model_prefix == ""


def test_layout(trained: str) -> None:
    tokenizer = Tokenizer.load(Path(trained, "tokenizer.model"))
    assert tokenizer.vocab_size == 500
    assert (tokenizer.im_end, tokenizer.im_start) == (489, 490)
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)
    names = [piece.piece for piece in proto.pieces]
    assert names[:5] == ["<unk>", "<s>", "</s>", "<pad>", "<0x00>"]
    assert names[-3:] == ["<|reserved_8|>", "<|reserved_9|>", "<|reserved_10|>"]
    assert len(set(names)) == 500
    assert any("\n" in name for name in names)
    assert not any("\ue00a" in name for name in names)


def test_words_that_could_be_mistaken_are_not_learnt() -> None:
    """A private-use character in a file must not become the end of a line, nor U+2581 a space."""
    counts = {"ab\ue00a": 50, "\u2581cd": 50, "e\0f": 50, "ghgh": 9, "gh\n": 9}
    model = train(word_table(counts), TokenizerConfig(vocab_size=270, reserved_ids=2, character_coverage=1.0))
    pieces = [piece.piece for piece in sentencepiece_model_pb2.ModelProto.FromString(model).pieces[260:-2]]
    assert set("".join(pieces)) == {"g", "h", "\n", "\u2581"}
    assert "\u2581" in pieces  # a space has a token though this corpus has none
    tokenizer = Tokenizer(model)
    for text in (*counts, " gh \u2581"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_too_small_a_corpus_says_what_would_fit() -> None:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    with pytest.raises(
        UserError, match=r"vocab_size = 96640, but the words of this corpus give at most (\d+): lower"
    ) as error:
        train(word_table(counts), TokenizerConfig())
    largest = int(str(error.value).split("at most ")[1].split(":")[0])
    assert Tokenizer(train(word_table(counts), TokenizerConfig(vocab_size=largest))).vocab_size == largest
    with pytest.raises(UserError, match="no words to train"):
        train(word_table({}), SMALL)


def test_documents_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no stage\.json"):
        run(documents=[str(tmp_path)], output=str(tmp_path / "out"), config=SMALL, options=BeamOptions())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reserved_ids": 1}, "reserved_ids=1: must be 2 or more"),
        ({"reserved_ids": 4, "fill_in_the_middle": True}, "reserved_ids=4: must be 5 or more"),
        ({"maximum_words": 0}, "maximum_words=0: must be 1 or more"),
        ({"vocab_size": 361}, "vocab_size=361: must be above reserved_ids"),
        ({"minimum_count": 0}, "minimum_count=0: must be 1 or more"),
        ({"character_coverage": 99.95}, "character_coverage=99.95: must be between 0.9 and 1"),
    ],
)
def test_configuration_says_what_is_wrong(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**fields)
