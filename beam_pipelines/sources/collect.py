"""Collects source files from folders: the raw documents of the corpus.

OpenCoder keeps files of up to 8 MB whose type linguist knows, less a list of types of low quality (paper section
2.1.1). `--input=DIR` may be repeated; without it the machine's own Python serves as a corpus: the standard library,
then the installed packages, each a repository. A file's repository is the nearest folder around it that holds `.git`,
else the first folder below the input. Paths in documents are relative, so that documents are the same wherever the
folder lies.

The driver lists the folders; workers read the files and write the shards. Folders that hold no source (`.git`,
`node_modules`) are counted and passed over; `__pycache__` and stage directories are passed over in silence, as Python
and we ourselves fill them while we run. Every other file becomes a document or a drop: symbolic_link (never followed),
unreadable, empty, too_large, excluded_language, unknown_language, binary, not_utf8,
broken_notebook (others become text, notebooks.py). Files beyond the size that a corpus
may have are counted. A listing is compared by names, sizes and times of change: an unchanged folder isn't read again.
"""

import codecs
import io
import json
import os
import re
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import xxhash

from opencoder_jax.beam_pipelines.core.documents import (
    BATCH_BYTES,
    DROP_SCHEMA,
    SCHEMA,
    document_id,
    shard_of,
)
from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, PLAN, Manifest, Tally, merge_tallies
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage, gather_reports, main, run_shards
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, UNKNOWN, Language, identify, settled
from opencoder_jax.beam_pipelines.sources import notebooks
from opencoder_jax.beam_pipelines.sources.stars import read_stars, with_digest
from opencoder_jax.beam_pipelines.sources.units import Row, write_rows
from opencoder_jax.recipe import UserError, configurable

SPEED = 25.0  # megabytes a second on one core
SKIPPED_FOLDERS = (".git", ".hg", ".svn", "node_modules")


@configurable
@dataclass(frozen=True)
class CollectConfig:
    """What is collected.

    Attributes:
        max_file_bytes: larger files are dropped; OpenCoder's 8 MB.
        max_corpus_bytes: stop at this sum of file sizes, 0 for no limit. Inputs come in their order, the repositories
            of an input from the smallest, the files of a repository in the order of their ids, which is random.
        shards: of the output.
        stars_table: see stars.py; without it, and for a repository that it lacks, stars are 0.
    """

    max_file_bytes: int = 8_000_000
    max_corpus_bytes: int = 0
    shards: int = 8
    stars_table: str = ""

    def __post_init__(self) -> None:
        if self.max_file_bytes < 1:
            raise ValueError(f"max_file_bytes={self.max_file_bytes} must be at least 1")
        if self.max_corpus_bytes < 0:
            raise ValueError(f"max_corpus_bytes={self.max_corpus_bytes} must be 0 (no limit) or more")
        if not 1 <= self.shards <= 99_999:
            raise ValueError(f"shards={self.shards} must be between 1 and 99999")


@dataclass(frozen=True)
class CollectPlan:
    """The configuration and a digest of what it was applied to: the manifest's `config`."""

    config: CollectConfig
    listing: str


class Root(NamedTuple):
    """A folder to collect from."""

    folder: str
    source: str  # what documents call it
    repository: str = ""  # of all its files, if it's one repository


class File(NamedTuple):
    """A file that was listed, before anything was read."""

    place: str  # where it is on this machine
    path: str  # in its repository
    repository: str
    source: str
    size: int
    changed: int  # nanoseconds since 1970
    reason: str = ""  # why it's dropped, as far as the listing tells

    @property
    def identifier(self) -> str:
        """The document's id."""
        return document_id(self.repository, self.path)


def python_library() -> list[Root]:
    """The running Python's standard library, then its installed packages."""
    paths = sysconfig.get_paths()
    folders = dict.fromkeys([paths["purelib"], paths["platlib"]])
    return [Root(paths["stdlib"], "python", "cpython"), *(Root(folder, "packages") for folder in folders)]


