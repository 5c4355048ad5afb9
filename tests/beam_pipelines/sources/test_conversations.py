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
from opencoder_jax.beam_pipelines.sources import inputs
from opencoder_jax.beam_pipelines.sources.conversations import ConversationsConfig, NotAConversation, conversation, run
from opencoder_jax.beam_pipelines.sources.formats import rows as table_rows
from opencoder_jax.beam_pipelines.sources.inputs import Unit
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization import chat

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
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows, indent=1), "utf-8")
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
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet", "sub/set/a.jsonl"])
def test_published_schemas(preset: str, row: dict[str, Any], name: str, tmp_path: Path) -> None:
    (tmp_path / "in" / name).parent.mkdir(parents=True)
    write(tmp_path / "in" / name, [row, row])
    manifest, documents, drops = collect(tmp_path / "in", tmp_path / "out", preset=preset)
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


def test_an_empty_system_message_stays_empty() -> None:
    """It isn't the default one: who wrote it wants none."""
    silent: dict[str, Any] = {"role": "system", "content": " "}
    assert conversation({"messages": [silent, *PAIR]}) == [{"role": "system", "content": ""}, *PAIR]
    assert conversation({"messages": PAIR, "system": " "}) == PAIR  # the column of a table has no null


@pytest.mark.parametrize("key", ["weight", "loss", "train"])
def test_answers_of_no_weight_are_not_trained_on(key: str) -> None:
    turns: list[dict[str, Any]] = [*PAIR, *PAIR]
    turns = [turn | {key: weight} for turn, weight in zip(turns, (0, False, None, 1.0), strict=True)]
    messages = conversation({"messages": turns})
    assert [turn.get("weight") for turn in messages] == [None, 0, None, None]
    assert chat.parse(json.dumps(messages)) == messages
    with pytest.raises(NotAConversation, match="no_answer"):
        conversation({"messages": [PAIR[0], PAIR[1] | {key: 0}]})
    with pytest.raises(NotAConversation, match=rf"odd_weight.*{key} 0\.5, not 0 or 1"):
        conversation({"messages": [PAIR[0], PAIR[1] | {key: 0.5}]})


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_thoughts_beside_an_answer_are_never_lost_without_a_word(key: str) -> None:
    turns: list[dict[str, Any]] = [PAIR[0], PAIR[1] | {key: "\nFirst, this.\n"}]
    with pytest.raises(NotAConversation, match=r"thoughts.*message 1 holds some"):
        conversation({"messages": turns})
    assert conversation({"messages": turns}, "leave_out") == PAIR
    said = f"<think>\nFirst, this.\n</think>\n\n{PAIR[1]['content']}"
    assert conversation({"messages": turns}, "say") == [PAIR[0], {"role": "assistant", "content": said}]
    for empty in ("", None):
        assert conversation({"messages": [PAIR[0], PAIR[1] | {key: empty}]}) == PAIR


@pytest.mark.parametrize("call", [{"tool_calls": [{"name": "search"}]}, {"function_call": {"name": "search"}}])
def test_an_answer_that_calls_a_tool_is_dropped(call: dict[str, Any]) -> None:
    """Without its call it would teach to answer out of nothing."""
    with pytest.raises(NotAConversation, match="tool_call"):
        conversation({"messages": [PAIR[0], PAIR[1] | call]})
    assert conversation({"messages": [PAIR[0], PAIR[1] | {"tool_calls": []}]}) == PAIR


def test_a_release_as_it_is_published(tmp_path: Path) -> None:
    """Folders of subsets with files of one name, descriptions, a cache, and the stage's own output among them."""
    for name in ("one", "two", ".cache"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train-00000-of-00001.parquet", [STAGE_1 | {"instruction": name}])
    (tmp_path / "dataset_infos.json").write_text("{}")
    for _ in range(2):  # the second finds the output of the first
        _, documents, _ = collect(tmp_path, tmp_path / "out")
        assert [(row["path"], chat.parse(row["text"])[0]["content"]) for row in documents] == [
            ("one/train-00000-of-00001.parquet/0", "one"),
            ("two/train-00000-of-00001.parquet/0", "two"),
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"instruction": "x", "output": "y"}, {"instr', "element 2: .*fetch it again"),
        ('[{"instruction": "x", "output": "y"}', "element 2: "),
        ('[{"instruction": "x", "output": "y"}]\n[', "something stands behind the array of 1 elements"),
        ("[" * 10_000, "element 1 is too deeply nested"),
    ],
)
def test_a_damaged_array_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json: damaged or cut short \(.*{message}"):
        collect(tmp_path / "a.json", tmp_path / "out")


def test_an_array_is_read_whatever_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [{"instruction": f"“{number}”" * number, "output": "[{]}"} for number in range(1, 60)]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf \n" + json.dumps([*rows, 7], ensure_ascii=False).encode())
    unit = Unit(str(tmp_path), "a.json", 0)
    for size in (7, 64, 1 << 20):
        monkeypatch.setattr(table_rows, "_BLOCK", size)
        *found, (number, broken) = inputs.rows_of(unit, {"question": "instruction"}, ("question",))
        assert found == [(place, {"question": row["instruction"]}) for place, row in enumerate(rows, 1)]
        assert (number, broken) == (60, "element 60: no JSON object")


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
        assert turn["content"] == turn["content"].rstrip()
        assert turn["content"] or turn["role"] == "system"
        assert re.match(r"\s*[\r\n]", turn["content"]) is None


def test_what_the_user_can_get_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preset='gpt': must be one of opencoder, alpaca, sharegpt, messages"):
        ConversationsConfig(preset="gpt")
    with pytest.raises(UserError, match="no input is given"):
        run(conversations=[], output=str(tmp_path / "out"), config=ConversationsConfig(), options=BeamOptions())
    write(tmp_path / "a.jsonl", [SHAREGPT])
    right = r"they are those of --gin\.ConversationsConfig\.preset=sharegpt"
    with pytest.raises(UserError, match=rf"a\.jsonl: no column 'instruction' in id, conversations; {right}"):
        collect(tmp_path / "a.jsonl", tmp_path / "out")
    write(tmp_path / "b.json", [{"prompt": "x"}])
    with pytest.raises(UserError, match=r"b\.json: no column 'messages' in prompt; name the columns"):
        collect(tmp_path / "b.json", tmp_path / "out2", preset="messages")
    write(tmp_path / "c.jsonl", [{"instruction": "x", "output": ""}])
    with pytest.raises(UserError, match=r"conversations: no document in c\.jsonl; dropped as empty_turn 1"):
        collect(tmp_path / "c.jsonl", tmp_path / "out3")
