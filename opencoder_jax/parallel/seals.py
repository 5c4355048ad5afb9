"""The seal of a checkpoint: a digest of each of its files, so that no flipped bit anywhere in it passes for good.

    checkpoints/<step>/sums/files-0-of-2    JSON, by each host that saved: digests of its share of the files

A seal is written when the checkpoint is whole. One whose run was killed before that, or an older one, has none: its
arrays' checksums alone speak for it then.
"""

import hashlib
import json
from itertools import islice
from pathlib import Path

import jax
import xxhash

from opencoder_jax.files import write_whole

_SHARES = "files-*-of-*"


def seal(checkpoint: Path) -> None:
    """Writes this host's share of the seal. Where the checkpoint or the disk's space is gone meanwhile, it has none."""
    if not (checkpoint / "sums").is_dir():
        return
    try:
        share = {name: _digest(checkpoint / name) for name in _own(_files(checkpoint))}
        name = f"files-{jax.process_index()}-of-{jax.process_count()}"
        write_whole(checkpoint / "sums" / name, json.dumps(share, sort_keys=True))
    except OSError:
        pass


def is_sealed(checkpoint: Path) -> bool:
    """Whether every host that saved it has sealed its share."""
    shares = [path.name.rpartition("-of-")[2] for path in (checkpoint / "sums").glob(_SHARES)]
    return bool(shares) and shares == [str(len(shares))] * len(shares)


def broken(checkpoint: Path) -> str:
    """What contradicts a checkpoint's seal, in this host's share of its files; empty: nothing does, or it has none."""
    if not is_sealed(checkpoint):
        return ""
    digests: dict[str, str] = {}
    for path in (checkpoint / "sums").glob(_SHARES):
        try:
            digests |= json.loads(path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            return f"its seal {path.name} can't be read: {error}"
    files = _files(checkpoint)
    if odd := sorted(digests.keys() ^ set(files)):
        return f"{odd[0]} is missing or too much"
    for name in _own(files):
        try:
            if _digest(checkpoint / name) != digests[name]:
                return f"{name} was changed after it was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def _files(checkpoint: Path) -> list[str]:
    """The files that are sealed, by their paths below the checkpoint."""
    found = (path for path in checkpoint.rglob("*") if path.is_file() and not path.match(f"sums/{_SHARES}"))
    return sorted(path.relative_to(checkpoint).as_posix() for path in found)


def _own(files: list[str]) -> list[str]:
    """This host's share of some files."""
    return list(islice(files, jax.process_index(), None, jax.process_count()))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, xxhash.xxh3_128).hexdigest()
