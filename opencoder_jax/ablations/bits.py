"""How well a model predicts texts that it never saw: bits a byte, by project, whatever the tokenizer.

Of a conversation only what the assistant says is predicted. About 50,000 tokens a second for the miniature on a core.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from flax import nnx
from jaxtyping import Array, Float, Int

from opencoder_jax.ablations.rows import Text, texts, write_rows
from opencoder_jax.beam_pipelines.experiments.hold_out import HoldOutConfig
from opencoder_jax.checks import at_least, check
from opencoder_jax.model.loss import cross_entropy
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.recipe import UserError, build, configurable, parse_flags, refuse_unknown
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer import TextTokenizer

_ROWS_AT_ONCE = 32


@configurable
@dataclass(frozen=True)
class BitsConfig:
    """What is scored.

    Attributes:
        project_bytes: of each project so many bytes of text at most, files in hashed order.
        length: tokens that the model sees at once; that of the rows in training.
    """

    project_bytes: int = 40_000
    length: int = 256

    def __post_init__(self) -> None:
        check(self, project_bytes=at_least(1), length=at_least(1))


class Bits(NamedTuple):
    """What a project's texts cost a model."""

    project: str
    documents: int
    bytes: int
    bits: float


def main(argv: list[str]) -> None:
    """Writes a line a project.

    Raises:
        UserError: model or documents are missing, or all that is held out was trained on.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax bits",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m opencoder_jax bits --checkpoint=runs/pretrain --documents=runs/held_out"
        " --output=runs/bits",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN", help="the model")
    parser.add_argument("--documents", action="append", required=True, metavar="DIR", help="a stage; repeatable")
    parser.add_argument(
        "--trained", action="append", default=[], metavar="DIR", help="a stage whose texts aren't scored; repeatable"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the bits go")
    flags, rest = parse_flags(parser, argv, BitsConfig, HoldOutConfig)
    refuse_unknown(parser, rest)
    config, version = build(BitsConfig), build(HoldOutConfig).version
    seen = frozenset(text_key(each.text) for each in texts(flags.trained, version))
    documents = chosen(texts(flags.documents, version), seen, config.project_bytes)
    if not documents:
        raise UserError(f"{', '.join(flags.documents)}: no text is left that wasn't trained on; hold out more")
    rows = score(load(flags.checkpoint), open_tokenizer(flags.checkpoint), documents, config.length)
    write_rows(flags.output, rows)
    told = sum(row.bits for row in rows) / sum(row.bytes for row in rows)
    print(f"{flags.output}: {told:.4f} bits a byte of {len(documents):,} texts of {len(rows):,} projects")


def chosen(documents: Iterable[Text], seen: frozenset[int], most: int) -> list[Text]:
    """What is scored: of each project, in hashed order, up to `most` bytes of texts that weren't trained on.

    Args:
        documents: held out.
        seen: `text_keys` of all that any arm may train on.
        most: bytes a project; a text that would go beyond is left out.
    """
    left: dict[str, int] = {}
    kept = []
    for each in sorted(documents, key=lambda each: xxhash.xxh3_64_intdigest(each.identifier.encode())):
        size = len(each.text.encode())
        if 0 < size <= left.setdefault(each.project, most) and text_key(each.text) not in seen:
            left[each.project] -= size
            kept.append(each)
    return sorted(kept, key=lambda each: (each.project, each.identifier))


def text_key(text: str) -> int:
    """Stands for a text, whatever its blank space."""
    return xxhash.xxh3_64_intdigest(" ".join(text.split()).encode())


def score(model: LoadedModel, tokenizer: TextTokenizer, documents: Sequence[Text], length: int) -> list[Bits]:
    """The bits that each project's texts cost, all its tokens predicted, in windows of `length` tokens.

    The first token of a text is predicted from the end of another document; each window begins with the last token of
    the one before, so nothing is predicted twice or from itself.

    Args:
        length: tokens a window; that of the rows in training.
    """
    rows: list[tuple[int, np.ndarray, np.ndarray]] = []  # of which document, tokens, which of them are predicted
    sizes = []
    for number, each in enumerate(documents):
        tokens, mask = _encoded(each, tokenizer)
        sizes.append(int(tokenizer.byte_lengths[tokens[1:][mask[1:]]].sum()))
        for start in range(0, len(tokens) - 1, length):
            part = slice(start, start + length + 1)
            rows.append((number, tokens[part], mask[part]))
    bits = np.zeros(len(documents))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        tokens, weights = (
            np.full((_ROWS_AT_ONCE, length + 1), tokenizer.pad, np.int32),
            np.zeros((_ROWS_AT_ONCE, length)),
        )
        for index, (_, ids, mask) in enumerate(some):
            tokens[index, : len(ids)], weights[index, : len(ids) - 1] = ids, mask[1:]
        losses = np.asarray(_losses(model.graphdef, model.parameters, tokens, weights.astype(np.float32)), np.float64)
        np.add.at(bits, [number for number, _, _ in some], losses[: len(some)] / math.log(2))
    sums: dict[str, list[float]] = {}
    for each, size, cost in zip(documents, sizes, bits.tolist(), strict=True):
        so_far = sums.setdefault(each.project, [0, 0, 0.0])
        so_far[0], so_far[1], so_far[2] = so_far[0] + 1, so_far[1] + size, so_far[2] + cost
    return [Bits(project, int(documents), int(size), cost) for project, (documents, size, cost) in sums.items()]


def _encoded(each: Text, tokenizer: TextTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """A text's tokens, one of an end before them, and which are predicted."""
    end = np.array([tokenizer.end_of_document], np.int32)
    if each.is_chat:
        tokens, mask = chat.encode(tokenizer, chat.parse(each.text))
        return np.concatenate([end, tokens]), np.concatenate([[False], np.asarray(mask, bool)])
    tokens = np.concatenate([end, tokenizer.encode_array(each.text)])
    return tokens, np.arange(len(tokens)) > 0


@partial(jax.jit, static_argnums=0)
def _losses(
    graphdef: nnx.GraphDef, parameters: Any, tokens: Int[Array, "B S1"], weights: Float[Array, "B S"]
) -> Float[Array, " B"]:
    """The summed loss of each row, in nats."""
    model = nnx.merge(graphdef, parameters)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1] - 1), weights.shape)
    hidden = model(tokens[:, :-1], positions)

    def of_row(hidden: Array, targets: Array, mask: Array) -> Array:
        return cross_entropy(hidden[None], model.to_logits, targets[None], mask[None], tokens.shape[1] - 1)

    return jax.vmap(of_row)(hidden, tokens[:, 1:], weights)
