r"""ChatML, the chat format of OpenCoder-Instruct.

A message is `<|im_start|>{role}\n{content}<|im_end|>\n`; a conversation without a system message begins with the
default one; a prompt ends with `<|im_start|>assistant\n` (its chat_template.jinja). The two control tokens are inserted
as ids and never parsed from text: a message that spells them out is just text, and can't close its turn.

The loss is on the assistant's content and on the `<|im_end|>` behind it. The released tuning script differs in one
place: its targets have a newline before `<|im_end|>`, which no history in the template's format has; we train on what
the template will show.
"""

import json
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from opencoder_jax.data.tokenizer import IM_END, IM_START, Tokenizer

DEFAULT_SYSTEM = "You are OpenCoder, created by OpenCoder Team."

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn."""

    role: str  # system | user | assistant
    content: str


def parse(text: str) -> list[Message]:
    """The conversation in a JSON list of objects with the strings role and content. Raises ValueError for another."""
    messages = json.loads(text)
    if not isinstance(messages, list):
        raise ValueError(f"a conversation must be a JSON list of messages; got {text:.80}")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"message {number} must have the strings role and content; got {message!r:.80}")
    return [Message(role=message["role"], content=message["content"]) for message in messages]


def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """The conversation as people read it, with the control tokens spelt out; not for encoding.

    Raises:
        ValueError: see `encode`.
    """
    turns = [f"{IM_START}{turn['role']}\n{turn['content']}{IM_END}\n" for turn in _with_system(messages)]
    return "".join(turns) + (f"{IM_START}assistant\n" if add_generation_prompt else "")


def encode(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [n] of a conversation and their loss mask uint8 [n], 1 where the assistant speaks.

    Raises:
        ValueError: there's no message, a role is unknown, or a system message isn't the first.
    """
    tokens: list[int] = []
    loss_mask: list[int] = []
    for turn in _with_system(messages):
        head = [tokenizer.im_start, *tokenizer.encode(f"{turn['role']}\n")]
        body = [*tokenizer.encode(turn["content"]), tokenizer.im_end]
        tail = tokenizer.encode("\n")
        tokens += head + body + tail
        spoken = int(turn["role"] == "assistant")
        loss_mask += [0] * len(head) + [spoken] * len(body) + [0] * len(tail)
    return np.array(tokens, np.int32), np.array(loss_mask, np.uint8)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to where the assistant's next answer begins. Raises ValueError as `encode` does."""
    tokens = encode(tokenizer, messages)[0].tolist()
    return [*tokens, tokenizer.im_start, *tokenizer.encode("assistant\n")]


def _with_system(messages: Sequence[Message]) -> list[Message]:
    if not messages:
        raise ValueError("a conversation needs at least one message")
    for number, message in enumerate(messages):
        if message["role"] not in ROLES:
            raise ValueError(f"message {number} has the role {message['role']!r}; roles are {', '.join(ROLES)}")
        if message["role"] == "system" and number > 0:
            raise ValueError(f"message {number} is a system message, which must be the first")
    if messages[0]["role"] == "system":
        return list(messages)
    return [Message(role="system", content=DEFAULT_SYSTEM), *messages]
