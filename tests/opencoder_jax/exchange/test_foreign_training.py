"""A model made elsewhere is trained on: its tokenizer makes the records, its weights are where a run starts."""

import json
from pathlib import Path

import numpy as np
import pytest
from foreign import random_weights, write_folder, write_tokenizer

from opencoder_jax.beam_pipelines.__main__ import main as pipelines
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.tokens import records, released_tokenizer
from opencoder_jax.beam_pipelines.tokens.records import TokenRecordsConfig
from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.hugging_face import HuggingFaceTokenizer, open_tokenizer
from opencoder_jax.training.loop import train
from opencoder_jax.training.metrics import read_metrics
from tests.beam_pipelines.tokens.conftest import write_documents
from tests.opencoder_jax.training.conftest import _compile_quickly_and_once, compiled
from tests.opencoder_jax.training.small_run import small_recipe

__all__ = ["_compile_quickly_and_once", "compiled", "write_documents"]

TEXTS = [f"def f{number}(x):\n    return x + {number}  # schön 漢字\n" * (1 + number % 5) for number in range(40)]
CHAT = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "def add(a, b):\n    return a + b"}]
IDS = 384  # of the model; its tokenizer has fewer
FIELDS = {
    "ModelConfig_vocab_size": IDS,
    "DataConfig_mixture": {"text": 1.0},
    "TrainConfig_init_optimizer": False,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_documents) -> Path:  # type: ignore[no-untyped-def]
    """A foreign folder, its tokenizer taken over, records of texts and of a chat, and the model converted."""
    root = tmp_path_factory.mktemp("foreign")
    write_folder(root / "folder", small_recipe(**FIELDS).model, random_weights(small_recipe(**FIELDS).model))
    write_tokenizer(root / "folder", 370)
    released_tokenizer.run(released=str(root / "folder"), output=str(root / "tokenizer"), options=BeamOptions())
    for name, texts, kind in (("text", TEXTS, "file"), ("chats", [json.dumps(CHAT)], "chat")):
        made = write_documents(root / f"{name}_documents", texts, kind=kind)
        config = TokenRecordsConfig(shards=2)
        records.run(
            documents=[made],
            tokenizer=str(root / "tokenizer"),
            output=str(root / name),
            config=config,
            options=BeamOptions(),
        )
    import_model(root / "folder", root / "model")
    return root


def test_records_hold_the_ids_of_its_own_library(place: Path) -> None:
    encoder, found = HuggingFaceTokenizer(place / "folder"), TokenRecords.open(place / "text")
    expected = sorted([*encoder.encode(text), encoder.end_of_document] for text in TEXTS)
    assert sorted(found.read(record)[0].tolist() for record in range(len(found))) == expected
    assert found.tokenizer_fingerprint == encoder.fingerprint
    assert not (place / "text" / "tokenizer.model").exists()
    pipelines(["verify", str(place / "text")])


def test_of_a_chat_the_answer_and_its_end_are_trained_on(place: Path) -> None:
    encoder, found = HuggingFaceTokenizer(place / "folder"), TokenRecords.open(place / "chats")
    tokens, mask = found.read(0)
    assert encoder.decode(tokens[mask > 0]) == CHAT[1]["content"]
    assert tokens[mask > 0][-1] == encoder.im_end
    prompt = chat.parse(json.dumps(CHAT))[:1]
    asked = chat.encode(encoder, [chat.turn("system", "You help."), *prompt])[0]
    assert encoder.encode_chat(prompt)[: len(asked)] == asked.tolist()  # as its own template writes it


def test_a_run_starts_from_it_and_is_a_model_with_its_tokenizer(place: Path, tmp_path: Path) -> None:
    recipe = small_recipe(**FIELDS)
    train(recipe, place, tmp_path / "run", init_from=place / "model")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert isinstance(open_tokenizer(tmp_path / "run"), HuggingFaceTokenizer)
    train(recipe, place, tmp_path / "run", init_from=place / "model")  # trained already
    train(recipe, place, tmp_path / "next", init_from=tmp_path / "run")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text: its tokenizer has 301 tokens, the model 290"):
        train(small_recipe(**FIELDS | {"ModelConfig_vocab_size": 290}), place, tmp_path / "run")


def test_records_and_model_of_other_tokenizers_are_refused(place: Path, tmp_path: Path) -> None:
    changed = tmp_path / "model"
    changed.mkdir()
    for file in (place / "model").iterdir():
        (changed / file.name).symlink_to(file)
    (changed / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="its tokenizer is not the one that --data was made with"):
        train(small_recipe(**FIELDS), place, tmp_path / "run", init_from=changed)


def test_a_damaged_tokenizer_is_named(place: Path, tmp_path: Path) -> None:
    copied = tmp_path / "text"
    copied.mkdir()
    for file in (place / "text").iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    content = (copied / "tokenizer.json").read_bytes()
    (copied / "tokenizer.json").write_bytes(content + b" ")
    with pytest.raises(UserError, match="not the tokenizer that made these records"):
        TokenRecords.open(copied)
    (copied / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.model: missing"):
        TokenRecords.open(copied)


def test_conversations_need_its_control_tokens(place: Path, tmp_path: Path, write_documents) -> None:  # type: ignore[no-untyped-def]
    tokenizer = json.loads((place / "folder" / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["content"] = token["content"].replace("im_start", "im_begin")
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["<|im_begin|>"] = vocabulary.pop("<|im_start|>")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"eos_token": "<|im_end|>"}
    (tmp_path / "folder" / "tokenizer_config.json").write_text(json.dumps(config))
    released_tokenizer.run(str(tmp_path / "folder"), str(tmp_path / "tokenizer"), BeamOptions())
    made = write_documents(tmp_path / "documents", [json.dumps(CHAT)], kind="chat")
    with pytest.raises(Exception, match="so conversations can't be written for it"):
        records.run([made], str(tmp_path / "tokenizer"), str(tmp_path / "out"), TokenRecordsConfig(), BeamOptions())


def test_every_id_of_a_text_is_one_of_the_models(place: Path) -> None:
    found = TokenRecords.open(place / "text")
    assert max(int(found.read(record)[0].max()) for record in range(len(found))) < IDS
    assert np.all(found.read(0)[1] == 1)
