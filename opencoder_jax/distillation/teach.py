"""Writes what a teacher expects in the place of every token of token records, for a student to learn from, too.

`train --gin.DataConfig.teacher='"_teacher"'` then mixes it into the loss. Teacher and student must share a tokenizer.
Killed, it goes on at the shard that it was at.
"""

import argparse
import dataclasses
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from opencoder_jax.checks import at_least, check, one_of
from opencoder_jax.data.rows import best_fit
from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.distillation.distributions import TEACHER, DistributionsWriter, Layout, finished, seal
from opencoder_jax.files import read_json, write_json
from opencoder_jax.model.decoder import abstract
from opencoder_jax.model.loss import cut_along_rows
from opencoder_jax.parallel.mesh import MeshConfig, batch_sharding, data_parallel, handed_out, make_mesh, replicated
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.progress import Progress
from opencoder_jax.recipe import UserError, build, configurable, parse_flags, refuse_unknown
from opencoder_jax.tokenization.hugging_face import open_tokenizer
from opencoder_jax.tokenization.tokenizer import TextTokenizer

BEGUN = "begun.json"  # what the shards are of, before the directory is closed

# Rows that are filled together, each batch of them: enough to be nearly full.
_BATCHES_AT_ONCE = 8


@configurable
@dataclasses.dataclass(frozen=True)
class TeachConfig:
    """What is kept of a teacher's distributions, and how it's asked.

    Attributes:
        k: tokens that are kept of each, the likeliest; a token then costs 4 k bytes on the disk, or 6 k where the
            vocabulary is larger than 65,536.
        context: tokens that the teacher sees at once. It sees the start of a document up to there, then windows of this
            length, in each of which the last half is new.
        rows: windows that a data-parallel device reads at once.
        chunk: positions of each row whose logits are in memory at once; divides `context`.
        dtype: what the matrices are multiplied in; "": what the model says.
    """

    k: int = 16
    context: int = 2048
    rows: int = 8
    chunk: int = 256
    dtype: str = ""

    def __post_init__(self) -> None:
        check(self, k=at_least(1), context=at_least(2), rows=at_least(1), chunk=at_least(1))
        check(self, dtype=one_of("", "float32", "bfloat16"))
        if self.context % min(self.chunk, self.context):
            raise ValueError(f"chunk={self.chunk}: must divide context={self.context}")


def main(argv: list[str]) -> None:
    """Writes the distributions that aren't there yet.

    Raises:
        UserError: model or records are missing, they don't share a tokenizer, or the output is another teacher's.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_jax teach",
        description=(__doc__ or "").split("\n\n", 1)[0],
        epilog="Example: python -m opencoder_jax teach --checkpoint=runs/teacher --records=runs/tokens/refinecode"
        " --output=runs/tokens/refinecode_teacher",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="the teacher, a model directory")
    parser.add_argument("--records", type=Path, required=True, metavar="DIR", help="token records")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the distributions go")
    flags, rest = parse_flags(parser, argv, TeachConfig, MeshConfig)
    refuse_unknown(parser, rest)
    config, records = build(TeachConfig), TokenRecords.open(flags.records)
    tokenizer = open_tokenizer(flags.checkpoint)
    if tokenizer.fingerprint != records.tokenizer_fingerprint:
        raise UserError(
            f"{flags.checkpoint}: its tokenizer isn't the one that made {flags.records}; teacher and student must share"
            f" one: python -m beam_pipelines records --tokenizer={flags.checkpoint} makes records with the teacher's"
        )
    try:
        mesh = make_mesh(build(MeshConfig))
    except ValueError as error:
        raise UserError(str(error)) from None
    with jax.set_mesh(mesh):
        teacher = TeacherModel(load(flags.checkpoint, mesh=mesh), tokenizer, config, mesh)
        flags.output.mkdir(parents=True, exist_ok=True)
        with _alone(flags.output):
            done = write(teacher, records, flags.output)
    size = sum(file.stat().st_size for file in flags.output.iterdir())
    print(
        f"{flags.output}: {'up to date' if not done else 'finished'}; the {config.k} likeliest tokens in the place of"
        f" each of {records.tokens:,}, {size / records.tokens:.1f} bytes a token"
    )


class Window(NamedTuple):
    """A part of a document that the teacher reads at once, and from where on it's new."""

    start: int
    stop: int
    new: int


