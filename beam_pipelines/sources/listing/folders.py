"""What lies in folders: every file with its repository, and why it's dropped, as far as no file need be read for it.

A file's repository is the nearest folder around it that holds `.git`, else the first folder below the input. Folders
that hold no source (`.git`, `node_modules`) are counted and passed over; `__pycache__` and stage directories are passed
over in silence, as Python and we ourselves fill them while we run.
"""

import os
import sysconfig
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, PLAN
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable, passed_over
from opencoder_jax.beam_pipelines.core.stores.trees import (
    FILE,
    FOLDER,
    LINK,
    Found,
    base_name,
    entries,
    kind_of,
    opened,
)
from opencoder_jax.beam_pipelines.languages.attributes import MOST_BYTES, NAME, Attributes
from opencoder_jax.beam_pipelines.languages.detect import UNKNOWN, Language, by_name, identify, path_decides
from opencoder_jax.beam_pipelines.sources.formats.members import SKIPPED_FOLDERS
from opencoder_jax.recipe import UserError

_HEAD = ("stage", "config", "code", "inputs")  # what every manifest and plan of a stage holds


class Root(NamedTuple):
    """A folder to collect from."""

    folder: str
    source: str  # what documents call it
    repository: str = ""  # of all its files, if it's one repository


class Folder(NamedTuple):
    """A folder that is to be listed, with what the folders around it say of its files."""

    place: str
    root: Root
    top: str  # the place of the root
    base: str  # that of its repository
    repository: str
    attributes: Attributes


class File(NamedTuple):
    """A file that was listed, before anything was read."""

    location: str  # a path of this machine, or a URI
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


def top_of(root: Root) -> Folder:
    """Where the listing of a root begins. Raises UserError where it's missing or no folder."""
    if (kind := kind_of(root.folder)) != FOLDER:
        wrong = "is a file; give the folder that holds it" if kind else "no such folder"
        raise UserError(f"input {root.folder}: {wrong}")
    place = (root.folder if "://" in root.folder else os.path.abspath(root.folder)).rstrip("/") or "/."
    return Folder(place, root, place, place, root.repository or base_name(place) or "root", Attributes())


def walk(folder: Folder, max_file_bytes: int, passed: Counter[str]) -> Iterator[File]:
    """The files of a folder and of all below it; `passed` counts what was passed over."""
    waiting = [folder]
    while waiting:
        files, below = listed(waiting.pop(), max_file_bytes, passed)
        yield from files
        waiting += reversed(below)


def listed(folder: Folder, max_file_bytes: int, passed: Counter[str]) -> tuple[list[File], list[Folder]]:
    """The files of a folder, and its folders that are to be listed."""
    place, root, top, base, repository, attributes = folder
    try:
        found = entries(place)
    except Unreachable:
        raise
    except OSError:
        passed["unreadable folder"] += 1
        return [], []
    names = {each.name for each in found}
    if names & {MANIFEST, PLAN} and is_stage(place):
        return [], []
    is_top = place == top
    if (is_repository := ".git" in names) and not is_top:
        base, repository, attributes = place, _relative(place, top), Attributes()
    below = []
    for each in found:
        if each.kind != FOLDER:
            continue
        child = f"{place}/{each.name}"
        if each.name == "__pycache__" or (root.repository and each.name in ("site-packages", "dist-packages")):
            continue
        if each.name in SKIPPED_FOLDERS or each.name.endswith(".dist-info"):
            passed[f"skipped folder {'*.dist-info' if each.name.endswith('.dist-info') else each.name}"] += 1
        elif is_top and not root.repository and not is_repository:
            below.append(Folder(child, root, top, child, each.name, Attributes()))
        else:
            below.append(Folder(child, root, top, base, repository, attributes))
    if any(each.name == NAME and each.kind == FILE for each in found):
        with passed_over(), opened(f"{place}/{NAME}") as stream:
            attributes.add(_relative(f"{place}/{NAME}", base), stream.read(MOST_BYTES))
    files = []
    for each in found:
        if each.kind != FOLDER:
            location = f"{place}/{each.name}"
            path = _relative(location, base)
            language = attributes.language(path)
            file = File(location, path, repository, root.source, declared=language.name if language else "")
            files.append(_judged(file, each, max_file_bytes))
    return files, below


def _judged(file: File, found: Found, max_file_bytes: int) -> File:
    reason = ""
    if found.kind == LINK:
        reason = "symbolic_link"
    elif found.kind != FILE:
        reason = "unreadable"  # a pipe or a device: reading it might never end
    elif found.size == 0:
        reason = "empty"
    elif found.size > max_file_bytes:
        reason = "too_large"
    elif file.language().kind == "excluded" and (file.declared or path_decides(file.path)):  # else it's read first
        reason = "excluded_language"
    return file._replace(size=found.size, changed=found.changed, reason=reason)


def _relative(location: str, base: str) -> str:
    """The path below a folder; bytes that are no UTF-8 are written as escapes."""
    return location.removeprefix(f"{base}/").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_stage(folder: str) -> bool:
    """Whether a stage of ours writes or wrote there; other programs have a plan.json or stage.json of their own."""
    directory = Directory(folder)
    for name in (MANIFEST, PLAN):
        try:
            known = directory.read_json(name) if directory.exists(name) else None
        except (UserError, OSError, RecursionError, UnicodeError):
            continue
        if isinstance(known, dict) and known.keys() >= set(_HEAD):
            return True
    return False
