"""Checkpoints: saved while training goes on, whole or not at all, and checked when read.

    checkpoints/<step>/parameters   float32, nested as the decoder's attributes
    checkpoints/<step>/optimizer    the moments; three times the parameters together with them
    checkpoints/<step>/sums         one checksum a weight, JSON

Orbax writes them: to a temporary name, renamed when complete, each host its own part, and readable on any other mesh.
It checks its tables but not the weights themselves, so a checksum stands beside them: the sum, modulo 2**32, of an
array's 32-bit words. Devices compute it in one pass over the state, it doesn't depend on the mesh, and no flipped bit
escapes it.
"""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree, UInt32

from opencoder_jax.recipe import UserError
from opencoder_jax.training.step import TrainState


class Checkpoints:
    """The checkpoints of one run. Use it in a `with` statement: leaving it waits for the last one to be on the disk."""

    def __init__(self, directory: Path, keep: int | None = None, read_only: bool = False):
        """Opens `directory`; half-written checkpoints of a killed run are cleared away unless `read_only`.

        Args:
            keep: how many checkpoints stay, the newest; None: all.
        """
        self.directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, read_only=read_only, cleanup_tmp_directories=not read_only
        )
        names = ("parameters", "optimizer", "sums")
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.wait()
        try:
            self._manager.close()
        except Exception:
            # A failed save fails again here; the first error is on its way to the user.
            if error is None:
                raise

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Starts to save a state, and returns as soon as its numbers are copied.

        Raises:
            UserError: this or the last checkpoint can't be written; those before are as they were.
        """
        items = {"parameters": state.parameters, "optimizer": state.optimizer}
        try:
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                    sums=ocp.args.JsonSave(_sums(items)),
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_save(error) from error

    def wait(self) -> None:
        """Returns when all that was saved is on the disk. Raises UserError as `save` does."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_save(error) from error

    def restore_newest(self, abstract: TrainState) -> TrainState | None:
        """The newest state, placed as `abstract` says; None when there is no checkpoint.

        A damaged checkpoint is named, set aside in `damaged/` beside `checkpoints/`, and the one before is taken.

        Raises:
            UserError: every checkpoint is damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(abstract, step)
            except UserError as error:
                aside = self.directory.parent / "damaged" / str(step)
                print(f"warning: {error}; it is set aside as {aside}", file=sys.stderr)
                aside.parent.mkdir(exist_ok=True)
                (self.directory / str(step)).rename(aside)
        if steps:
            raise UserError(f"{self.directory}: all checkpoints are damaged; train again in another --output")
        return None

    def restore(self, abstract: TrainState, step: int, optimizer: bool = True) -> TrainState:
        """The state after `step` updates; without `optimizer`, `abstract.optimizer` is handed through.

        Raises:
            UserError: the checkpoint can't be read, or its checksums are wrong.
        """
        wanted = {"parameters": abstract.parameters} | ({"optimizer": abstract.optimizer} if optimizer else {})
        place = self.directory / str(step)
        try:
            read = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardRestore(item) for name, item in wanted.items()},
                    sums=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # what a damaged file raises depends on the file: a dozen types have been seen
            raise UserError(f"checkpoint {place} is damaged ({_brief(error)})") from error
        items = {name: read[name] for name in wanted}
        for name, found in _sums(items).items():
            if read["sums"].get(name) != found:
                raise UserError(f"checkpoint {place} is damaged (the checksum of {name} is wrong)")
        steps = jax.device_put(jnp.asarray(step, jnp.int32), abstract.step.sharding)
        return TrainState(steps, items["parameters"], items.get("optimizer", abstract.optimizer))

    def _cannot_save(self, error: Exception) -> UserError:
        kept = max(self._manager.all_steps(read=True), default=None)
        rest = "no checkpoint is left" if kept is None else f"the last complete checkpoint is step {kept}"
        return UserError(f"{self.directory}: a checkpoint can't be written ({_brief(error)}); {rest}")


@jax.jit
def _word_sums(arrays: list[Array]) -> UInt32[Array, " arrays"]:
    words = [jax.lax.bitcast_convert_type(array, jnp.uint32) for array in arrays]
    return jnp.stack([jnp.sum(word, dtype=jnp.uint32) for word in words])


def _sums(items: dict[str, PyTree[Array]]) -> dict[str, int]:
    """The checksum of each array (all are of 32-bit numbers), named by its path."""
    paths, arrays = zip(*jax.tree_util.tree_leaves_with_path(items), strict=True)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    return dict(zip(names, _word_sums(list(arrays)).tolist(), strict=True))


def _brief(error: Exception) -> str:
    """An exception as part of one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