def windows(length: int, context: int) -> list[Window]:
    """The windows of a document of so many tokens, which are each new in just one of them.

    >>> windows(7, 4)
    [Window(start=0, stop=4, new=0), Window(start=2, stop=6, new=4), Window(start=3, stop=7, new=6)]
    """
    found = [Window(0, min(length, context), 0)]
    while (seen := found[-1].stop) < length:
        stop = min(length, seen + context - context // 2)
        found.append(Window(stop - context, stop, seen))
    return found


class TeacherModel:
    """A model that says which tokens it held likeliest in the place of each of a document's.

    Attributes:
        layout: of a token's entry.
        fingerprint: stands for the model and for how it's asked.
        tokens_at_once: how many it wants to be asked about, at least, where there are so many.
    """

    def __init__(self, model: LoadedModel, tokenizer: TextTokenizer, config: TeachConfig, mesh: Mesh) -> None:
        """Raises UserError where the model has fewer tokens than shall be kept."""
        if config.k > tokenizer.vocab_size:
            raise UserError(f"TeachConfig.k={config.k}: the vocabulary has {tokenizer.vocab_size} tokens")
        decoder = dataclasses.replace(model.config, dtype=config.dtype or model.config.dtype)
        self.layout = Layout(config.k, tokenizer.vocab_size > 1 << 16)
        self._context = min(config.context, model.config.context)
        self.fingerprint = f"{model.fingerprint} {decoder.dtype} context {self._context}"
        self._end, self._pad, self._parameters = tokenizer.end_of_document, tokenizer.pad, model.parameters
        self._rows, self._sharding = config.rows * data_parallel(mesh), batch_sharding(mesh)
        self.tokens_at_once = _BATCHES_AT_ONCE * self._rows * self._context
        chunk = min(config.chunk, self._context)
        expected = partial(_likeliest, abstract(decoder)[0], tokenizer.vocab_size, config.k, chunk)
        self._expected = jax.jit(expected, out_shardings=replicated(mesh))

    def __call__(self, documents: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids [n, k] and natural log-probabilities [n, k] in the place of each document's n tokens.

        The first token of a document is expected after the end of another.
        """
        known = [
            (np.empty((len(tokens), self.layout.k), np.int32), np.empty((len(tokens), self.layout.k), np.float32))
            for tokens in documents
        ]
        parts = [(number, part) for number, each in enumerate(documents) for part in windows(len(each), self._context)]
        rows = best_fit([part.stop - part.start for _, part in parts], self._context)
        for first in range(0, len(rows), self._rows):
            some = rows[first : first + self._rows]
            tokens = np.full((self._rows, self._context), self._pad, np.int32)
            positions = np.zeros((self._rows, self._context), np.int32)
            places: list[tuple[int, Window, int, int]] = []  # of a document, its window, in this row, from there on
            for row, held in enumerate(some):
                filled = 0
                for number, part in (parts[index] for index in held):
                    size = part.stop - part.start
                    tokens[row, filled : filled + size] = self._read(documents[number], part)
                    positions[row, filled : filled + size] = np.arange(size)
                    places.append((number, part, row, filled))
                    filled += size
            batch = jax.device_put((tokens, positions), self._sharding)
            ids, log_probabilities = map(np.asarray, self._expected(self._parameters, *batch))
            for number, part, row, filled in places:
                here = slice(filled + part.new - part.start, filled + part.stop - part.start)
                known[number][0][part.new : part.stop] = ids[row, here]
                known[number][1][part.new : part.stop] = log_probabilities[row, here]
        return known

    def _read(self, tokens: np.ndarray, part: Window) -> np.ndarray:
        """What the teacher reads to expect the tokens of a window: each time the token before."""
        before = tokens[part.start - 1] if part.start else self._end
        return np.concatenate([[before], tokens[part.start : part.stop - 1]])


def _likeliest(
    graphdef: nnx.GraphDef[Any],
    vocabulary: int,
    k: int,
    chunk: int,
    parameters: Any,
    tokens: Int[Array, "B S"],
    positions: Int[Array, "B S"],
) -> tuple[Int[Array, "B S k"], Float[Array, "B S k"]]:
    """The tokens that a model holds likeliest after each, and their log-probabilities.

    Args:
        vocabulary: ids from here on are only there to fill the model's tables.
    """
    model = nnx.merge(graphdef, parameters)
    hidden = model.after_embedding(handed_out(model.embed(tokens)), positions, "none")

    def of_chunk(cut: tuple[Array]) -> tuple[Array, Array]:
        head = model.to_logits.astype(cut[0].dtype)
        logits = jnp.einsum("tw,wv->tv", cut[0], head, preferred_element_type=jnp.float32)[:, :vocabulary]
        found, ids = jax.lax.top_k(logits, k)
        return ids, found - jax.nn.logsumexp(logits, axis=-1, keepdims=True)

    def whole(chunks: Array) -> Array:
        return chunks.reshape(-1, len(tokens), chunk, k).swapaxes(0, 1).reshape(*tokens.shape, k)

    ids, log_probabilities = jax.lax.map(of_chunk, cut_along_rows(chunk, hidden))
    return whole(ids), whole(log_probabilities)


def write(teacher: TeacherModel, records: TokenRecords, output: Path) -> bool:
    """Writes the distributions of all records, shard by shard; False: they were there.

    Raises:
        UserError: the directory holds those of another teacher or of other records.
    """
    begun = {"records": records.fingerprint, "teacher": teacher.fingerprint, "k": teacher.layout.k}
    if (known := read_json(output / BEGUN, begun)) != begun:
        other = "teacher" if known.get("records") == begun["records"] else "set of records"
        raise UserError(f"{output}: holds the distributions of another {other}; choose another --output, or remove it")
    if (output / TEACHER).exists():
        return False
    write_json(output / BEGUN, begun)
    with Progress("teach", records.tokens, "tokens") as progress:
        for shard in range(records.shards):
            span = records.first_records[shard], records.first_records[shard + 1]
            if not finished(output, shard, records.shards):
                writer = DistributionsWriter(output, shard, records.shards, teacher.layout)
                before = records.start(span[0])
                for documents in _groups(records, *span, teacher):
                    for ids, log_probabilities in teacher(documents):
                        writer.write(ids, log_probabilities)
                    progress.update_to(before + writer.tokens)
                writer.close()
            progress.update_to(records.start(span[1]))
    seal(output, records, teacher.fingerprint, teacher.layout)
    return True


def _groups(records: TokenRecords, first: int, stop: int, teacher: TeacherModel) -> Iterator[list[np.ndarray]]:
    """The documents of a shard, so many at once that they fill rows well and don't fill the memory."""
    group: list[np.ndarray] = []
    held = 0
    for record in range(first, stop):
        group.append(records.read(record)[0])
        held += len(group[-1])
        if held >= teacher.tokens_at_once:
            yield group
            group, held = [], 0
    if group:
        yield group


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Holds the directory for this process. Raises UserError where another writes there."""
    held = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{output}: another process writes there; wait for it, or choose another --output"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(held)
