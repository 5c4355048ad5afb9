"""Checkpoints: saved while training goes on, whole or not at all, and checked when read.

    checkpoints/<step>/parameters   float32, nested as the decoder's attributes
    checkpoints/<step>/optimizer    of a training run: the moments, twice the size of the parameters
    checkpoints/<step>/sums         one checksum an array, JSON; a digest of every file (seals.py)

Orbax writes them: to a temporary name, renamed when complete, each host its own part, and readable on any other mesh.
It checks its tables but not the weights themselves, so a checksum stands beside them: the sum, modulo 2**32, of an
array's 32-bit words. Devices compute it in one pass, it doesn't depend on the mesh, and no flipped bit escapes it, from
the devices' memory on. `restore` is the one reader, for going on as for inference; `verify` asks the same of the files.
"""

import logging
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, UInt32

from opencoder_jax.parallel.hosts import all_agree, leads, wait_for_all
from opencoder_jax.parallel.seals import broken, is_sealed, seal
from opencoder_jax.recipe import TryAgain, UserError

Items = Mapping[str, PyTree[Any]]  # "parameters" and "optimizer": trees of arrays, or of their abstract shapes
_ORBAX_LOG = logging.getLogger("absl")


def checkpoint_steps(directory: Path) -> list[int]:
    """The steps of the complete checkpoints in a directory, ascending; none if it isn't there."""
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def restore(directory: Path, step: int, wanted: Items) -> dict[str, PyTree[Array]]:
    """The wanted items of a checkpoint, placed as their abstract shapes say, on whatever mesh they were saved from.

    Raises:
        UserError: the checkpoint is damaged, or its arrays have other shapes; the message names the first.
    """
    path = directory.absolute() / str(step)
    _refuse_broken_seal(path)
    items = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
    error: Exception | None = None
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            read = reader.restore(path, args=ocp.args.Composite(**items, sums=ocp.args.JsonRestore()))
    except Exception as failure:  # what a damaged file raises depends on the file: many types have been seen
        error = failure
    if error:
        _refuse_other_shapes(path, wanted)
    # Each host reads its own part, and a damaged file is seen by those alone that need it.
    if not all_agree(error is None):
        raise UserError(
            f"checkpoint {path} is damaged ({_brief(error) if error else 'another host cannot read it'})"
        ) from error
    found = {name: read[name] for name in wanted}
    for name, total in checksums(found).items():
        if read["sums"].get(name) != total:
            raise UserError(f"checkpoint {path} is damaged (the checksum of {name} is wrong)")
    _compare(path, found, wanted)  # some releases of Orbax hand out whatever was saved
    return found


def verify(directory: Path, step: int) -> None:
    """Raises UserError unless a checkpoint is whole: as its seal says, or where it has none, as its checksums do."""
    path = directory.absolute() / str(step)
    _refuse_broken_seal(path)
    if not is_sealed(path):
        try:
            with ocp.StandardCheckpointer() as reader:
                items = [item.name for item in path.iterdir() if item.is_dir() and item.name != "sums"]
                trees = {name: reader.metadata(path / name).item_metadata.tree for name in items}
            wanted = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), trees)
        except Exception as error:  # as in `restore`
            raise UserError(f"checkpoint {path} is damaged ({_brief(error)})") from error
        restore(directory, step, wanted)


def _refuse_broken_seal(path: Path) -> None:
    why = broken(path)
    if not all_agree(not why):
        raise UserError(f"checkpoint {path} is damaged ({why or 'another host says so'})")


def _compare(path: Path, found: Items, wanted: Items) -> None:
    """Raises UserError for the first array whose shape isn't the wanted one."""
    shapes = {name: array.shape for name, array in _named(found).items()}
    for name, shape in _named(wanted).items():
        if shapes.get(name) != shape.shape:
            raise UserError(f"checkpoint {path}: {name} is {shapes.get(name)}, where {shape.shape} is wanted")