def list_files(roots: Iterable[Root], config: CollectConfig) -> tuple[list[File], dict[str, int]]:
    """All files below the roots, and counts of the folders that were passed over.

    Raises:
        UserError: a root is missing or no folder, there is no file at all, or two files would be one document.
    """
    files: list[File] = []
    counts: dict[str, int] = {}
    for root in roots:
        if not os.path.isdir(root.folder):
            wrong = "is a file; give the folder that holds it" if os.path.exists(root.folder) else "no such folder"
            raise UserError(f"input {root.folder}: {wrong}")
        found = list(_walk(root, config, counts))
        sizes: Counter[str] = Counter()
        for file in found:
            sizes[file.repository] += file.size
        files += sorted(found, key=lambda file: (sizes[file.repository], file.repository, file.identifier))
    if not files:
        raise UserError(f"input {', '.join(root.folder for root in roots)}: no files in it")
    seen: dict[str, File] = {}
    for file in files:
        other = seen.setdefault(file.identifier, file)
        if other is not file:
            raise UserError(
                f"{other.place} and {file.place} are both {file.path} of a repository {file.repository}; "
                "collect them in two runs, or rename a folder"
            )
    files, beyond = _within_size(files, config.max_corpus_bytes)
    return files, counts | beyond


def _walk(root: Root, config: CollectConfig, counts: dict[str, int]) -> Iterator[File]:
    top = os.path.abspath(root.folder)
    name = root.repository or os.path.basename(top) or "root"
    repositories = {top: (top, name)}  # folder -> its repository's folder and name

    def unreadable(error: OSError) -> None:
        counts["unreadable folder"] = counts.get("unreadable folder", 0) + 1

    for folder, folders, names in os.walk(top, onerror=unreadable):
        base, repository = repositories.pop(folder)
        if MANIFEST in names or PLAN in names:
            folders.clear()
            continue
        if is_repository := ".git" in folders or ".git" in names:
            base, repository = folder, name if folder == top else _relative(folder, top)
        for child in sorted(folders):
            place = os.path.join(folder, child)
            if os.path.islink(place):
                yield _listed(place, base, repository, root.source, config)
            elif child == "__pycache__" or (root.repository and child in ("site-packages", "dist-packages")):
                folders.remove(child)
            elif child in SKIPPED_FOLDERS or child.endswith(".dist-info"):
                folders.remove(child)
                kind = "*.dist-info" if child.endswith(".dist-info") else child
                counts[f"skipped folder {kind}"] = counts.get(f"skipped folder {kind}", 0) + 1
            elif folder == top and not root.repository and not is_repository:
                repositories[place] = (place, child)
            else:
                repositories[place] = (base, repository)
        for child in names:
            yield _listed(os.path.join(folder, child), base, repository, root.source, config)


