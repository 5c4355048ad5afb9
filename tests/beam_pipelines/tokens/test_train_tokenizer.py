"""The same corpus gives the same tokenizer, bytes and all, however it lies; a corpus that's too small is an error."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sentencepiece import sentencepiece_model_pb2

from beam_pipelines.manifest import Manifest
from beam_pipelines.runner import BeamOptions
from beam_pipelines.tokens import train_tokenizer
from beam_pipelines.tokens.train_tokenizer import TokenizerConfig, run, train
from opencoder_jax.data.tokenizer import PRE_SPLIT, Tokenizer
from opencoder_jax.recipe import UserError

SMALL = TokenizerConfig(vocab_size=500, reserved_ids=11, minimum_count=2)
TEXTS = [file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))]


def words(directory: str) -> dict[str, int]:
    tables = [pq.read_table(file).to_pydict() for file in sorted(Path(directory).glob("words-*.parquet"))]
    return {word: count for table in tables for word, count in zip(table["word"], table["count"], strict=True)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, write_documents: Callable[..., str]) -> str:
    root = tmp_path_factory.mktemp("trained")
    run([write_documents(root / "documents", TEXTS)], str(root / "tokenizer"), SMALL, BeamOptions())
    return str(root / "tokenizer")


def test_words_are_counted_as_python_counts_them(trained: str) -> None:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    assert words(trained) == {word: count for word, count in counts.items() if count >= 2}
    tally = Manifest.read(trained).table("count")
    assert tally == {"words": sum(words(trained).values()), "different words": len(words(trained))}


def test_bytes_do_not_depend_on_place_or_shards(
    trained: str, tmp_path: Path, write_documents: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that holds few words flushes its counts after each batch.
    monkeypatch.setattr(train_tokenizer, "_WORDS_IN_MEMORY", 10)
    halves = [write_documents(tmp_path / "one", TEXTS[:1], 1), write_documents(tmp_path / "rest", TEXTS[1:], 3)]
    run(halves, str(tmp_path / "again"), SMALL, BeamOptions())
    assert words(str(tmp_path / "again")) == words(trained)
    assert (tmp_path / "again/tokenizer.model").read_bytes() == Path(trained, "tokenizer.model").read_bytes()


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
    model = train(counts, TokenizerConfig(vocab_size=269, reserved_ids=2, character_coverage=1.0))
    pieces = [piece.piece for piece in sentencepiece_model_pb2.ModelProto.FromString(model).pieces[260:-2]]
    assert set("".join(pieces)) == {"g", "h", "\n"}
    tokenizer = Tokenizer(model)
    for text in counts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_too_small_a_corpus_says_what_would_fit() -> None:
    counts = Counter(word for text in TEXTS for word in PRE_SPLIT.findall(text))
    with pytest.raises(
        UserError, match=r"vocab_size = 96640, but the words of this corpus give at most (\d+): lower"
    ) as error:
        train(counts, TokenizerConfig())
    largest = int(str(error.value).split("at most ")[1].split(":")[0])
    assert Tokenizer(train(counts, TokenizerConfig(vocab_size=largest))).vocab_size == largest
    with pytest.raises(UserError, match="no words to train"):
        train({}, SMALL)


def test_documents_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one --input"):
        run([], str(tmp_path / "out"), SMALL, BeamOptions())
    with pytest.raises(UserError, match=r"holds no stage\.json"):
        run([str(tmp_path)], str(tmp_path / "out"), SMALL, BeamOptions())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reserved_ids": 1}, "reserved_ids must be at least 2"),
        ({"vocab_size": 361}, "vocab_size must be above reserved_ids"),
        ({"minimum_count": 0}, "minimum_count must be at least 1"),
        ({"character_coverage": 99.95}, "character_coverage must lie in"),
    ],
)
def test_configuration_says_what_is_wrong(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**fields)
