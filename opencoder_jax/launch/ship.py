"""The code that a slice runs: this checkout as it lies here, edits and new files with it, packed once a launch."""

import hashlib
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from opencoder_jax.recipe import UserError, recipe_flags

# A checkout is a few MB; more than this is somebody's data.
LIMIT_BYTES = 200 * 2**20


def listing(root: Path) -> list[str]:
    """The files of a checkout that git tracks or would track, as paths below it, in order.

    Raises:
        UserError: it is no git checkout, or holds what can't be copied so: another repository, or much data.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{root}: git isn't installed; it knows which files are the code") from None
    if done.returncode:
        raise UserError(f"{root}: the code is copied from a git checkout ({done.stderr.strip()})")
    names = sorted(set(done.stdout.split("\0")) - {""})
    for name in names:
        if (root / name).is_dir() and not (root / name).is_symlink():
            raise UserError(f"{root / name}: a repository of its own isn't copied; list it in .gitignore, or move it")
    names = [name for name in names if (root / name).is_symlink() or (root / name).is_file()]  # others were deleted
    sizes = {name: (root / name).lstat().st_size for name in names}
    if sum(sizes.values()) > LIMIT_BYTES:
        largest = max(names, key=sizes.__getitem__)
        raise UserError(
            f"{root}: {sum(sizes.values()) / 2**20:,.0f} MiB would be copied to every host, {largest} the largest;"
            " list what isn't code in .gitignore"
        )
    return names


def check_recipes(verb: Sequence[str], root: Path, names: Iterable[str]) -> None:
    """Checks that the recipes which a command names are among the files that a host gets. Raises UserError."""
    known = set(names)
    for file in recipe_flags(verb)[0]:
        inside = {(root / file).resolve(), (root / "opencoder_jax" / file).resolve()}
        there = any(path.is_relative_to(root) and str(path.relative_to(root)) in known for path in inside)
        if not there and not file.startswith(("/", "~/")):  # what begins so is the host's own
            raise UserError(f"--gin_file={file}: not among the files that are copied (is it in .gitignore?), by {root}")


def pack(root: Path, names: Iterable[str], archive: Path) -> str:
    """Writes the files into a .tar.gz; returns a digest of their names, modes and bytes."""
    digest = hashlib.sha256()
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for name in names:
            path = root / name
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            mode = b"link" if path.is_symlink() else b"%o" % (path.stat().st_mode & 0o111)
            digest.update(b"%s\0%s\0%d\0%s" % (name.encode(), mode, len(content), content))
            tar.add(path, arcname=name, recursive=False)
    return digest.hexdigest()
