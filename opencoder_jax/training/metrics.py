"""Where the numbers of a run go: metrics.jsonl, one JSON line a logged step, and boards that the recipe asks for.

A row is a function of the run, the same to the last digit each time, but for its timing (reporter.py names the fields).
"""

import hashlib
import importlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from opencoder_jax.data.token_records import TokenRecords
from opencoder_jax.files import Appender, write_lines
from opencoder_jax.recipe import UserError

# Enough for an entropy that is right to 0.01 nats at a vocabulary of 96,640; a large corpus is sampled evenly.
ENTROPY_TOKENS = 2**22


class Board(Protocol):
    """Where rows go."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes a row."""

    def close(self) -> None:
        """Writes what is left."""


class MetricsFile:
    """RUN/metrics.jsonl. A row is on its way to the disk when `write` returns, so a killed run loses none."""

    def __init__(self, file: Path, step: int):
        """Opens the file of a run that goes on after `step` updates; rows of later steps are forgotten."""
        rows = [row for row in read_metrics(file) if row["step"] <= step]
        write_lines(file, rows)
        self.seconds = rows[-1]["seconds"] if rows else 0.0  # trained before, up to the last row
        self._file = Appender(file)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self._file.write(row)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, none if there is no file; a last line that was cut off by a kill is left out.

    So is, with a warning, what was damaged: a report never stands in training's way.
    """
    if not file.exists():
        return []
    rows = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            if isinstance(row["step"], int) and isinstance(row["seconds"], float):
                rows.append(row)
                continue
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        print(f"warning: {file}, line {number}: damaged, left out", file=sys.stderr)
    return rows


def boards_of(
    tensorboard: bool, wandb_project: str | None, settings: Mapping[str, Any], output: Path, step: int
) -> list[Board]:
    """The boards that a recipe asks for, for a run that goes on after `step` updates.

    Args:
        tensorboard, wandb_project: as in TrainConfig.
        settings: of the whole recipe, for the boards that show them.
        output: the run's directory.
        step: of the checkpoint that the run goes on from.

    Raises:
        UserError: a package isn't installed.
    """
    boards: list[Board] = [_TensorBoard(output / "tensorboard", step)] if tensorboard else []
    if wandb_project is not None:
        boards.append(_WeightsAndBiases(wandb_project, settings, output))
    return boards


class _TensorBoard:
    """Event files; a run that goes on tells TensorBoard to forget what came after its checkpoint."""

    def __init__(self, directory: Path, step: int):
        package = _package("tensorboardX", "TrainConfig.tensorboard")
        self._writer = package.SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        for name, value in _values(row).items():
            self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run of a project there; a run that goes on is the same run."""

    def __init__(self, project: str, settings: Mapping[str, Any], output: Path):
        package = _package("wandb", "TrainConfig.wandb_project")
        path = output.resolve()
        number = hashlib.sha256(str(path).encode()).hexdigest()[:12]
        self._run = package.init(
            project=project, id=number, name=path.name, dir=str(output), config=settings, resume="allow"
        )

    def write(self, row: Mapping[str, Any]) -> None:
        self._run.log(_values(row), step=row["step"])

    def close(self) -> None:
        self._run.finish()


def flat(tree: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries, named by their paths."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix + name
        leaves |= flat(value, separator, path + separator) if isinstance(value, Mapping) else {path: value}
    return leaves


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers beside its step, such as held_out/python/loss."""
    return {name: value for name, value in flat(row, "/").items() if name != "step"}


def _package(name: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{wanted_by} needs a package that isn't installed: pip install {name}") from None


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
