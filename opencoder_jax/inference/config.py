"""How an engine is set up."""

from dataclasses import dataclass

from opencoder_jax.checks import at_least, check, one_of
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class EngineConfig:
    """The settings of an engine. None of them changes an answer, but for the weights' dtype.

    Attributes:
        rows: answers that are drawn at once, at most. Each takes memory for its keys and values.
        draft: tokens that are guessed and read in each step, from where the text has its last tokens already (prompt
            lookup): for texts that repeat themselves, such as edits of a prompt's code. 0 guesses nothing.
        weights: what they are multiplied in: "model", the dtype of the model's own computation; "float32"; "bfloat16";
            or "int8", the model's dtype with the matrices rounded to 8 bits, which halves or quarters their memory.
    """

    rows: int = 32
    draft: int = 0
    weights: str = "model"

    def __post_init__(self) -> None:
        check(self, rows=at_least(1), draft=at_least(0), weights=one_of("model", "float32", "bfloat16", "int8"))