def _listed(place: str, base: str, repository: str, source: str, config: CollectConfig) -> File:
    try:
        status = os.lstat(place)
    except OSError:
        return File(place, _relative(place, base), repository, source, 0, 0, "unreadable")
    file = File(place, _relative(place, base), repository, source, status.st_size, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        return file._replace(reason="symbolic_link")
    if not stat.S_ISREG(status.st_mode):
        return file._replace(reason="unreadable")  # a pipe or a device: reading it might never end
    if status.st_size == 0:
        return file._replace(reason="empty")
    if status.st_size > config.max_file_bytes:
        return file._replace(reason="too_large")
    # Where content may tell the language, the file is read first.
    excluded = identify(place).kind == "excluded" and settled(place)
    return file._replace(reason="excluded_language") if excluded else file


def _relative(place: str, base: str) -> str:
    """POSIX path below a folder; bytes that are no UTF-8 are written as escapes."""
    path = os.path.relpath(place, base).replace(os.sep, "/")
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _within_size(files: list[File], limit: int) -> tuple[list[File], dict[str, int]]:
    """The files before the one that makes the corpus too large, and a count of the others; a limit of 0 is none."""
    total = 0
    for number, file in enumerate(files):
        if not file.reason and identify(file.place) is not UNKNOWN:
            total += file.size
        if 0 < limit < total:
            return files[:number], {"files beyond max_corpus_bytes": len(files) - number}
    return files, {}


def read_file(file: File, config: CollectConfig) -> tuple[str, Language, str, str]:
    """Reads one file.

    Returns:
        (text, language, reason for a drop or "", encoding).
    """
    try:
        with open(file.place, "rb") as stream:
            head = stream.read(HEAD_BYTES)
            language = identify(file.place, head)
            if language.kind in ("unknown", "excluded"):
                return "", language, f"{language.kind}_language", ""
            data = head + stream.read(max(0, config.max_file_bytes + 1 - len(head)))
    except OSError:
        return "", identify(file.place), "unreadable", ""
    return text_of(data, language, config.max_file_bytes)


def text_of(data: bytes, language: Language, max_file_bytes: int) -> tuple[str, Language, str, str]:
    """A file's content as a document: the same as `read_file`."""
    if language.kind in ("unknown", "excluded"):
        return "", language, f"{language.kind}_language", ""
    if len(data) > max_file_bytes:
        return "", language, "too_large", ""
    text, encoding = decode(data, language.name)
    if text is None:
        return "", language, encoding, ""
    if language.name == notebooks.LANGUAGE:
        try:
            text = notebooks.structured(text)
        except notebooks.BrokenNotebook:
            return "", language, "broken_notebook", ""
    return text, language, "" if text.strip() else "empty", encoding


_COOKIE = re.compile(rb"\A(?:[ \t\f]*#[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")
_NOT_ASCII = re.compile(rb"[\x80-\xff]++")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def decode(data: bytes, language: str) -> tuple[str | None, str]:
    """The text and the encoding's name, or None and the reason: "binary" or "not_utf8".

    UTF-8 is tried first, but for a Python file that declares another encoding (PEP 263), and UTF-16 with its mark. What
    is left is taken for Latin-1 if its other bytes stand alone, as accents in a Western text do; in a multi-byte
    encoding, or in binary data, they come in rows.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decoded(data, "utf-16") or (None, "binary")
    if b"\0" in data:
        return None, "binary"
    declared = _COOKIE.match(data) if language == "Python" else None
    for encoding in ([declared[1].decode("ascii", "replace")] if declared else []) + ["utf-8-sig"]:
        if decoded := _decoded(data, encoding):
            return decoded
    if _CONTROL.search(data):
        return None, "binary"
    rows = _NOT_ASCII.findall(data)
    if len(rows) < 0.6 * sum(map(len, rows)):
        return None, "not_utf8"
    return _decoded(data, "cp1252") or _decoded(data, "latin-1") or (None, "not_utf8")


def _decoded(data: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        text = data.decode(codecs.lookup(encoding).name)
        text.encode()  # refuses what isn't text for us: lone surrogates
    except (UnicodeError, LookupError, ValueError):
        return None
    return text, "utf-8" if encoding == "utf-8-sig" else codecs.lookup(encoding).name


class CollectShard(beam.DoFn):
    """Reads the files of a shard, writes its documents and drops batch by batch, and a report."""

    def __init__(self, listing: Directory, output: str, config: CollectConfig) -> None:
        self.listing = listing
        self.output = output
        self.config = config

    def process(self, shard: int) -> Iterator[int]:
        files = read_listing(self.listing, shard)
        write_rows(Directory(self.output), shard, self.config.shards, batches(collect(files, self.config)))
        yield shard


def write_listing(folder: Directory, shards: Sequence[Sequence[File]]) -> None:
    """Writes what each shard is made of: it's read line by line, where a worker would be sent all of it at once."""
    for shard, files in enumerate(shards):
        with folder.atomic(f"{shard:05d}.jsonl") as stream:
            for file in files:
                stream.write(json.dumps(file).encode() + b"\n")


def read_listing(folder: Directory, shard: int) -> Iterator[File]:
    """The files of a shard, in the order that they were written."""
    with folder.read(f"{shard:05d}.jsonl") as stream, io.BufferedReader(stream) as lines:
        for line in lines:
            yield File(*json.loads(line))


BATCH_ROWS = 10_000  # of drops and tiny documents, which fill no batch by their bytes


def batches(rows: Iterable[tuple[Row, str]]) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]]:
    """Cuts what `collect` yields into batches of about BATCH_BYTES of text.

    Returns:
        Documents (SCHEMA), drops (DROP_SCHEMA) and counts of the encodings that aren't UTF-8, in the order of the rows.
    """
    documents: list[Row] = []
    drops: list[Row] = []
    counts: dict[str, int] = {}
    size = 0

    def cut() -> tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]:
        kept = pa.RecordBatch.from_pylist(documents, SCHEMA)
        return kept, pa.RecordBatch.from_pylist(drops, DROP_SCHEMA), counts

    for row, encoding in rows:
        if "reason" in row:
            drops.append(row)
        else:
            documents.append(row)
            size += row["bytes"]
            if encoding != "utf-8":
                counts[f"decoded {encoding}"] = counts.get(f"decoded {encoding}", 0) + 1
        if size >= BATCH_BYTES or len(documents) + len(drops) >= BATCH_ROWS:
            yield cut()
            documents, drops, counts, size = [], [], {}, 0
    if documents or drops:
        yield cut()


