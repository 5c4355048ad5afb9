"""Batches with what a teacher expected in the place of each target."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from opencoder_jax.data.batches import Batches
from opencoder_jax.distillation.distributions import Distributions
from opencoder_jax.recipe import UserError


class TaughtBatch(NamedTuple):
    """As Batch, and what a teacher held likeliest in the place of each target, each [rows, length, k]."""

    tokens: np.ndarray  # int32
    targets: np.ndarray  # int32
    positions: np.ndarray  # int32
    loss_mask: np.ndarray  # float32
    teacher_ids: np.ndarray  # int32; -1: none
    teacher_log_probabilities: np.ndarray  # float32, natural; -inf where there's none


class TaughtBatches:
    """The batches of a run, with the distributions that lie beside its sources.

    Attributes:
        sources, pad: as of Batches.
        distributions: of each source.
    """

    def __init__(self, batches: Batches, directory: Path) -> None:
        """Opens the distributions: of a source NAME those in NAME and `DataConfig.teacher` below `directory`.

        Raises:
            UserError: some are missing, were made for other records, or keep another number of tokens than the others.
        """
        self._batches = batches
        self.sources, self.pad, self.shape = batches.sources, batches.pad, batches.shape
        self.distributions = {
            name: Distributions.open(directory / f"{name}{batches.config.teacher}", records)
            for name, records in batches.sources.items()
        }
        first = next(iter(self.distributions.values()))
        for other in self.distributions.values():
            if other.k != first.k:
                raise UserError(
                    f"{other.directory}: keeps {other.k} tokens of each distribution, {first.directory} {first.k};"
                    " make both with one TeachConfig.k"
                )

    def __call__(self, step: int, row_start: int = 0, row_stop: int | None = None) -> TaughtBatch:
        """As of Batches. Raises UserError, too, where distributions are damaged; the message names the file."""
        rows = self._batches.targets(step, row_start, row_stop)
        read = [self.distributions[name].read(tokens) for name, tokens in rows]
        ids, log_probabilities = (np.stack([each[part] for each in read]) for part in (0, 1))
        return TaughtBatch(*self._batches(step, row_start, row_stop), ids, log_probabilities)
