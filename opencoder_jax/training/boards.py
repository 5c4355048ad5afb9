"""Where a run's metrics go besides its own file: TensorBoard, Weights & Biases. Both are asked for in the recipe."""

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from opencoder_jax.recipe import UserError
from opencoder_jax.training.run import Recipe


class Board(Protocol):
    """A place beside the metrics file where rows go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of a row."""

    def close(self) -> None:
        """Writes what is left."""


def boards_of(recipe: Recipe, output: Path, step: int) -> list[Board]:
    """The boards that a recipe asks for, for a run that goes on after `step` updates.

    Raises:
        UserError: a package isn't installed.
    """
    config = recipe.train
    boards: list[Board] = [_TensorBoard(output / "tensorboard", step)] if config.tensorboard else []
    if config.wandb_project is not None:
        boards.append(_WeightsAndBiases(config.wandb_project, recipe, output))
    return boards


class _TensorBoard:
    """Event files; a run that goes on tells TensorBoard to forget what came after its checkpoint."""

    def __init__(self, directory: Path, step: int):
        package = _package("tensorboardX", "TrainConfig.tensorboard")
        self._writer = package.SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run of a project there; a run that goes on is the same run."""

    def __init__(self, project: str, recipe: Recipe, output: Path):
        package = _package("wandb", "TrainConfig.wandb_project")
        config = {f"{type(part).__name__}.{name}": value for part in recipe for name, value in vars(part).items()}
        place = output.resolve()
        number = hashlib.sha256(str(place).encode()).hexdigest()[:12]
        self._run = package.init(
            project=project, id=number, name=place.name, dir=str(output), config=config, resume="allow"
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _package(name: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{wanted_by} needs a package that isn't installed: pip install {name}") from None