def collect(files: Iterable[File], config: CollectConfig) -> Iterator[tuple[Row, str]]:
    """Reads files one at a time, in the order given.

    Returns:
        Of each file a row of SCHEMA and the encoding, or a row of DROP_SCHEMA and "".
    """
    stars = read_stars(config.stars_table)
    for file in files:
        text, language, reason, encoding = "", identify(file.place), file.reason, ""
        if not reason:
            text, language, reason, encoding = read_file(file, config)
        row = {
            "id": file.identifier,
            "path": file.path,
            "repository": file.repository,
            "language": language.name,
        }
        if reason:
            yield row | {"bytes": file.size, "reason": reason, "detail": f"{file.size} bytes"}, ""
            continue
        yield (
            row
            | {
                "text": text,
                "stars": stars.get(file.repository, 0),
                "commit_time": 0,
                "kind": language.kind,
                "license": "",
                "source": file.source,
                "url": "",
                "bytes": len(text.encode()),
            },
            encoding,
        )


def run(inputs: Sequence[str], output: str, config: CollectConfig, options: BeamOptions) -> Manifest:
    """Collects the folders `inputs`, or the running Python's library where there are none.

    Raises:
        UserError: a folder is missing, is a file, is empty, or holds no source code.
    """
    roots = [Root(folder, os.path.basename(os.path.abspath(folder))) for folder in inputs] or python_library()
    files, counts = list_files(roots, config)
    # In the order of their ids: neither that of the inputs nor that of a folder's listing shows in what is written.
    files.sort(key=lambda file: file.identifier)
    listing = xxhash.xxh3_128()
    for file in files:
        listing.update(repr((file.repository, file.path, file.size, file.changed, file.reason)).encode())

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        shards: list[list[File]] = [[] for _ in range(config.shards)]
        for file in files:
            shards[shard_of(file.identifier, config.shards)].append(file)
        total = sum(file.size for file in files if not file.reason and identify(file.place) is not UNKNOWN)
        listed = directory.child("listing")
        write_listing(listed, shards)
        step = CollectShard(listed, output, config)
        run_shards("collect", directory, step, config.shards, options, total, SPEED)
        listed.remove_tree()
        tally, written = gather_reports(directory, config.shards)
        if not tally.get("out"):
            raise UserError(_no_source(roots, files, tally))
        return merge_tallies([tally, {"count": counts}]), written

    return Stage("collect", __name__, CollectPlan(with_digest(config), listing.hexdigest()), (), output).run(work)


def _no_source(roots: Sequence[Root], files: Sequence[File], tally: Tally) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally["drop"]["documents"].items()))
    endings = Counter(Path(file.path).suffix or Path(file.path).name for file in files)
    found = ", ".join(f"{ending} ({count})" for ending, count in endings.most_common(5))
    return f"input {', '.join(root.folder for root in roots)}: no source code; found {found}; dropped as {reasons}"


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.sources.collect")
