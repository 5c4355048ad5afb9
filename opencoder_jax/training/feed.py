"""Batches on their way to the devices: laid out by a thread of the host, some steps ahead of the step that needs them.

The devices work while the host reads, so a step waits for its batch only where reading is slower than training.
"""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Self

import jax
import numpy as np
from jax.sharding import Mesh

from opencoder_jax.data.batches import Batch, Batches
from opencoder_jax.data.references import ReferenceRows
from opencoder_jax.distillation.taught import TaughtBatch, TaughtBatches
from opencoder_jax.parallel.mesh import batch_sharding
from opencoder_jax.recipe import UserError


class Content(NamedTuple):
    """What batches hold, the padding told apart; with several hosts, as the share of this host's rows has it.

    Attributes:
        positions: rows times their length.
        tokens: positions that aren't padding.
        targets: tokens that count in the loss.
        keys: what the tokens see, each its own document's up to itself: what attention has to compute.
    """

    positions: float = 0.0
    tokens: float = 0.0
    targets: float = 0.0
    keys: float = 0.0

    @classmethod
    def of(cls, batch: Batch | TaughtBatch, pad: int, positions: int) -> "Content":
        """Of `positions` that hold what those of a batch hold."""
        tokens = batch.tokens != pad
        counts = (tokens.sum(), batch.loss_mask.sum(), (batch.positions + 1)[tokens].sum())
        return cls(positions, *(float(count) * positions / tokens.size for count in counts))

    def plus(self, other: "Content", sign: int = 1) -> "Content":
        return Content(*(one + sign * two for one, two in zip(self, other, strict=True)))


Source = Batches | TaughtBatches | ReferenceRows

# Batches that are laid out ahead: enough to even out a slow read; each is 16 bytes a token in memory, or
# 16 + 8 k where a teacher's distributions are trained on.
AHEAD = 2


class Feed:
    """The batches of the steps from `first` to before `last`, in order, as global arrays on a mesh.

    Attributes:
        waited: seconds in which a step waited for its batch, in all.
        content: what all batches held that were handed out.
    """

    def __init__(self, batches: Source, mesh: Mesh, vocabulary: int, first: int, last: int) -> None:
        """Starts to lay out.

        Args:
            vocabulary: the model's; a token outside it is refused, for a look-up there gives some other token's row.
        """
        self._steps = iter(range(first, last))
        self._batches, self._mesh, self._vocabulary = batches, mesh, vocabulary
        self._thread = ThreadPoolExecutor(1, "feed")
        self._ahead: deque[Future[tuple[Batch | TaughtBatch, Content]]] = deque()
        self.waited, self.content = 0.0, Content()
        for _ in range(AHEAD):
            self._ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Batch | TaughtBatch:
        """The next step's batch.

        Raises:
            UserError: a record of it is damaged, or holds a token outside the vocabulary.
        """
        began = time.perf_counter()
        batch, content = self._ahead.popleft().result()
        self.waited += time.perf_counter() - began
        self.content = self.content.plus(content)
        self._ask()
        return batch

    def _ask(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ahead.append(self._thread.submit(_laid_out, self._batches, step, self._mesh, self._vocabulary))


def global_batch(batches: Source, step: int, mesh: Mesh, vocabulary: int) -> Batch | TaughtBatch:
    """A global batch on the mesh; each host lays out only the rows that its own devices need.

    Raises:
        UserError: a record of it is damaged, or holds a token outside the vocabulary.
    """
    return _laid_out(batches, step, mesh, vocabulary)[0]


def _laid_out(batches: Source, step: int, mesh: Mesh, vocabulary: int) -> tuple[Batch | TaughtBatch, Content]:
    shape, sharding = batches.shape(step), batch_sharding(mesh)
    rows = [index[0].indices(shape[0]) for index in sharding.addressable_devices_indices_map(shape).values() if index]
    first, stop = min(start for start, _, _ in rows), max(stop for _, stop, _ in rows)
    local = batches(step, first, stop)
    for tokens in (local.tokens, local.targets):
        outside = (tokens < 0) | (tokens >= vocabulary)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            sources = ", ".join(str(records.directory) for records in batches.sources.values())
            raise UserError(
                f"{sources}: row {first + row} of step {step} has the token {tokens[row, column]} at {column}, outside"
                f" the vocabulary of {vocabulary}; tokenise again with the model's tokenizer"
            )

    def piece(array: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(shape[0])
        return array[start - first : stop - first, index[1]]

    def spread(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback((*shape, *array.shape[2:]), sharding, partial(piece, array))

    batch = jax.tree.map(spread, local)
    return batch, Content.of(local, batches.pad, shape[0] * shape[1])
