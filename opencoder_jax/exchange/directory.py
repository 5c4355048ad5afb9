"""Directories that are there whole or not at all, and what stands beside a model that was made elsewhere."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opencoder_jax.files import WRITING
from opencoder_jax.recipe import UserError

ORIGIN = "origin.json"  # of an imported model: what its tensors came in, and what it said of itself


@contextmanager
def made(target: Path, size: int) -> Iterator[Path]:
    """A directory to fill, which is `target` once that's done.

    Args:
        size: about what it will take, in bytes.

    Raises:
        UserError: there is something already, or the disk is full.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: there is something already; name a new directory")
    directory = target.with_name(target.name + WRITING)
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            yield directory
            if target.exists():
                target.rmdir()
            directory.rename(target)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
    except OSError as error:
        free = shutil.disk_usage(_existing(target)).free
        room = f"; it takes about {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise UserError(f"{target}: can't be written: {error.strerror or error}{room if full else ''}") from error


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())
