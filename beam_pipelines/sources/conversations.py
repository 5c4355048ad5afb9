"""Collects conversations for instruction tuning from Parquet and JSON files.

    python -m beam_pipelines conversations --conversations=opc-sft-stage1 --output=runs/conversations

.parquet, .jsonl and .json (a row a line, or one array of rows) are read, the last two also with .gz or .zst, from a
folder and its folders. Presets (`PRESETS`) know OpenCoder's releases (opc-sft-stage1 with its three subsets and
opc-sft-stage2 with its four: columns instruction and output), Alpaca's, ShareGPT's and lists of messages; every column
can be named by itself.

A conversation becomes a document of kind "chat", whose text is a JSON list of messages (opencoder_jax/data/chat.py): so
it goes through decontamination and into token records like any other. Its language is that of the first fenced block
that names one. Empty lines around what is said go, since an answer can't begin with one; a system message may be empty,
and isn't the default one then. An answer of weight 0 (or false) is read, and not trained on. Rows that are no
conversation are counted drops: broken_json, no_messages, no_text, not_utf8, unknown_role, misplaced_system, empty_turn,
odd_weight, begins_with_answer, no_answer (or none of a weight). How long is too long, only tokens say: see
TokenRecordsConfig.chat_tokens.
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
from opencoder_jax.data import chat
from opencoder_jax.data.chat import Message
from opencoder_jax.recipe import configurable

SPEED = 40.0  # megabytes a second on one core

# The columns of published data sets: a list of messages, or a question and its answer.
PRESETS: dict[str, dict[str, str]] = {
    "opencoder": {"question": "instruction", "material": "input", "answer": "output"},  # its releases have no input
    "alpaca": {"question": "instruction", "material": "input", "answer": "output"},
    "sharegpt": {"messages": "conversations", "system": "system"},
    "messages": {"messages": "messages", "system": "system"},
}

# What data sets call the speakers, and where a message has its speaker, its words, and whether they are trained on.
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value", "text")
_WEIGHT_KEYS = ("weight", "loss", "train", "training")

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
    messages: list[Message] = [{**turn, "content": _tidy(turn["content"])} for turn in found]
    for number, turn in enumerate(messages):
        if not turn["content"] and turn["role"] != "system":
            raise NotAConversation("empty_turn", f"message {number}, of the {turn['role']}")
        if not is_unicode(turn["content"]):
            raise NotAConversation("not_utf8", f"message {number} holds a lone surrogate")
        if turn["role"] == "system" and number > 0:
            raise NotAConversation("misplaced_system", f"message {number}")
    roles = [turn["role"] for turn in messages if turn["role"] != "system"]
    if not any(map(chat.is_trained, messages)):
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
        trained = _is_weighted(message, number) or ROLES[role.lower()] != "assistant"
        found.append(chat.turn(ROLES[role.lower()], _text(message, number), trained))
    return found


def _is_weighted(message: Mapping[str, Any], number: int) -> bool:
    """Whether a message doesn't say that it isn't to be trained on."""
    weights = [message.get(key) for key in _WEIGHT_KEYS]
    for key, weight in zip(_WEIGHT_KEYS, weights, strict=True):
        if weight not in (None, 0, 1):
            raise NotAConversation("odd_weight", f"message {number} has the {key} {weight!r:.80}, not 0 or 1")
    return 0 not in weights


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
    for number, row in rows_of(file, config.columns(), config.required(), _advice):
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


def _advice(names: Sequence[str]) -> str:
    for preset in PRESETS:
        config = ConversationsConfig(preset)
        if {config.columns()[name] for name in config.required()} <= set(names):
            return f"they are those of --gin.ConversationsConfig.preset={preset}"
    return "name the columns: --gin.ConversationsConfig.messages=…, or .question=… and .answer=…"


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
        conversations: a Parquet or JSON file, or a folder of them

    Raises:
        UserError: an input is missing, holds no table, is damaged or lacks the columns.
    """
    files = list_units(conversations, TABLES)
    return collect_units(__name__, files, read_conversations, config, output, options, SPEED)