def _refuse_other_shapes(path: Path, wanted: Items) -> None:
    """Where a checkpoint couldn't be read: that of another model says so; of a damaged one nothing is said here."""
    try:
        with ocp.StandardCheckpointer() as reader:
            found = {name: reader.metadata(path / name).item_metadata.tree for name in wanted}
    except Exception:  # its tables are damaged too
        return
    _compare(path, found, wanted)


def restore_newest(directory: Path, wanted: Items) -> tuple[int, dict[str, PyTree[Array]]] | None:
    """The newest checkpoint's step and items; None if there is no checkpoint.

    A damaged checkpoint is named and the one before is taken; once that is read, the damaged one is set aside, in
    `damaged/` beside the directory.

    Raises:
        UserError: every checkpoint is damaged; they stay where they are.
    """
    damaged: list[int] = []
    for step in reversed(checkpoint_steps(directory)):
        try:
            found = restore(directory, step, wanted)
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
        return step, found
    if damaged:
        raise UserError(f"{directory}: no checkpoint can be read; train again in another --output")
    return None


class Checkpoints:
    """Saves checkpoints. Use it in a `with` statement: leaving it waits for the last to be on the disk."""

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
        self._unsealed: int | None = None  # the checkpoint that was saved last, until it is whole
        self._sealing: threading.Thread | None = None

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
        else:
            self._seal()
            self._join()
        finally:
            _ORBAX_LOG.setLevel(self._log_level)

    def restore_newest(self, wanted: Items) -> tuple[int, dict[str, PyTree[Array]]] | None:
        """As the function of this name does; a step whose checkpoint was damaged can be saved again."""
        found = restore_newest(self.directory, wanted)
        self._manager.reload()
        return found

    def check(self) -> None:
        """What the loop asks after each step: whether the save that goes on beside it has failed. Seals a whole one.

        Raises:
            UserError: it has.
        """
        try:
            self._manager.check_for_errors()
            over = self._unsealed is not None and not self._manager.is_saving_in_progress()
            if over and not (self.directory / str(self._unsealed)).exists():
                self._manager.wait_until_finished()  # raises what check_for_errors doesn't know of
        except Exception as error:  # whatever the thread that writes has raised
            raise self._cannot_save(error) from error
        if over:
            self._seal()

    def _seal(self) -> None:
        """Begins to seal the last checkpoint, which is whole now, beside the training."""
        if self._unsealed is not None:
            self._sealing = threading.Thread(target=seal, args=(self.directory / str(self._unsealed),))
            self._sealing.start()
            self._unsealed = None

    def _join(self) -> None:
        if self._sealing:
            self._sealing.join()

    def save(self, step: int, items: Items) -> None:
        """Starts to save a checkpoint, and returns as soon as its numbers are copied.

        Raises:
            UserError: this or the last checkpoint can't be written; those before are as they were.
        """
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        args = ocp.args.Composite(**saves, sums=ocp.args.JsonSave(checksums(items)))
        try:
            self._manager.wait_until_finished()
            self._seal()
            self._join()  # before its checkpoint may be cleared away for this one
            self._check_space(sum(array.nbytes for array in jax.tree.leaves(dict(items))))
            if not self._manager.save(step, args=args):
                raise RuntimeError(f"step {step} is saved already")
            self._unsealed = step
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


def _named(items: Items) -> dict[str, Any]:
    """Each leaf by its path, such as parameters.layers.query."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(items))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def checksums(items: Items) -> dict[str, int]:
    """The checksum of each array (all are of 32-bit numbers) by its name."""
    arrays = _named(items)
    sharding = next(iter(arrays.values())).sharding
    # On a mesh, every host reads the result.
    everywhere = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    sums = jax.jit(_word_sums, out_shardings=everywhere)(list(arrays.values()))
    return dict(zip(arrays, jax.device_get(sums).tolist(), strict=True))


def _brief(error: Exception) -> str:
    """An exception as part of one line; of a long chain of causes, how it begins and how it ends."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= 240 else f"{words[:100]} ... {words[-120:]}"
