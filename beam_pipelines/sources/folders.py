"""What lies in folders: every file with its repository, and why it's dropped, as far as no file need be read for it.

A file's repository is the nearest folder around it that holds `.git`, else the first folder below the input. Folders
that hold no source (`.git`, `node_modules`) are counted and passed over; `__pycache__` and stage directories are passed
over in silence, as Python and we ourselves fill them while we run.
"""

import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, PLAN
from opencoder_jax.beam_pipelines.languages.attributes import NAME, Attributes, read_attributes
from opencoder_jax.beam_pipelines.languages.detect import UNKNOWN, Language, by_name, identify, path_decides
from opencoder_jax.beam_pipelines.sources.formats.members import SKIPPED_FOLDERS
from opencoder_jax.beam_pipelines.sources.inputs import is_stage
from opencoder_jax.recipe import UserError


class Root(NamedTuple):
    """A folder to collect from."""

    folder: str
    source: str  # what documents call it
    repository: str = ""  # of all its files, if it's one repository


class File(NamedTuple):
    """A file that was listed, before anything was read."""

    location: str  # on this machine
    path: str  # in its repository
    repository: str
    source: str
    size: int = 0
    changed: int = 0  # nanoseconds since 1970
    reason: str = ""  # why it's dropped, as far as the listing tells
    declared: str = ""  # the language that its repository names (attributes.py)

    def language(self, head: bytes = b"") -> Language:
        """Its language, as its repository has it, or else its path and the head of its content."""
        return by_name(self.declared) if self.declared else identify(self.path, head)

    @property
    def identifier(self) -> str:
        """The document's id."""
        return document_id(self.repository, self.path)

    @property
    def wanted(self) -> bool:
        """Whether it's to be read, and its name tells its language."""
        return not self.reason and self.language() is not UNKNOWN


def python_library() -> list[Root]:
    """The running Python's standard library, then its installed packages."""
    paths = sysconfig.get_paths()
    folders = dict.fromkeys([paths["purelib"], paths["platlib"]])
    return [Root(paths["stdlib"], "python", "cpython"), *(Root(folder, "packages") for folder in folders)]


def list_files(
    roots: Sequence[Root], max_file_bytes: int, max_corpus_bytes: int = 0
) -> tuple[list[File], Counter[str]]:
    """The files below the roots: the repositories of a root from the smallest, their files in the order of their ids.

    Args:
        max_file_bytes: larger files are dropped.
        max_corpus_bytes: the list ends before the file that makes the corpus larger; 0 for no limit.

    Returns:
        The files, and counts of the folders and files that were passed over.

    Raises:
        UserError: a root is missing or no folder, there is no file at all, or two files would be one document.
    """
    files: list[File] = []
    passed: Counter[str] = Counter()
    for root in roots:
        if not os.path.isdir(root.folder):
            wrong = "is a file; give the folder that holds it" if os.path.exists(root.folder) else "no such folder"
            raise UserError(f"input {root.folder}: {wrong}")
        found = list(_walk(root, max_file_bytes, passed))
        sizes: Counter[str] = Counter()
        for file in found:
            sizes[file.repository] += file.size
        files += sorted(found, key=lambda file: (sizes[file.repository], file.repository, file.identifier))
    if not files:
        raise UserError(f"input {', '.join(root.folder for root in roots)}: no files in it")
    seen: dict[str, File] = {}
    for file in files:
        if (other := seen.setdefault(file.identifier, file)) is not file:
            raise UserError(
                f"{other.location} and {file.location} are both {file.path} of a repository {file.repository}; "
                "collect them in two runs, or rename a folder"
            )
    total = 0
    for index, file in enumerate(files if max_corpus_bytes else ()):
        total += file.size if file.wanted else 0
        if total > max_corpus_bytes:
            passed["files beyond max_corpus_bytes"] = len(files) - index
            return files[:index], passed
    return files, passed


def _walk(root: Root, max_file_bytes: int, passed: Counter[str]) -> Iterator[File]:
    top = os.path.abspath(root.folder)
    name = root.repository or os.path.basename(top) or "root"
    repositories = {top: (top, name)}  # folder -> its repository's folder and name
    attributes: dict[str, Attributes] = {}  # of a repository's folder
    unreadable = {"unreadable folder": 1}
    for folder, folders, names in os.walk(top, onerror=lambda _: passed.update(unreadable)):
        base, repository = repositories.pop(folder)
        if (MANIFEST in names or PLAN in names) and is_stage(folder):
            folders.clear()
            continue
        if is_repository := ".git" in folders or ".git" in names:
            base, repository = folder, name if folder == top else _relative(folder, top)
        for child in sorted(folders):
            location = os.path.join(folder, child)
            if os.path.islink(location):
                names.append(child)
            elif child == "__pycache__" or (root.repository and child in ("site-packages", "dist-packages")):
                folders.remove(child)
            elif child in SKIPPED_FOLDERS or child.endswith(".dist-info"):
                folders.remove(child)
                passed[f"skipped folder {'*.dist-info' if child.endswith('.dist-info') else child}"] += 1
            elif folder == top and not root.repository and not is_repository:
                repositories[location] = (location, child)
            else:
                repositories[location] = (base, repository)
        if NAME in names:
            path = os.path.join(folder, NAME)
            attributes.setdefault(base, Attributes()).add(_relative(path, base), read_attributes(path))
        for child in names:
            location = os.path.join(folder, child)
            path = _relative(location, base)
            language = attributes[base].language(path) if base in attributes else None
            file = File(location, path, repository, root.source, declared=language.name if language else "")
            yield _listed(file, max_file_bytes)


def _listed(file: File, max_file_bytes: int) -> File:
    try:
        status = os.lstat(file.location)
    except OSError:
        return file._replace(reason="unreadable")
    reason = ""
    if stat.S_ISLNK(status.st_mode):
        reason = "symbolic_link"
    elif not stat.S_ISREG(status.st_mode):
        reason = "unreadable"  # a pipe or a device: reading it might never end
    elif status.st_size == 0:
        reason = "empty"
    elif status.st_size > max_file_bytes:
        reason = "too_large"
    elif file.language().kind == "excluded" and (file.declared or path_decides(file.path)):  # else it's read first
        reason = "excluded_language"
    return file._replace(size=status.st_size, changed=status.st_mtime_ns, reason=reason)


def _relative(location: str, base: str) -> str:
    """POSIX path below a folder; bytes that are no UTF-8 are written as escapes."""
    path = os.path.relpath(location, base).replace(os.sep, "/")
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
