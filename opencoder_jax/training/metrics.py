"""What a run tells about itself: one JSON line a logged step, and the entropy that its loss must beat.

A row is a function of the run, the same to the last digit each time, but for its timing (report.py names every field).
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.data.token_records import TokenRecords

# Enough for an entropy that is right to 0.01 nats at a vocabulary of 96,640; a large corpus is sampled evenly.
ENTROPY_TOKENS = 2**22


class MetricsFile:
    """RUN/metrics.jsonl. A row is on its way to the disk when `write` returns, so a killed run loses none."""

    def __init__(self, file: Path, step: int):
        """Opens the file of a run that goes on after `step` updates; rows of later steps are forgotten."""
        rows = [row for row in read_metrics(file) if row["step"] <= step]
        partial = file.with_name(file.name + ".partial")
        partial.write_text("".join(_line(row) for row in rows))
        os.replace(partial, file)
        self.seconds = rows[-1]["seconds"] if rows else 0.0  # trained before, up to the last row
        self._stream = open(file, "a", buffering=1)

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self._stream.write(_line(row))


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, none if there is no file; a last line that was cut off by a kill is left out."""
    if not file.exists():
        return []
    lines = file.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def unigram_entropy(sources: Mapping[str, TokenRecords], weights: Mapping[str, float]) -> float:
    """The entropy, in nats a token, of the targets of a mixture when each is drawn on its own.

    A model that knows nothing but how frequent each token is has this loss: training must fall well below it.

    Args:
        sources: token records, by name.
        weights: of each source in the mixture.
    """
    mixture = np.zeros(1)
    for name, records in sources.items():
        counts = _target_counts(records)
        mixture = _padded(mixture, len(counts)) + _padded(counts * weights[name] / counts.sum(), len(mixture))
    probabilities = mixture[mixture > 0] / mixture.sum()
    return float(-(probabilities * np.log(probabilities)).sum())


def _target_counts(records: TokenRecords) -> np.ndarray:
    """int64 [largest id + 1]: how often each token is a target, in about ENTROPY_TOKENS tokens of the records."""
    stride = math.ceil(records.tokens / ENTROPY_TOKENS)
    targets = [tokens[mask > 0] for tokens, mask in map(records.read, range(0, len(records), stride))]
    return np.bincount(np.concatenate(targets))


def _padded(counts: np.ndarray, length: int) -> np.ndarray:
    return np.pad(counts, (0, max(0, length - len(counts))))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"
