"""Every document becomes one record, in an order that only ids and the seed decide; a failed run goes on."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.tokens import records, train_tokenizer
from opencoder_jax.beam_pipelines.tokens.records import TokenRecordsConfig, run
from opencoder_jax.data.token_records import TokenRecords, shard_names
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.tokenizer import Tokenizer

WriteDocuments = Callable[..., str]

TEXTS = [f"def f{number}(x):\n    return x + {number}\n" * (1 + number % 7) for number in range(60)] + ["", "é\u2581\0"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, write_documents: WriteDocuments) -> str:
    root = tmp_path_factory.mktemp("tokenizer")
    config = train_tokenizer.TokenizerConfig(vocab_size=290, reserved_ids=2)
    documents = write_documents(root / "documents", TEXTS)
    train_tokenizer.run(documents=[documents], output=str(root / "out"), config=config, options=BeamOptions())
    return str(root / "out")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory, write_documents: WriteDocuments) -> str:
    return write_documents(tmp_path_factory.mktemp("documents") / "in", TEXTS, shards=3)


def write(inputs: list[str], output: Path, **fields: object) -> list[tuple[list[int], list[int]]]:
    """Runs the stage on directories of documents and, last, the tokenizer's; the records in order."""
    *documents, tokenizer = inputs
    config = TokenRecordsConfig(**fields)
    run(documents=documents, tokenizer=tokenizer, output=str(output), config=config, options=BeamOptions())
    records = TokenRecords.open(output)
    pairs = [records.read(record) for record in range(len(records))]
    return [(tokens.tolist(), mask.tolist()) for tokens, mask in pairs]


def encoded(tokenizer: str, texts: list[str]) -> list[tuple[list[int], list[int]]]:
    encoder = Tokenizer.load(Path(tokenizer, "tokenizer.model"))
    tokens = [[*encoder.encode(text), encoder.end_of_document] for text in texts]
    return [(ids, [1] * len(ids)) for ids in tokens]


def test_every_document_is_a_record_with_its_end(documents: str, tokenizer: str, tmp_path: Path) -> None:
    records = write([documents, tokenizer], tmp_path / "out", shards=4)
    assert sorted(records) == sorted(encoded(tokenizer, TEXTS))
    manifest = Manifest.read(str(tmp_path / "out"))
    assert manifest.total("in", "documents") == manifest.total("out", "documents") == len(TEXTS)
    assert manifest.table("tokens") == {"Python": sum(len(tokens) for tokens, _ in records)}
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {*manifest.files, "stage.json"}


def test_order_depends_on_ids_and_seed_alone(
    documents: str, tokenizer: str, tmp_path: Path, write_documents: WriteDocuments
) -> None:
    records = write([documents, tokenizer], tmp_path / "out", shards=4)
    elsewhere = write_documents(tmp_path / "one", TEXTS, shards=1)
    assert write([elsewhere, tokenizer], tmp_path / "other", shards=7) == records
    assert records != encoded(tokenizer, TEXTS)
    reseeded = write([documents, tokenizer], tmp_path / "seed", shards=4, seed=1)
    assert reseeded != records
    assert sorted(reseeded) == sorted(records)


def test_same_bytes_in_another_folder(documents: str, tokenizer: str, tmp_path: Path) -> None:
    for name in ("here", "there"):
        write([documents, tokenizer], tmp_path / name, shards=2)
    contents = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("here", "there")]
    assert contents[0] == contents[1]


def test_same_bytes_with_workers_of_their_own(documents: str, tokenizer: str, tmp_path: Path) -> None:
    """Two worker processes, of which either may take any shard, write what one process writes."""
    config = TokenRecordsConfig(shards=5)
    for name, options in (("one", BeamOptions()), ("two", BeamOptions(("--direct_num_workers=2",)))):
        run(documents=[documents], tokenizer=tokenizer, output=str(tmp_path / name), config=config, options=options)
    contents = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert contents[0] == contents[1]


def test_several_inputs_are_one_corpus(
    documents: str, tokenizer: str, tmp_path: Path, write_documents: WriteDocuments
) -> None:
    chats = [json.dumps([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}])]
    more = write_documents(tmp_path / "chats", chats, shards=1, kind="chat")
    records = write([documents, more, tokenizer], tmp_path / "out", shards=3)
    tokens, mask = chat.encode(Tokenizer.load(Path(tokenizer, "tokenizer.model")), json.loads(chats[0]))
    assert sorted(records) == sorted([*encoded(tokenizer, TEXTS), (tokens.tolist(), mask.tolist())])


def test_held_out_documents_are_the_others(documents: str, tokenizer: str, tmp_path: Path) -> None:
    train = write([documents, tokenizer], tmp_path / "train", shards=2, heldout=0.3)
    heldout = write([documents, tokenizer], tmp_path / "heldout", shards=1, heldout=0.3, part="heldout")
    assert sorted(train + heldout) == sorted(encoded(tokenizer, TEXTS))
    assert 8 <= len(heldout) <= 30
    counts = Manifest.read(str(tmp_path / "train")).table("count")
    assert counts == {"documents of the other part": len(heldout)}
    # Whatever the order of the training records is: what was held out stays out.
    again = write([documents, tokenizer], tmp_path / "again", shards=1, heldout=0.3, part="heldout", seed=5)
    assert sorted(again) == sorted(heldout)


def test_what_is_no_conversation_is_dropped_with_its_reason(
    tokenizer: str, tmp_path: Path, write_documents: WriteDocuments
) -> None:
    good = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}]
    texts = [json.dumps(good), "[]", "no JSON", '[{"role": "robot", "content": "Beep."}]', '[{"content": 1}]']
    chats = write_documents(tmp_path / "chats", texts, kind="chat")
    records = write([chats, tokenizer], tmp_path / "out", shards=1)
    assert len(records) == 1
    manifest = Manifest.read(str(tmp_path / "out"))
    assert manifest.table("drop", "documents") == {"not_a_conversation": 4}
    assert manifest.shards("drops")


