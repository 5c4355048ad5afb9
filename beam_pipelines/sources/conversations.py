"""Collects conversations for instruction tuning from Parquet and JSON files.

    python -m beam_pipelines conversations --conversations=opc-sft-stage1 --output=runs/conversations

.parquet, .jsonl and .json (a row a line, or one array of rows) are read, the last two also with .gz or .zst, from a
folder and its folders. Presets (`PRESETS`) know OpenCoder's releases (opc-sft-stage1 with its three subsets and
opc-sft-stage2 with its four: columns instruction and output), Alpaca's, ShareGPT's and lists of messages; every column
can be named by itself.

A conversation becomes a document of kind "chat", whose text is a JSON list of messages (tokenization/chat.py): so it
goes through decontamination and into token records like any other. Its language is that of the first fenced block that
names one. Empty lines around what is said go, since an answer can't begin with one; a system message may be empty,
and isn't the default one then. An answer of weight 0 (or false) is read, and not trained on. Rows that are no
conversation are counted drops: broken_json, no_messages, no_text, not_utf8, unknown_role, misplaced_system, empty_turn,
odd_weight, tool_call, thoughts, begins_with_answer, no_answer (or none of a weight). How long is too long, only tokens
say: see TokenRecordsConfig.chat_tokens.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages.detect import Language, by_name
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.members import Late
from opencoder_jax.beam_pipelines.sources.formats.messages import NotAConversation, conversation
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units, rows_of
from opencoder_jax.beam_pipelines.sources.units import USUAL, QuarantineConfig, collect_units
from opencoder_jax.checks import check, one_of
from opencoder_jax.recipe import configurable
from opencoder_jax.tokenization.chat import Message

SPEED = 40.0  # megabytes a second on one core

# The columns of published data sets: a list of messages, or a question and its answer.
PRESETS: dict[str, dict[str, str]] = {
    "opencoder": {"question": "instruction", "material": "input", "answer": "output"},  # its releases have no input
    "alpaca": {"question": "instruction", "material": "input", "answer": "output"},
    "sharegpt": {"messages": "conversations", "system": "system"},
    "messages": {"messages": "messages", "system": "system"},
}

_FENCE = re.compile(r"^```[ \t]*([\w+#.-]+)", re.MULTILINE)


@configurable
@dataclass(frozen=True)
class ConversationsConfig:
    """Which columns are what.

    Attributes:
        preset: of PRESETS.
        messages, question, material, answer, system: a column each, instead of the preset's. `material` follows the
            question after an empty line; `system` is the system message of a conversation that has none.
        thoughts: what becomes of those that a message holds beside its text (reasoning_content, reasoning, thinking):
            "drop" drops the conversation, "leave_out" the thoughts, and "say" puts them before the answer, between
            <think> and </think>.
        source: what documents call this data set; the preset by default.
    """

    preset: str = "opencoder"
    messages: str = ""
    question: str = ""
    material: str = ""
    answer: str = ""
    system: str = ""
    thoughts: str = "drop"
    source: str = ""

    def __post_init__(self) -> None:
        check(self, preset=one_of(*PRESETS), thoughts=one_of("drop", "leave_out", "say"))

    def columns(self) -> dict[str, str]:
        """The column of each field that has one."""
        names = ("messages", "question", "material", "answer", "system")
        return PRESETS[self.preset] | {name: column for name in names if (column := getattr(self, name))}

    def required(self) -> tuple[str, ...]:
        """The fields whose columns must be there."""
        return ("messages",) if "messages" in self.columns() else ("question", "answer")


def read_conversations(file: Unit, config: ConversationsConfig) -> Iterator[Late]:
    """The rows of a file as documents and drops."""
    source = config.source or config.preset
    for number, row in rows_of(file, config.columns(), config.required(), _advice):
        yield Late(f"row {number}", partial(_row, file.name, number, row, source, config.thoughts))


def _row(file: str, number: int, row: dict[str, Any] | str, source: str, thoughts: str) -> Row:
    text, name, reason, detail = "", "Markdown", "", ""
    try:
        if isinstance(row, str):
            raise NotAConversation("broken_json", row)
        messages = conversation(row, thoughts)
        text, name = json.dumps(messages, ensure_ascii=False), _language(messages)
    except NotAConversation as error:
        reason = error.reason
        detail = error.detail or f"{file}, row {number}"
    return document(
        source,
        f"{file}/{number}",
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


def run(
    conversations: Sequence[str],
    output: str,
    config: ConversationsConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Collects conversations.

    Args:
        conversations: a Parquet or JSON file, or a folder of them

    Raises:
        UserError: an input is missing, holds no table or nowhere the columns, or too much is damaged.
    """
    files = list_units(conversations, TABLES, output, options)
    return collect_units(__name__, files, read_conversations, config, output, options, SPEED, quarantine, own_ids=True)
