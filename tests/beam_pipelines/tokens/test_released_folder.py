"""Instruction data as released, from its folder to what a run trains on: what is told at each step is what is there.

What is there is counted here from the rows as they were made, and with Hugging Face's `tokenizers`.
"""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers

from opencoder_jax.beam_pipelines.__main__ import main
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.tokens import train_tokenizer
from opencoder_jax.data.batches import Batches, DataConfig
from opencoder_jax.exchange.tokenizer_export import main as export
from opencoder_jax.tokenization.chat import DEFAULT_SYSTEM
from opencoder_jax.training.counts import count_sources, counts_table
from tests.beam_pipelines.tokens.conftest import WriteDocuments

LONGEST = 300  # tokens of a conversation that is kept


def talk(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def pair(number: int) -> tuple[tuple[str, str], tuple[str, str]]:
    answer = f"def f{number}():\n    return {number}" + " # é" * (number % 5)
    return ("user", f"Write f{number}."), ("assistant", answer)


# Rows, each with what becomes of it: "" is kept. Fields that nobody reads are odd on purpose.
ROWS: list[tuple[dict[str, Any], str]] = [
    *((talk(*pair(number), id=number, meta={"tags": ["a", None]}), "") for number in range(20)),
    (talk(("system", "Be brief."), *pair(1), *pair(2)), ""),
    (talk(("system", ""), *pair(3)), ""),
    *((talk(("user", "Long."), ("assistant", "word " * 400)), "too_long") for _ in range(3)),
    *((talk(("user", "Unanswered.")), "no_answer") for _ in range(2)),
    (talk(("assistant", "First.")), "begins_with_answer"),
    (talk(("user", " "), ("assistant", "Yes.")), "empty_turn"),
    (talk(("narrator", "Once."), *pair(4)), "unknown_role"),
    (talk(*pair(5), ("system", "Late."), *pair(6)), "misplaced_system"),
    (talk(), "no_messages"),
    ({"other": 1}, "no_messages"),
    ({"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "x"}]}, "no_text"),
]


def lay_out(root: Path) -> None:
    """The rows in nested folders: lines, packed lines, an array, Parquet in two files; beside them what hubs add."""
    lines, packed, array, *tables = [[row for row, _ in ROWS[first::5]] for first in range(5)]
    for folder in ("data/lines", "data/packed", "array", "table/en", ".cache/huggingface"):
        (root / folder).mkdir(parents=True)
    (root / "data/lines/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines) + "{broken\n")
    (root / "data/packed/train.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, packed)).encode()))
    (root / "array/data.json").write_text(json.dumps(array, indent=2))
    kind = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    for number, rows in enumerate(tables):
        columns = {"messages": pa.array([row.get("messages") for row in rows], kind), "score": [0.5] * len(rows)}
        pq.write_table(pa.table(columns), root / f"table/en/train-0000{number}-of-00002.parquet", row_group_size=3)
    (root / "README.md").write_text("---\nlicense: mit\n---\n# Chats\n")
    (root / "dataset_infos.json").write_text("{}")
    (root / ".cache/huggingface/train.jsonl").write_text(json.dumps(talk(*pair(0))) + "\n")


def told(said: str) -> tuple[int, int, dict[str, int]]:
    """What a stage's last line says: documents in and out, drops by reason."""
    (line,) = re.findall(r"^\w+: \d+ documents .*$", said, re.MULTILINE)
    came, left = (int(re.search(rf"(\d+) documents \([^)]*\) {side}", line)[1]) for side in ("in", "out"))  # type: ignore[index]
    drops = line.partition("dropped: ")[2]
    return came, left, {reason: int(count) for reason, count in re.findall(r"(\w+) (\d+)", drops)}


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["pad", "pack"])
def test_counts_from_the_folder_to_training_are_those_of_the_rows(
    packing: str, tmp_path: Path, write_documents: WriteDocuments, capfd: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path / "release")
    texts = [message["content"] or "" for row, _ in ROWS for message in row.get("messages", [])]
    config = train_tokenizer.TokenizerConfig(vocab_size=320, reserved_ids=2)
    vocabulary = str(tmp_path / "vocabulary")
    documents = write_documents(tmp_path / "texts", texts)
    train_tokenizer.run(documents=[documents], output=vocabulary, config=config, options=BeamOptions())

    chats, records = str(tmp_path / "chats"), str(tmp_path / "records" / "chats")
    preset = "--gin.ConversationsConfig.preset='messages'"
    main(["conversations", f"--conversations={tmp_path / 'release'}", f"--output={chats}", preset])
    reasons = Counter(reason for _, reason in ROWS if reason not in ("", "too_long"))
    reasons.update(broken_json=1, unknown_format=1, description=1, hidden=1)  # one line, and three files
    kept = sum(reason in ("", "too_long") for _, reason in ROWS)
    assert told(capfd.readouterr().out) == (len(ROWS) + 4, kept, dict(reasons))

    limits = ["--gin.TokenRecordsConfig.shards=2", f"--gin.TokenRecordsConfig.chat_tokens={LONGEST}"]
    main(["records", f"--documents={chats}", f"--tokenizer={vocabulary}", f"--output={records}", *limits])
    long = sum(reason == "too_long" for _, reason in ROWS)
    assert told(capfd.readouterr().out) == (kept, kept - long, {"too_long": long})

    export([f"--tokenizer={vocabulary}/tokenizer.model", f"--output={tmp_path / 'hub'}"])
    encoder = tokenizers.Tokenizer.from_file(str(tmp_path / "hub/tokenizer.json"))
    lengths, targets = zip(*(counted(encoder, row["messages"]) for row, reason in ROWS if not reason), strict=True)
    *_, fits, longer, _ = sorted(lengths)
    assert longer > fits
    length = fits - 1  # of a row, whose last target is one more
    data = DataConfig(mixture={"chats": 1.0}, phases=((0, length, 4),), packing=packing)
    pad, end = (encoder.get_vocab()[name] for name in ("<pad>", "</s>"))
    batches = Batches(data, tmp_path / "records", pad, end)
    counts = count_sources(batches, steps=8)
    fitting = [each <= length + 1 for each in lengths]
    name, read, dropped, trained, *_ = counts_table(counts, length).splitlines()[1].split()
    assert (name, int(read), int(dropped), int(trained)) == ("chats", len(lengths), fitting.count(False), sum(fitting))
    share = sum(each for each, kept in zip(targets, fitting, strict=True) if kept) / sum(
        each for each, kept in zip(lengths, fitting, strict=True) if kept
    )
    assert counts["chats"].trained == pytest.approx(share, rel=0.05)


def counted(encoder: tokenizers.Tokenizer, messages: list[dict[str, str]]) -> tuple[int, int]:
    """Tokens of a conversation, and those that are trained on: answers, each with its end."""

    def size(text: str) -> int:
        return len(encoder.encode(text, add_special_tokens=False).ids)

    system = [] if messages[0]["role"] == "system" else [{"role": "system", "content": DEFAULT_SYSTEM}]
    length, targets = 0, 0
    for message in (*system, *messages):
        said = size(f"{message['role']}\n{message['content']}")
        length += said + 2 + size("\n")
        if message["role"] == "assistant":
            targets += said - size("assistant\n") + 1
    return length, targets


@pytest.mark.slow
def test_counts_of_tables_are_those_of_their_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Code as The Stack has it, by languages in folders, of which one has a name in full width and one is an array."""
    rows: list[tuple[dict[str, Any], str]] = [
        *((code(number, "Python"), "") for number in range(9)),
        *((code(number, "Go", licenses=["MIT", None], extra={"a": [1]}), "") for number in range(9, 14)),
        (code(3, "Python"), "same_id_elsewhere"),
        (code(20, "Python", content=None), "no_text"),
        (code(21, "Python", content=" \n"), "empty"),
        (code(22, "Klingon"), "unknown_language"),
        (code(23, "Python", star_events_count=None, committer_date=None), ""),
    ]
    release = tmp_path / "release"
    for folder in ("data/Ｐython", "data/Go", "more"):
        (release / folder).mkdir(parents=True)
    (release / "data/Ｐython/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row, _ in rows[:9]) + "[1]\n")
    pq.write_table(pa.Table.from_pylist([row for row, _ in rows[9:14]]), release / "data/Go/train.parquet")
    (release / "more/rows.json").write_text(json.dumps([row for row, _ in rows[14:]]))
    (release / "LICENSE").write_text("MIT\n")
    preset = "--gin.TablesConfig.preset='the_stack_v2'"
    main(["tables", f"--tables={release}", f"--output={tmp_path / 'out'}", preset])
    reasons = Counter(reason for _, reason in rows if reason) + Counter(broken_json=1, unknown_format=1)
    assert told(capfd.readouterr().out) == (len(rows) + 2, 15, dict(reasons))
    documents = [row for file in (tmp_path / "out").glob("documents-*") for row in pq.read_table(file).to_pylist()]
    assert Counter(row["language"] for row in documents) == {"Python": 10, "Go": 5}
    assert {row["text"] for row in documents} == {row["content"] for row, reason in rows if not reason}


def code(number: int, language: str, **more: Any) -> dict[str, Any]:
    text = f"x{number} = {number}\n" * 5
    row = {"blob_id": f"b{number}", "content": text, "path": f"/{number}", "repo_name": "o/r", "language": language}
    return row | {"star_events_count": 3, "committer_date": "2023-01-01T00:00:00Z"} | more
