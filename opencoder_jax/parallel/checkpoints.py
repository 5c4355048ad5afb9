"""Checkpoints: saved while training goes on, whole or not at all, and checked when read.

    checkpoints/<step>/parameters   float32, nested as the decoder's attributes
    checkpoints/<step>/optimizer    the moments, twice the size of the parameters
    checkpoints/<step>/sums         one checksum a weight, JSON

Orbax writes them: to a temporary name, renamed when complete, each host its own part, and readable on any other mesh.
It checks its tables but not the weights themselves, so a checksum stands beside them: the sum, modulo 2**32, of an
array's 32-bit words. Devices compute it in one pass over the state, it doesn't depend on the mesh, and no flipped bit
escapes it.
"""

import logging
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, UInt32

from opencoder_jax.parallel.hosts import all_agree, leads, wait_for_all
from opencoder_jax.parallel.model_directory import checkpoint_steps
from opencoder_jax.recipe import TryAgain, UserError
from opencoder_jax.training.step import TrainState

_ORBAX_LOG = logging.getLogger("absl")


def restore(directory: Path, step: int, abstract: TrainState, optimizer: bool = True) -> TrainState:
    """The state after `step` updates, placed as `abstract` says, on whatever mesh it was saved from.

    Args:
        optimizer: whether to read the moments; without them, `abstract.optimizer` is handed through.

    Raises:
        UserError: the checkpoint can't be read, or its checksums are wrong.
    """
    wanted = {"parameters": abstract.parameters} | ({"optimizer": abstract.optimizer} if optimizer else {})
    place = directory.absolute() / str(step)
    items = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
    error: Exception | None = None
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            read = reader.restore(place, args=ocp.args.Composite(**items, sums=ocp.args.JsonRestore()))
    except Exception as failure:  # what a damaged file raises depends on the file: many types have been seen
        error = failure
    # Each host reads its own part, and a damaged file is seen by those alone that need it.
    if not all_agree(error is None):
        raise UserError(
            f"checkpoint {place} is damaged ({_brief(error) if error else 'another host cannot read it'})"
        ) from error
    found = {name: read[name] for name in wanted}
    for weight, total in _sums(found).items():
        if read["sums"].get(weight) != total:
            raise UserError(f"checkpoint {place} is damaged (the checksum of {weight} is wrong)")
    updates = jax.device_put(jnp.asarray(step, jnp.int32), abstract.step.sharding)
    return TrainState(updates, found["parameters"], found.get("optimizer", abstract.optimizer))


def restore_newest(directory: Path, abstract: TrainState) -> TrainState | None:
    """The newest state; None when there is no checkpoint.

    A damaged checkpoint is named and the one before is taken; once that is read, the damaged one is set aside, in
    `damaged/` beside the directory.

    Raises:
        UserError: every checkpoint is damaged; they stay where they are.
    """
    damaged: list[int] = []
    for step in reversed(checkpoint_steps(directory)):
        try:
            state = restore(directory, step, abstract)
        except UserError as error:
            print(f"warning: {error}; trying the one before", file=sys.stderr)
            damaged.append(step)
            continue
        if damaged and leads():
            aside = directory.parent / "damaged"
            aside.mkdir(exist_ok=True)
            for name in map(str, damaged):
                (directory / name).rename(aside / name)
        wait_for_all("damaged checkpoints are set aside")
        return state
    if damaged:
        raise UserError(f"{directory}: no checkpoint can be read; train again in another --output")
    return None


class Checkpoints:
    """Saves the checkpoints of a run. Use it in a `with` statement: leaving it waits for the last to be on the disk."""

    def __init__(self, directory: Path, keep: int | None):
        """Half-written checkpoints that a killed run left are cleared away.

        Args:
            keep: how many checkpoints stay, the newest; None: all.
        """
        self.directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        names = ("parameters", "optimizer", "sums")
        # Its threads log the whole trace of an error that `save` raises anyway.
        self._log_level = _ORBAX_LOG.level
        _ORBAX_LOG.setLevel(logging.CRITICAL)
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._manager.close()
        except Exception as failure:
            # A save that failed fails again here, while its first error is on its way to the user.
            if error is None or isinstance(error, TryAgain):
                raise self._cannot_save(failure) from failure
        finally:
            _ORBAX_LOG.setLevel(self._log_level)

    def save(self, state: TrainState) -> None:
        """Starts to save a state, and returns as soon as its numbers are copied.

        Raises:
            UserError: this or the last checkpoint can't be written; those before are as they were.
        """
        items = {"parameters": state.parameters, "optimizer": state.optimizer}
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        args = ocp.args.Composite(**saves, sums=ocp.args.JsonSave(_sums(items)))
        try:
            self._manager.wait_until_finished()
            self._check_space(sum(array.nbytes for array in jax.tree.leaves(items)))
            self._manager.save(int(state.step), args=args)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_save(error) from error

    def _check_space(self, needed: int) -> None:
        """Raises OSError when the disk is too full: writing would fail too, but late, and leave a part behind."""
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise OSError(f"it takes {needed / 1e9:,.2f} GB and {free / 1e9:,.2f} GB are free")

    def _cannot_save(self, error: Exception) -> UserError:
        steps = checkpoint_steps(self.directory)
        rest = f"the last complete checkpoint is step {steps[-1]}" if steps else "no checkpoint is left"
        return UserError(f"{self.directory}: a checkpoint can't be written ({_brief(error)}); {rest}")


def _word_sums(arrays: list[Array]) -> UInt32[Array, " arrays"]:
    words = [jax.lax.bitcast_convert_type(array, jnp.uint32) for array in arrays]
    return jnp.stack([jnp.sum(word, dtype=jnp.uint32) for word in words])


def _sums(items: dict[str, PyTree[Array]]) -> dict[str, int]:
    """The checksum of each array (all are of 32-bit numbers), named by its path."""
    paths, arrays = zip(*jax.tree_util.tree_leaves_with_path(items), strict=True)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    everywhere = NamedSharding(arrays[0].sharding.mesh, PartitionSpec())  # every host reads the result
    sums = jax.jit(_word_sums, out_shardings=everywhere)(list(arrays))
    return dict(zip(names, jax.device_get(sums).tolist(), strict=True))


def _brief(error: Exception) -> str:
    """An exception as part of one line; of a long chain of causes, how it begins and how it ends."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= 240 else f"{words[:100]} ... {words[-120:]}"
