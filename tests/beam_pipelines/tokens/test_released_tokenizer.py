"""A released tokenizer gives the ids that the released code gives, and one of another kind is refused."""

import json
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers.pre_tokenizers import Split

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.tokens import records
from opencoder_jax.beam_pipelines.tokens.released_tokenizer import complete, run
from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer

# As the released code has it.
RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+\s+(\S)+"
)
PIECES = 600  # of the SentencePiece model; the chat's tokens were added later, behind a gap
FILES = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::8]


@pytest.fixture(scope="module")
def plain() -> bytes:
    """A model as SentencePiece leaves it, without the chat's tokens."""
    counts = Counter(word for file in FILES for word in PRE_SPLIT.findall(file.read_text()))
    proto = sentencepiece_model_pb2.ModelProto.FromString(
        train(word_table(counts), TokenizerConfig(vocab_size=PIECES + 2, reserved_ids=2))
    )
    del proto.pieces[PIECES:]
    return proto.SerializeToString()


def added(**tokens: int) -> dict[str, Any]:
    """A tokenizer_config.json."""
    decoder = {"0": {"content": "<unk>"}, "2": {"content": "</s>"}, "3": {"content": "<pad>"}}
    decoder |= {str(index): {"content": f"<|{name}|>", "special": True} for name, index in tokens.items()}
    return {"tokenizer_class": "INFLMTokenizer", "added_tokens_decoder": decoder}


@pytest.fixture
def released(plain: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(plain)
    (folder / "tokenizer_config.json").write_text(json.dumps(added(im_end=604, im_start=605)))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 640}))
    return folder


def test_ids_are_those_of_the_released_code(
    plain: bytes, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(released=str(released), output=str(tmp_path / "out"), options=BeamOptions())
    assert "tokenizer.model: 640 ids" in capsys.readouterr().out
    tokenizer = Tokenizer.load(tmp_path / "out/tokenizer.model")
    assert (tokenizer.vocab_size, tokenizer.im_end, tokenizer.im_start) == (640, 604, 605)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=plain)
    split = Split(tokenizers.Regex(RULE), "isolated")
    for text in ["don't 'LLama 'x ²３ 12345  \t\n \r\n\u3000é", *(file.read_text() for file in FILES)]:
        theirs = [index for word, _ in split.pre_tokenize_str(text) for index in pieces.encode(word)]
        assert tokenizer.encode(text) == theirs
        assert tokenizer.decode(theirs) == text
    for text in ("<|im_end|>", "</s>", "a \u2581 b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_records_are_written_with_it(released: Path, tmp_path: Path, write_documents: Callable[..., str]) -> None:
    run(released=str(released), output=str(tmp_path / "tokenizer"), options=BeamOptions())
    documents = write_documents(tmp_path / "documents", [FILES[0].read_text()], 1)
    records.run(
        documents=[documents],
        tokenizer=str(tmp_path / "tokenizer"),
        output=str(tmp_path / "records"),
        config=records.TokenRecordsConfig(shards=1),
        options=BeamOptions(),
    )
    written = (tmp_path / "tokenizer/tokenizer.model").read_bytes()
    assert (tmp_path / "records/tokenizer.model").read_bytes() == written


def test_a_token_that_the_model_has_already_becomes_a_control_token(plain: bytes) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(plain)
    for name in ("<|im_end|>", "<|im_start|>"):
        proto.pieces.add(piece=name, score=0.0, type=proto.SentencePiece.USER_DEFINED)
    tokenizer = Tokenizer(complete(proto.SerializeToString(), added(im_end=PIECES, im_start=PIECES + 1), {}, "here"))
    assert (tokenizer.vocab_size, tokenizer.im_end) == (PIECES + 2, PIECES)
    assert PIECES not in tokenizer.encode("<|im_end|>")


def edit(model: bytes, change: Callable[[Any], object]) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    change(proto)
    return proto.SerializeToString()


def test_foreign_and_damaged_ones_are_refused(plain: bytes, released: Path, tmp_path: Path) -> None:
    config = added(im_end=604, im_start=605)
    with pytest.raises(UserError, match="here: a foreign tokenizer: LlamaTokenizer doesn't split"):
        complete(plain, config | {"tokenizer_class": "LlamaTokenizer"}, {}, "here")
    with pytest.raises(UserError, match=r"here/tokenizer.model: a foreign tokenizer: it lacks <\|im_end\|>"):
        complete(plain, {}, {}, "here")
    with pytest.raises(UserError, match=r"here: id 300 is .* in tokenizer.model, but '<\|x\|>' was added there"):
        complete(plain, added(im_end=604, im_start=605, x=300), {}, "here")
    with pytest.raises(UserError, match=r"here: has 606 tokens, but config\.json a vocab_size of 605"):
        complete(plain, config, {"vocab_size": 605}, "here")
    spaced = edit(plain, lambda proto: setattr(proto.normalizer_spec, "add_dummy_prefix", True))
    with pytest.raises(UserError, match=r"here/tokenizer.model: a foreign tokenizer: it takes 'def' for ' def'"):
        complete(spaced, config, {}, "here")
    for damaged in (b"", plain[: len(plain) // 2], b"no model"):
        with pytest.raises(UserError, match=r"here/tokenizer.model: (not a SentencePiece|a foreign)"):
            complete(damaged, config, {}, "here")
    with pytest.raises(UserError, match=r"holds neither tokenizer\.model nor tokenizer\.json"):
        run(released=str(tmp_path), output=str(tmp_path / "out"), options=BeamOptions())
    (released / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        run(released=str(released), output=str(tmp_path / "out"), options=BeamOptions())
