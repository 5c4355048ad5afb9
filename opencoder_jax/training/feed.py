"""Batches on their way to the devices: laid out by a thread of the host, some steps ahead of the step that needs them.

The devices work while the host reads, so a step waits for its batch only where reading is slower than training;
`Feed.waited` says how long it did.
"""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self

import jax
import numpy as np
from jax.sharding import Mesh

from opencoder_jax.data.batches import Batch, Batches
from opencoder_jax.parallel.mesh import batch_sharding
from opencoder_jax.recipe import UserError

# Batches that are laid out ahead: enough to even out a slow read; each is 16 bytes a token in memory.
AHEAD = 2


class Feed:
    """The batches of the steps from `first` to before `last`, in order, as global arrays on a mesh."""

    def __init__(self, batches: Batches, mesh: Mesh, vocabulary: int, first: int, last: int) -> None:
        """Starts to lay out.

        Args:
            vocabulary: the model's; a token outside it is refused, for a look-up there gives some other token's row.
        """
        self._steps = iter(range(first, last))
        self._batches, self._mesh, self._vocabulary = batches, mesh, vocabulary
        self._thread = ThreadPoolExecutor(1, "feed")
        self._ahead: deque[Future[Batch]] = deque()
        self.waited = 0.0  # seconds, in all
        for _ in range(AHEAD):
            self._ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Batch:
        """The next step's batch.

        Raises:
            UserError: a record of it is damaged, or holds a token outside the vocabulary.
        """
        began = time.perf_counter()
        batch = self._ahead.popleft().result()
        self.waited += time.perf_counter() - began
        self._ask()
        return batch

    def _ask(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ahead.append(self._thread.submit(global_batch, self._batches, step, self._mesh, self._vocabulary))


def global_batch(batches: Batches, step: int, mesh: Mesh, vocabulary: int) -> Batch:
    """A global batch on the mesh; each host lays out only the rows that its own devices need.

    Raises:
        UserError: a record of it is damaged, or holds a token outside the vocabulary.
    """
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

    return jax.tree.map(lambda array: jax.make_array_from_callback(shape, sharding, partial(piece, array)), local)
