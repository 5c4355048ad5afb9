"""Collects conversations for instruction tuning from Parquet and JSON-lines files.

    python -m beam_pipelines conversations --conversations=opc-sft-stage1 --output=runs/conversations

.parquet, .jsonl and .json are read, the last two also with .gz or .zst. Presets (`PRESETS`) know OpenCoder's releases
(opc-sft-stage1 with its three subsets and opc-sft-stage2 with its four: columns instruction and output), Alpaca's,
ShareGPT's and lists of messages; every column can be named by itself.

A conversation becomes a document of kind "chat", whose text is a JSON list of messages (opencoder_jax/data/chat.py): so
it goes through decontamination and into token records like any other. Its language is that of the first fenced block
that names one. Empty lines around what is said go, since an answer can't begin with one. Rows that are no conversation
are counted drops: broken_json, no_messages, no_text, not_utf8, unknown_role, misplaced_system, empty_turn,
begins_with_answer, no_answer. How long is too long, only tokens say: see TokenRecordsConfig.chat_tokens.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages.detect import Language, by_name
from opencoder_jax.beam_pipelines.sources.builder import Row, document, is_unicode
from opencoder_jax.beam_pipelines.sources.inputs import TABLES, Unit, list_units, rows_of
from opencoder_jax.beam_pipelines.sources.units import collect_units
from opencoder_jax.checks import check, one_of
from opencoder_jax.data.chat import Message
from opencoder_jax.recipe import configurable

SPEED = 40.0  # megabytes a second on one core

# The columns of published data sets: a list of messages, or a question and its answer.
PRESETS: dict[str, dict[str, str]] = {
    "opencoder": {"question": "instruction", "answer": "output"},
    "alpaca": {"question": "instruction", "material": "input", "answer": "output"},
    "sharegpt": {"messages": "conversations", "system": "system"},
    "messages": {"messages": "messages", "system": "system"},
}

# What data sets call the speakers, and where a message has its speaker and its words.
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value", "text")

_FENCE = re.compile(r"^```[ \t]*([\w+#.-]+)", re.MULTILINE)
_EMPTY_LINES_BEFORE = re.compile(r"\A\s*[\r\n]")  # to the last of them


@configurable
@dataclass(frozen=True)
class ConversationsConfig:
    """Which columns are what.

    Attributes:
        preset: of PRESETS.
        messages, question, material, answer, system: a column each, instead of the preset's. `material` follows the
            question after an empty line; `system` is the system message of a conversation that has none.
        source: what documents call this data set; the preset by default.
    """

    preset: str = "opencoder"
    messages: str = ""
    question: str = ""
    material: str = ""
    answer: str = ""
    system: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        check(self, preset=one_of(*PRESETS))

    def columns(self) -> dict[str, str]:
        """The column of each field that has one."""
        names = ("messages", "question", "material", "answer", "system")
        return PRESETS[self.preset] | {name: column for name in names if (column := getattr(self, name))}

    def required(self) -> tuple[str, ...]:
        """The fields whose columns must be there."""
        return ("messages",) if "messages" in self.columns() else ("question", "answer")


class NotAConversation(Exception):
    """Why a row is dropped: a reason, and what to look at."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def conversation(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a row, fields by our names.

    Raises:
        NotAConversation: it has none that could be trained on.
    """
    found = _listed(row["messages"]) if "messages" in row else _asked_and_answered(row)
    system = row.get("system")
    if isinstance(system, str) and system.strip() and found[0]["role"] != "system":
        found.insert(0, {"role": "system", "content": system})
    messages = [Message(role=turn["role"], content=_tidy(turn["content"])) for turn in found]
    for number, turn in enumerate(messages):
        if not turn["content"]:
            raise NotAConversation("empty_turn", f"message {number}, of the {turn['role']}")
        if not is_unicode(turn["content"]):
            raise NotAConversation("not_utf8", f"message {number} holds a lone surrogate")
        if turn["role"] == "system" and number > 0:
            raise NotAConversation("misplaced_system", f"message {number}")
    roles = [turn["role"] for turn in messages if turn["role"] != "system"]
    if "assistant" not in roles:
        raise NotAConversation("no_answer")
    if roles[0] == "assistant":
        raise NotAConversation("begins_with_answer")
    return messages


def _asked_and_answered(row: Mapping[str, Any]) -> list[Message]:
    parts = [row.get("question"), row.get("material") or "", row.get("answer")]
    if not all(isinstance(part, str) for part in parts):
        raise NotAConversation("no_text", f"question and answer are {parts!r:.80}")
    question, material, answer = map(str, parts)
    asked = f"{question}\n\n{material}" if material.strip() else question
    return [Message(role="user", content=asked), Message(role="assistant", content=answer)]


def _listed(messages: Any) -> list[Message]:
    if isinstance(messages, str):  # some tables hold the list as JSON
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise NotAConversation("no_messages", str(error)) from None
    if not isinstance(messages, list) or not messages:
        raise NotAConversation("no_messages", f"{messages!r:.80}")
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise NotAConversation("no_messages", f"message {number} is {message!r:.80}")
        role = next((message[key] for key in _ROLE_KEYS if message.get(key) is not None), None)
        if not isinstance(role, str) or role.lower() not in ROLES:
            raise NotAConversation("unknown_role", f"message {number} is by {role!r:.80}")
        found.append(Message(role=ROLES[role.lower()], content=_text(message, number)))
    return found


def _text(message: Mapping[str, Any], number: int) -> str:
    content = next((message[key] for key in _CONTENT_KEYS if message.get(key) is not None), None)
    if isinstance(content, list):  # parts, of which only texts can be trained on
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        content = "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise NotAConversation("no_text", f"message {number} holds {message!r:.80}")
    return content


def _tidy(content: str) -> str:
    """Without empty lines before it and white space behind it; indentation stays."""
    return _EMPTY_LINES_BEFORE.sub("", content.replace("\r\n", "\n")).rstrip()


def read_conversations(file: Unit, config: ConversationsConfig) -> Iterator[Row]:
    """The rows of a file as documents and drops."""
    source = config.source or config.preset
    for number, row in rows_of(file, config.columns(), config.required()):
        text, name, reason, detail = "", "Markdown", "", ""
        try:
            if isinstance(row, str):
                raise NotAConversation("broken_json", row)
            messages = conversation(row)
            text, name = json.dumps(messages, ensure_ascii=False), _language(messages)
        except NotAConversation as error:
            reason = error.reason
            detail = (error.detail or f"{file.name}, row {number}").encode("utf-8", "replace").decode()
        yield document(
            source,
            f"{file.name}/{number}",
            text,
            source=source,
            language=Language(name, "chat"),
            max_bytes=None,
            reason=reason,
            detail=detail,
        )


def _language(messages: Sequence[Message]) -> str:
    for turn in messages:
        for name in _FENCE.findall(turn["content"]):
            language = by_name(name)
            if language.kind != "unknown":
                return language.name
    return "Markdown"


def run(conversations: Sequence[str], output: str, config: ConversationsConfig, options: BeamOptions) -> Manifest:
    """Collects conversations.

    Args:
        conversations: a Parquet or JSON-lines file, or a folder of them

    Raises:
        UserError: an input is missing, holds no table, is damaged or lacks the columns.
    """
    files = list_units(conversations, TABLES)
    return collect_units(__name__, files, read_conversations, config, output, options, SPEED)
