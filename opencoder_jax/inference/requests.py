"""What the engine is asked, and what it says: plain values, free of JAX."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from opencoder_jax.inference.sampling import SamplingConfig


@dataclass(frozen=True)
class Request:
    """One answer that is wanted. Several samples of a prompt are as many requests, which differ in their seed.

    Attributes:
        prompt: token ids, at least one.
        seed: of this answer, folded into the seed of `sampling`; 0 .. 2**32 - 1.
        stop: strings that end the answer, beside the ends of documents and messages; they aren't part of its text.
        top_logprobs: None: no log-probabilities; k: of each drawn token, and of the k likeliest in its place.
        prompt_logprobs: whether the prompt's tokens get log-probabilities, too (of so many likeliest as top_logprobs).
    """

    prompt: tuple[int, ...]
    sampling: SamplingConfig
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    prompt_logprobs: bool = False


class TokenLogprob(NamedTuple):
    """How likely a token was, by the model's own logits: neither temperature nor what sampling leaves out counts."""

    token: int
    logprob: float  # natural
    top: tuple[tuple[int, float], ...]  # the likeliest tokens with their log-probabilities, from the likeliest down


FinishReason = Literal["stop", "length", "cancelled"]


class Piece(NamedTuple):
    """What is new of an answer. The texts of its pieces make its text, their tokens its tokens.

    A text that may turn out to be the beginning of a stop string, or of a character, waits for a later piece.
    """

    request: int  # as `submit` numbered it
    text: str
    tokens: tuple[int, ...]  # as they were drawn, those of a stop string or the end of a document included
    logprobs: tuple[TokenLogprob, ...] | None  # one a token, where they were asked for
    prompt_logprobs: tuple[TokenLogprob, ...] | None  # of the prompt's tokens from its second on, with the first piece
    finish_reason: FinishReason | None  # None: there is more to come; "length": cut off at max_tokens


class Completion(NamedTuple):
    """A whole answer."""

    text: str
    tokens: list[int]  # as they were drawn, the one that ended the answer included
    finish_reason: FinishReason
