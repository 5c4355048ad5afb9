r"""ChatML, the chat format of OpenCoder-Instruct: one template for training, serving and evaluation.

A message is `<|im_start|>{role}\n{content}<|im_end|>\n`; a conversation without a system message begins with the
default one; a prompt ends with `<|im_start|>assistant\n` (its chat_template.jinja).

Control tokens are inserted as ids and never read out of text: a message that spells `<|im_end|>` is just text, so
nobody can close a turn or open another's from within one. Everything between two control tokens is tokenised as one
text, role and content together, as any tokenizer does with the rendered conversation. (Hugging Face's, given the
rendered string, also takes for control tokens what a message only spells: give it ids where messages aren't trusted.)

The loss is on the assistant's content and on the `<|im_end|>` behind it, by where each token lies in the text, but for
answers of weight 0. The
released tuning script differs in one place: its targets have a newline before `<|im_end|>`, which no history in the
template's format has. We train on what the template will show; `newline_before_end` is for those who want the script's.
"""

import json
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np

from opencoder_jax.tokenization.tokenizer import IM_END, IM_START, TextTokenizer, Tokenizer

DEFAULT_SYSTEM = "You are OpenCoder, created by OpenCoder Team."

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn."""

    role: str  # system | user | assistant
    content: str
    weight: NotRequired[int]  # 0 of an answer that is read and not trained on


def turn(role: str, content: str, trained: bool = True) -> Message:
    """A message; `trained`: that an answer isn't of weight 0."""
    message = Message(role=role, content=content)
    if not trained:
        message["weight"] = 0
    return message


def is_trained(message: Message) -> bool:
    """Whether the loss is on what it says."""
    return message["role"] == "assistant" and message.get("weight") != 0


def parse(text: str) -> list[Message]:
    """The conversation in a JSON list of objects with the strings role and content. Raises ValueError for another."""
    return messages_of(json.loads(text))


def messages_of(messages: object) -> list[Message]:
    """The conversation that a JSON value is. Raises ValueError as `parse` does."""
    if not isinstance(messages, list):
        raise ValueError(f"a conversation must be a JSON list of messages; got {messages!r:.80}")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"message {number} must have the strings role and content; got {message!r:.80}")
    return [turn(each["role"], each["content"], each.get("weight") != 0) for each in messages]


def said(text: str) -> str:
    """What a conversation's document says, without its roles and its JSON. Raises ValueError as `parse` does."""
    return "\n".join(turn["content"] for turn in parse(text))


def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """The conversation as people read it, with the control tokens spelt out; not for encoding.

    Raises:
        ValueError: see `encode`.
    """
    turns = [f"{IM_START}{turn['role']}\n{turn['content']}{IM_END}\n" for turn in _with_system(messages)]
    return "".join(turns) + (f"{IM_START}assistant\n" if add_generation_prompt else "")


def encode(
    tokenizer: TextTokenizer, messages: Sequence[Message], newline_before_end: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [n] of a conversation and their loss mask uint8 [n], 1 where the assistant speaks.

    Args:
        newline_before_end: adds a newline to every answer, as the released script does to its targets.

    Raises:
        ValueError: there's no message, a role is unknown, a system message isn't the first, or an answer begins with an
            empty line: then no token ends where the answer begins, and a model that is asked can't give it.
    """
    ending = "\n" if newline_before_end else ""
    turns = [_encode_turn(tokenizer, turn, ending) for turn in _with_system(messages)]
    for number, (_, _, begins) in enumerate(turns):
        if not begins:
            raise ValueError(f"turn {number} of the conversation is an answer that begins with an empty line")
    return np.concatenate([tokens for tokens, _, _ in turns]), np.concatenate([mask for _, mask, _ in turns])


def encode_prompt(tokenizer: TextTokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to where the assistant's next answer begins: in ChatML, or as the tokenizer has it.

    Raises:
        ValueError: as `encode` does, but for answers given before, which may begin as they like; or the tokenizer's own
            template refuses the conversation.
        UserError: it's a tokenizer without chats.
    """
    if not isinstance(tokenizer, Tokenizer):
        return tokenizer.encode_chat(messages)
    turns = [_encode_turn(tokenizer, turn, "")[0] for turn in _with_system(messages)]
    return [*np.concatenate(turns).tolist(), tokenizer.im_start, *tokenizer.encode("assistant\n")]


def _encode_turn(tokenizer: TextTokenizer, turn: Message, ending: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Tokens, loss mask, and whether a token begins where an answer does."""
    spoken = turn["role"] == "assistant"
    head = f"{turn['role']}\n"
    said = tokenizer.encode_array(f"{head}{turn['content']}{ending if spoken else ''}")
    lengths = tokenizer.byte_lengths[said]
    starts = np.cumsum(lengths) - lengths
    trained = is_trained(turn)
    counts = trained & (starts >= len(head))  # roles are ASCII
    after = tokenizer.encode_array("\n")
    tokens = np.concatenate([[tokenizer.im_start], said, [tokenizer.im_end], after]).astype(np.int32)
    mask = np.concatenate([[False], counts, [trained], np.zeros(len(after), bool)]).astype(np.uint8)
    begins = not spoken or len(head) in starts or int(lengths.sum()) == len(head)
    return tokens, mask, begins


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
