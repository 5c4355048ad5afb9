"""Answers in OpenAI's format: whole, or in pieces as they are made.

The two interfaces differ in names only: of a choice, of a chunk, of log-probabilities. `Completions` and `Chats` know
theirs; what is said when is the same for both (application.py).
"""

import codecs
import time
import uuid
from collections.abc import Sequence
from typing import Any

from opencoder_jax.inference.requests import Piece, TokenLogprob
from opencoder_jax.serving.openai_requests import Asked, prompt_tokens
from opencoder_jax.tokenization.tokenizer import TextTokenizer

LEAST = -9999.0  # stands for a probability of 0: JSON has no infinity, and OpenAI writes this

Json = dict[str, Any]


class TokenNames:
    """How single tokens are written: their bytes, and a string for programs that take no bytes."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._controls = {index: name for name, index in tokenizer.controls.items()}

    def bytes(self, token: int) -> bytes:
        """What it adds to a text; nothing, if it is a control token."""
        return self._tokenizer.decode_bytes([token])

    def name(self, token: int) -> str:
        """A control token's own name; a part of a character as OpenAI spells it, `bytes:\\xe2\\x82`."""
        if token in self._controls:
            return self._controls[token]
        content = self.bytes(token)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


class Completions:
    """The format of /v1/completions, for one body."""

    kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl-"

    def __init__(self, asked: Asked, names: TokenNames) -> None:
        self._asked = asked
        self._names = names
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in asked.requests]
        self._offsets = [0] * len(asked.requests)

    def opening(self, index: int) -> Json | None:
        """The first chunk of a choice's stream, where it has one of its own."""
        return None

    def chunk(self, index: int, piece: Piece, first: bool) -> Json:
        """A piece of a choice."""
        text = piece.text if self._asked.answer else ""
        if first and self._asked.echo:
            text = self._asked.prompts[index // self._asked.n].text + text
        reason = piece.finish_reason if self._asked.answer or piece.finish_reason is None else "length"
        return {"index": index, "text": text, "logprobs": self._logprobs(index, piece), "finish_reason": reason}

    def whole(self, index: int, pieces: Sequence[Piece]) -> Json:
        """A choice with all that it says."""
        parts = [self.chunk(index, piece, place == 0) for place, piece in enumerate(pieces)]
        found = [part["logprobs"] for part in parts if part["logprobs"]]
        logprobs = {name: [each for part in found for each in part[name]] for name in found[0]} if found else None
        return {
            "index": index,
            "text": "".join(part["text"] for part in parts),
            "logprobs": logprobs,
            "finish_reason": parts[-1]["finish_reason"],
        }

    def _logprobs(self, index: int, piece: Piece) -> Json | None:
        if self._asked.logprobs is None:
            return None
        rows: list[tuple[int, TokenLogprob | None]] = []
        if piece.prompt_logprobs is not None:
            prompt = self._asked.prompts[index // self._asked.n].ids
            rows += [(prompt[0], None), *((row.token, row) for row in piece.prompt_logprobs)]
        if self._asked.answer:
            rows += [(row.token, row) for row in piece.logprobs or ()]
        return {
            "tokens": [self._names.name(token) for token, _ in rows],
            "token_logprobs": [None if row is None else max(row.logprob, LEAST) for _, row in rows],
            "top_logprobs": [None if row is None else self._top(row) for _, row in rows],
            "text_offset": [self._offset(index, token) for token, _ in rows],
        }

    def _top(self, row: TokenLogprob) -> dict[str, float]:
        """The alternatives by their names, the token itself among them, as OpenAI's are. One name: the likelier."""
        found: dict[str, float] = {}
        for token, logprob in (*row.top, (row.token, row.logprob)):
            found.setdefault(self._names.name(token), max(logprob, LEAST))
        return found

    def _offset(self, index: int, token: int) -> int:
        """Where in the choice's text a token begins."""
        at = self._offsets[index]
        self._offsets[index] += len(self._decoders[index].decode(self._names.bytes(token)))
        return at


class Chats:
    """The format of /v1/chat/completions, for one body."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl-"

    def __init__(self, asked: Asked, names: TokenNames) -> None:
        self._asked = asked
        self._names = names

    def opening(self, index: int) -> Json | None:
        """The first chunk of a choice's stream: who speaks."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def chunk(self, index: int, piece: Piece, first: bool) -> Json:
        """A piece of a choice."""
        delta = {"content": piece.text} if piece.text else {}
        logprobs = self._logprobs([piece])
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish_reason}

    def whole(self, index: int, pieces: Sequence[Piece]) -> Json:
        """A choice with all that it says."""
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        logprobs = self._logprobs(pieces)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": pieces[-1].finish_reason}

    def _logprobs(self, pieces: Sequence[Piece]) -> Json | None:
        if self._asked.logprobs is None:
            return None
        rows = [row for piece in pieces for row in piece.logprobs or ()]
        content = [
            {
                **self._entry(row.token, row.logprob),
                "top_logprobs": [self._entry(token, logprob) for token, logprob in row.top],
            }
            for row in rows
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> Json:
        name, content = self._names.name(token), self._names.bytes(token)
        return {"token": name, "logprob": max(logprob, LEAST), "bytes": list(content)}


class Envelope:
    """What stands around the choices of one answer, the same in all of its chunks."""

    def __init__(self, asked: Asked, model: str, fingerprint: str, names: TokenNames) -> None:
        self.format = Chats(asked, names) if asked.chat else Completions(asked, names)
        self._asked = asked
        self._shared = {
            "id": self.format.prefix + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, choices: Sequence[Sequence[Piece]]) -> Json:
        """The whole answer, from the pieces of every choice."""
        made = [self.format.whole(index, pieces) for index, pieces in enumerate(choices)]
        tokens = sum(len(piece.tokens) for pieces in choices for piece in pieces)
        return {**self._shared, "object": self.format.kind, "choices": made, "usage": self._usage(tokens)}

    def chunk(self, choice: Json) -> Json:
        """A chunk of a stream with a piece of one choice."""
        chunk = {**self._shared, "object": self.format.chunk_kind, "choices": [choice]}
        return {**chunk, "usage": None} if self._asked.include_usage else chunk

    def usage_chunk(self, tokens: int) -> Json:
        """The last chunk of a stream whose client wants to know the counts."""
        return {**self._shared, "object": self.format.chunk_kind, "choices": [], "usage": self._usage(tokens)}

    def _usage(self, tokens: int) -> Json:
        read, made = prompt_tokens(self._asked.prompts), tokens if self._asked.answer else 0
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
