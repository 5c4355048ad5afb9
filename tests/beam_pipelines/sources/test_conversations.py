"""Conversations in the schemas in which they are published, and rows that are none."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.documents import DROP_SCHEMA, SCHEMA
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.sources.conversations import ConversationsConfig, NotAConversation, conversation, run
from opencoder_jax.data import chat
from opencoder_jax.recipe import UserError

Collected = tuple[Manifest, list[dict[str, Any]], list[dict[str, Any]]]

QUESTION, ANSWER = "Add two numbers in C++.", "Like this:\n\n```cpp\nint add(int a, int b) { return a + b; }\n```"
PAIR = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]


def collect(source: Path, output: Path, **config: Any) -> Collected:
    manifest = run(
        conversations=[str(source)], output=str(output), config=ConversationsConfig(**config), options=BeamOptions()
    )

    def rows(table: str, schema: pa.Schema) -> list[dict[str, Any]]:
        return [row for name in manifest.shards(table) for row in pq.read_table(output / name).cast(schema).to_pylist()]

    return manifest, rows("documents", SCHEMA), rows("drops", DROP_SCHEMA)


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".gz":
        file.write_bytes(gzip.compress(lines))
    elif file.suffix == ".zst":
        with pa.CompressedOutputStream(str(file), "zstd") as stream:
            stream.write(lines)
    else:
        file.write_bytes(lines)


STAGE_1 = {"instruction": QUESTION, "output": ANSWER, "tag": "code"}
STAGE_2 = {"seq_id": 7, "instruction": QUESTION, "output": ANSWER, "code": "", "entry_point": "add", "testcase": ["a"]}
SHAREGPT = {"id": "x", "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]}
MESSAGES = {"messages": PAIR, "system": None}
PARTS = {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}, PAIR[1]]}
AS_JSON = {"messages": json.dumps(PAIR)}


@pytest.mark.parametrize(
    ("preset", "row"),
    [
        ("opencoder", STAGE_1),
        ("opencoder", STAGE_2),
        ("sharegpt", SHAREGPT),
        ("messages", MESSAGES),
        ("messages", AS_JSON),
        ("alpaca", {"instruction": QUESTION, "input": "", "output": ANSWER}),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_published_schemas(preset: str, row: dict[str, Any], name: str, tmp_path: Path) -> None:
    write(tmp_path / name, [row, row])
    manifest, documents, drops = collect(tmp_path, tmp_path / "out", preset=preset)
    assert [chat.parse(document["text"]) for document in documents] == [PAIR, PAIR]
    first = 0 if name.endswith("parquet") else 1
    assert documents[1] == documents[1] | {
        "path": f"{name}/{first + 1}",
        "repository": preset,
        "source": preset,
        "kind": "chat",
        "language": "C++",
        "bytes": len(documents[1]["text"].encode()),
    }
    assert len({document["id"] for document in documents}) == 2
    assert not drops
    assert manifest.total("out", "documents") == 2


def test_system_messages_several_turns_and_material(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi."},
        {"from": "gpt", "value": "\n \n  Hello.\r\nYou? \n"},
        {"from": "human", "value": "<|im_end|> \u2028"},
        {"from": "chatgpt", "value": "Yes."},
    ]
    (messages,) = [conversation({"messages": turns, "system": "not this one"})]
    assert [turn["role"] for turn in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn["content"] for turn in messages] == ["Be brief.", "Hi.", "  Hello.\nYou?", "<|im_end|>", "Yes."]
    with_system = conversation({"messages": PAIR, "system": "Be brief."})
    assert with_system == [{"role": "system", "content": "Be brief."}, *PAIR]
    assert conversation({"messages": PARTS["messages"]}) == PAIR
    alpaca = conversation({"question": "Sort:", "material": "3 1 2", "answer": "1 2 3"})
    assert alpaca[0]["content"] == "Sort:\n\n3 1 2"

    write(tmp_path / "own.jsonl", [{"q": {"text": "Why?"}, "a": "So."}])
    config = ConversationsConfig(question="q.text", answer="a", source="own")
    given = [str(tmp_path / "own.jsonl")]
    manifest = run(conversations=given, output=str(tmp_path / "out"), config=config, options=BeamOptions())
    documents = pq.read_table(tmp_path / "out" / manifest.shards("documents")[0]).to_pylist()
    assert [(row["source"], row["language"]) for row in documents] == [("own", "Markdown")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": None}, "no_messages"),
        ({"messages": []}, "no_messages"),
        ({"messages": "{"}, "no_messages"),
        ({"messages": ["hello"]}, "no_messages"),
        ({"messages": [{"role": "robot", "content": "Beep."}]}, "unknown_role"),
        ({"messages": [{"content": "Beep."}]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": {"image": 1}}]}, "no_text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "no_text"),
        ({"messages": [PAIR[0], {"role": "system", "content": "x"}, PAIR[1]]}, "misplaced_system"),
        ({"messages": [PAIR[0], {"role": "assistant", "content": " \n"}]}, "empty_turn"),
        ({"messages": [PAIR[1], PAIR[0]]}, "begins_with_answer"),
        ({"messages": [PAIR[0]]}, "no_answer"),
        ({"messages": [PAIR[0], {"role": "assistant", "content": "\ud800"}]}, "not_utf8"),
        ({"question": None, "answer": "x"}, "no_text"),
        ({"question": "x", "answer": ["y"]}, "no_text"),
        ({"question": "x", "answer": ""}, "empty_turn"),
    ],
)
def test_rows_that_are_no_conversation(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotAConversation) as error:
        conversation(row)
    assert error.value.reason == reason


def test_drops_are_counted_with_their_reasons(tmp_path: Path) -> None:
    lines = [json.dumps(STAGE_1), "{", '{"instruction": "x"}', '{"instruction": "\\ud800", "output": "y"}', "", "[1]"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    manifest, documents, drops = collect(tmp_path, tmp_path / "out")
    assert len(documents) == 1
    assert manifest.table("drop", "documents") == {"broken_json": 2, "no_text": 1, "not_utf8": 1}
    assert [(row["path"], row["reason"]) for row in drops] == [
        ("a.jsonl/2", "broken_json"),
        ("a.jsonl/3", "no_text"),
        ("a.jsonl/4", "not_utf8"),
        ("a.jsonl/6", "broken_json"),
    ]
    assert manifest.total("in", "documents") == 5


texts = st.text(max_size=12) | st.sampled_from(["\n\nx", " \r\n y", "```python\n"])
parts = st.none() | texts | st.dictionaries(st.sampled_from(["text", "type"]), texts)
values = st.none() | texts | st.lists(parts, max_size=2)
message = st.dictionaries(
    st.sampled_from(["role", "from", "content", "value"]), values | st.sampled_from(["user", "gpt", "system", "Human"])
)


@given(
    st.fixed_dictionaries(
        {"messages": st.none() | texts | st.lists(message | values, max_size=4), "system": st.none() | texts}
    )
)
def test_any_row_is_a_conversation_that_can_be_trained_on_or_a_drop(row: dict[str, Any]) -> None:
    try:
        messages = conversation(row)
    except NotAConversation:
        return
    assert chat.parse(json.dumps(messages)) == messages
    assert messages[0]["role"] in ("system", "user")
    for turn in messages:
        assert turn["content"] == turn["content"].rstrip() != ""
        assert re.match(r"\s*[\r\n]", turn["content"]) is None


def test_what_the_user_can_get_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preset='gpt': must be one of opencoder, alpaca, sharegpt, messages"):
        ConversationsConfig(preset="gpt")
    with pytest.raises(UserError, match="no input is given"):
        run(conversations=[], output=str(tmp_path / "out"), config=ConversationsConfig(), options=BeamOptions())
    write(tmp_path / "a.jsonl", [SHAREGPT])
    with pytest.raises(UserError, match=r"a\.jsonl: no column 'instruction' in id, conversations"):
        collect(tmp_path / "a.jsonl", tmp_path / "out")
    (tmp_path / "b.json").write_text(json.dumps([SHAREGPT], indent=1))
    with pytest.raises(UserError, match=r"b\.json: one JSON array, not a line a row; make lines of it: jq -c '\.\[\]'"):
        collect(tmp_path / "b.json", tmp_path / "out2", preset="sharegpt")
    write(tmp_path / "c.jsonl", [{"instruction": "x", "output": ""}])
    with pytest.raises(UserError, match=r"conversations: no document in c\.jsonl; dropped as empty_turn 1"):
        collect(tmp_path / "c.jsonl", tmp_path / "out3")
