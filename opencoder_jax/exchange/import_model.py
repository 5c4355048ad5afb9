"""A model made elsewhere as a model directory: one checkpoint of step 0, its tokenizer's files and its config.json.

Each tensor is read, turned and written before the next, tables in parts: the memory holds about two layers' largest
matrices. The directory is there whole or not at all.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.exchange.directory import ORIGIN, made
from opencoder_jax.exchange.folder import Foreign, Tensors, compare, open_foreign
from opencoder_jax.files import write_json, write_whole
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.huggingface import Weight, from_config, weights
from opencoder_jax.parallel.model_directory import CHECKPOINTS, write_config
from opencoder_jax.parallel.streamed import Place, Streamed, write
from opencoder_jax.recipe import UserError
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer_files import TOKENIZER_JSON

_TABLE_BYTES = 64 << 20  # of a table's part


def import_model(source: Path, target: Path, dtype: str | None = None) -> str:
    """Makes the model directory `target` of a Hugging Face folder or a GGUF file, and says what was found.

    Args:
        dtype: of the computation; by default bfloat16 where the weights are in it, else float32.

    Raises:
        UserError: it isn't a model that the decoder can be, something is missing or damaged, or the disk is full.
    """
    foreign = open_foreign(source)
    stored = sorted(set(foreign.tensors.dtypes.values()))
    config = from_config(foreign.config, dtype or ("bfloat16" if stored == ["bfloat16"] else "float32"), foreign.name)
    found = weights(config)
    compare(foreign, found, config.tied_head)
    with made(target, 4 * config.parameters()) as directory:
        write_config(directory, config)
        write_json(directory / ORIGIN, foreign.about | _dtypes(foreign.tensors))
        said = _bring_tokenizer(foreign, directory, config)
        tree: dict[str, Any] = {}
        for weight in found:
            *above, name = weight.path
            node = tree
            for each in above:
                node = node.setdefault(each, {})
            node[name] = _streamed(weight, foreign.tensors)
        write(directory / CHECKPOINTS / "0", tree)
    tensors = sum(len(weight.names) for weight in found)
    head = "the head tied to the embedding, " if config.tied_head else ""
    return (
        f"{target}: {config.parameters():,} parameters, {head}of {tensors} tensors in {', '.join(stored)}, each as the"
        f" configuration says; {said}; computes in {config.dtype}"
    )


def _dtypes(tensors: Tensors) -> dict[str, Any]:
    """What the tensors came in, for an export that gives the same bytes: what most are in, and the others."""
    kinds = list(tensors.dtypes.values())
    most = max(sorted(set(kinds)), key=kinds.count)
    return {"dtype": most, "other_dtypes": {name: kind for name, kind in tensors.dtypes.items() if kind != most}}


def _bring_tokenizer(foreign: Foreign, directory: Path, config: ModelConfig) -> str:
    """Copies the files that come along; of two tokenizers that can be read, ours leads."""
    for name, content in foreign.files.items():
        write_whole(directory / name, content)
    if not any((directory / name).exists() for name in ("tokenizer.model", TOKENIZER_JSON)):
        return f"without a tokenizer: put its {TOKENIZER_JSON} there before it answers"
    try:
        tokenizer = open_tokenizer(directory)
    except UserError:
        if not ((directory / "tokenizer.model").exists() and (directory / TOKENIZER_JSON).exists()):
            raise
        (directory / "tokenizer.model").unlink()  # of another kind, for which the other file stands
        tokenizer = open_tokenizer(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(f"{foreign.name}: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size}")
    return f"a tokenizer of {tokenizer.vocab_size:,} ids"


def _streamed(weight: Weight, tensors: Tensors) -> Streamed:
    if weight.stacked:
        return Streamed(weight.shape, (1, *weight.one), partial(_layers, weight, tensors))
    if len(weight.theirs) < 2:
        return Streamed(weight.shape, weight.shape, partial(_whole, weight, tensors))
    rows = min(weight.theirs[0], max(1, _TABLE_BYTES // (4 * weight.theirs[1])))
    chunk = tuple(rows if size == weight.theirs[0] else size for size in weight.shape)
    return Streamed(weight.shape, chunk, partial(_table, weight, tensors, rows))


def _layers(weight: Weight, tensors: Tensors) -> Iterator[tuple[Place, np.ndarray]]:
    for layer, name in enumerate(weight.names):
        yield (slice(layer, layer + 1),), weight.from_theirs(tensors.read(name).astype(np.float32))[None]


def _whole(weight: Weight, tensors: Tensors) -> Iterator[tuple[Place, np.ndarray]]:
    yield (slice(None),), weight.from_theirs(tensors.read(weight.names[0]).astype(np.float32))


def _table(weight: Weight, tensors: Tensors, rows: int) -> Iterator[tuple[Place, np.ndarray]]:
    """A table's ids, some at a time: along its first axis in theirs, in ours where it is."""
    for start in range(0, weight.theirs[0], rows):
        part = slice(start, min(start + rows, weight.theirs[0]))
        piece = weight.from_theirs(tensors.read(weight.names[0], part.start, part.stop).astype(np.float32))
        yield ((slice(None), part) if weight.path == ("head",) else (part,)), piece
