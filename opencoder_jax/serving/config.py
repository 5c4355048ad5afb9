"""What the server allows: sizes, numbers and times beyond which it refuses."""

from dataclasses import dataclass

from opencoder_jax.checks import above, at_least, check, or_none
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class ServeConfig:
    """The limits of the server.

    Attributes:
        model_name: what clients call the model; empty: the name of its directory.
        waiting: answers that may wait for a slot; who asks for more is told to come again later (429).
        choices: answers that one request may want, all of its prompts together.
        prompt_tokens: of a prompt; by default what the model's context holds.
        body_bytes: of a request's body.
        body_seconds: until a request's body must have arrived.
        answer_seconds: until an answer must be finished, waiting included.
        shutdown_seconds: that answers under way get to finish when the server is told to stop.
        connections: open at one time; others are refused (503).
    """

    model_name: str = ""
    waiting: int = 256
    choices: int = 128
    prompt_tokens: int | None = None
    body_bytes: int = 4_000_000
    body_seconds: float = 30.0
    answer_seconds: float = 600.0
    shutdown_seconds: int = 60
    connections: int = 1024

    def __post_init__(self) -> None:
        check(
            self,
            waiting=at_least(1),
            choices=at_least(1),
            prompt_tokens=or_none(at_least(1)),
            body_bytes=at_least(1),
            body_seconds=above(0),
            answer_seconds=above(0),
            shutdown_seconds=at_least(0),
            connections=at_least(1),
        )
        if self.choices > self.waiting:
            raise ValueError(f"choices={self.choices}: must be at most waiting={self.waiting}, or they never fit")
