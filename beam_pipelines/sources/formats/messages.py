"""The messages of a row of a table: a list of them in any spelling, or a question and its answer."""

import json
import re
from collections.abc import Mapping
from typing import Any

from opencoder_jax.beam_pipelines.sources.formats.members import is_unicode
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.chat import Message

# What data sets call the speakers, and where a message has its speaker, its words, and whether they are trained on.
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value", "text")
# What an answer may hold beside its words: calls that no text says, and thoughts that were written before it.
_CALL_KEYS = ("tool_calls", "function_call")
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_WEIGHT_KEYS = ("weight", "loss", "train", "training")

_EMPTY_LINES_BEFORE = re.compile(r"\A\s*[\r\n]")  # to the last of them


class NotAConversation(Exception):
    """Why a row is dropped: a reason, and what to look at."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def conversation(row: Mapping[str, Any], thoughts: str = "drop") -> list[Message]:
    """The messages of a row, fields by our names.

    Args:
        thoughts: see ConversationsConfig.

    Raises:
        NotAConversation: it has none that could be trained on.
    """
    found = _listed(row["messages"], thoughts) if "messages" in row else _asked_and_answered(row)
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


def _listed(messages: Any, thoughts: str) -> list[Message]:
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
        if any(message.get(key) for key in _CALL_KEYS):
            raise NotAConversation("tool_call", f"message {number} calls a tool")
        found.append(
            chat.turn(ROLES[role.lower()], _thoughts(message, number, thoughts) + _text(message, number), trained)
        )
    return found


def _is_weighted(message: Mapping[str, Any], number: int) -> bool:
    """Whether a message doesn't say that it isn't to be trained on."""
    weights = [message.get(key) for key in _WEIGHT_KEYS]
    for key, weight in zip(_WEIGHT_KEYS, weights, strict=True):
        if weight not in (None, 0, 1):
            raise NotAConversation("odd_weight", f"message {number} has the {key} {weight!r:.80}, not 0 or 1")
    return 0 not in weights


def _thoughts(message: Mapping[str, Any], number: int, wanted: str) -> str:
    """What was thought before a message, as it is said."""
    thought = next((message[key] for key in _THOUGHT_KEYS if message.get(key)), "")
    if thought and (wanted == "drop" or not isinstance(thought, str)):
        raise NotAConversation("thoughts", f"message {number} holds some beside its text: {thought!r:.80}")
    return f"<think>\n{thought.strip()}\n</think>\n\n" if thought and wanted == "say" else ""


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