def test_conversations_that_are_too_long_are_dropped_with_their_reason(
    tokenizer: str, tmp_path: Path, write_documents: WriteDocuments
) -> None:
    talks = [[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes. " * n}] for n in (1, 50)]
    lengths = [len(chat.encode(Tokenizer.load(Path(tokenizer, "tokenizer.model")), talk)[0]) for talk in talks]
    # What isn't a conversation may be of any length.
    chats = write_documents(tmp_path / "chats", [json.dumps(talk) for talk in talks], kind="chat")
    code = write_documents(tmp_path / "code", ["x = 1\n" * 500])
    records = write([chats, code, tokenizer], tmp_path / "out", shards=1, chat_tokens=lengths[1] - 1)
    assert len(records) == 2
    assert lengths[0] in [len(tokens) for tokens, _ in records]
    assert Manifest.read(str(tmp_path / "out")).table("drop", "documents") == {"too_long": 1}
    assert len(write([chats, tokenizer], tmp_path / "all", shards=1, chat_tokens=lengths[1])) == 2
    with pytest.raises(ValueError, match="chat_tokens=0: must be 1 or more, or None"):
        TokenRecordsConfig(chat_tokens=0)


def test_the_newline_of_the_released_script(tokenizer: str, tmp_path: Path, write_documents: WriteDocuments) -> None:
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes"}]
    chats = write_documents(tmp_path / "chats", [json.dumps(talk)], kind="chat")
    ours = Tokenizer.load(Path(tokenizer, "tokenizer.model"))
    for newline in (False, True):
        ((tokens, mask),) = write([chats, tokenizer], tmp_path / f"{newline}", shards=1, chat_newline=newline)
        said = [token for token, counts in zip(tokens, mask, strict=True) if counts]
        assert said == [*ours.encode("Yes\n" if newline else "Yes"), ours.im_end]


# Runs the stage and dies, without a chance to clean up, when the given number of shards is finished.
KILLED = """
import os, signal, sys
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.tokens import records

documents, tokenizer, output, reports = sys.argv[1:]
report_shard, left = records.report_shard, int(reports)

def report_or_die(*arguments):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    report_shard(*arguments)

records.report_shard = report_or_die
config = records.TokenRecordsConfig(shards=3)
records.run(documents=[documents], tokenizer=tokenizer, output=output, config=config, options=BeamOptions())
"""


def test_a_killed_stage_goes_on_where_it_stopped(documents: str, tokenizer: str, tmp_path: Path) -> None:
    """Killed once while it encodes three shards, and once while it writes three."""
    output = tmp_path / "out"
    encoded_first, first = output / "parts/encoded-00000-of-00003.arrow", output / shard_names(0, 3).tokens

    def run_and_die(reports: int) -> None:
        arguments = [documents, tokenizer, str(output), str(reports)]
        killed = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, *arguments], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    run_and_die(reports=1)
    assert len(list((output / "parts/reports").iterdir())) == 1
    time_of_encoding = encoded_first.stat().st_mtime_ns
    run_and_die(reports=2 + 1)
    assert encoded_first.stat().st_mtime_ns == time_of_encoding
    assert len(list((output / "reports").iterdir())) == 1
    time_of_writing = first.stat().st_mtime_ns
    records = write([documents, tokenizer], output, shards=3)
    assert first.stat().st_mtime_ns == time_of_writing
    assert records == write([documents, tokenizer], tmp_path / "clean", shards=3)
    clean = {file.name: file.read_bytes() for file in (tmp_path / "clean").iterdir()}
    assert {file.name: file.read_bytes() for file in output.iterdir()} == clean


@pytest.mark.slow
def test_what_was_damaged_between_two_steps_is_refused_and_made_again(
    documents: str, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(records, "RecordWriter", killed)
    with pytest.raises(RuntimeError, match="killed"):
        write([documents, tokenizer], output, shards=2)
    monkeypatch.undo()
    part = output / "parts/encoded-00001-of-00003.arrow"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    with pytest.raises(UserError, match=f"{part}: damaged after it was written"):
        write([documents, tokenizer], output, shards=2)
    with pytest.raises(UserError, match=f"{part}: damaged after it was written"):
        main(["verify", "--delete", str(tmp_path)])
    assert not part.exists()
    assert write([documents, tokenizer], output, shards=2) == write(
        [documents, tokenizer], tmp_path / "clean", shards=2
    )


def test_a_finished_stage_is_not_run_again(
    documents: str, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write([documents, tokenizer], tmp_path / "out", shards=1)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    write([documents, tokenizer], tmp_path / "out", shards=1)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    assert "up to date" in capsys.readouterr().err


def test_wrong_inputs_are_named(
    documents: str, tokenizer: str, tmp_path: Path, write_documents: WriteDocuments
) -> None:
    with pytest.raises(UserError, match=r"holds no tokenizer\.model"):
        write([tokenizer, documents], tmp_path / "out")
    empty = write_documents(tmp_path / "empty", [], shards=1)
    with pytest.raises(UserError, match=f'{empty}: no documents for part "train"'):
        write([empty, tokenizer], tmp_path / "out", shards=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shards": 0}, "shards=0: must be 1 or more"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
        ({"heldout": 1.0}, "heldout=1.0: must be a share"),
        ({"part": "test"}, "part='test': must be one of train, heldout"),
        ({"part": "heldout"}, "set heldout to a share"),
    ],
)
def test_configuration_says_what_is_wrong(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenRecordsConfig(**fields)
