"""Collects source files from folders: the raw documents of the corpus.

    python -m beam_pipelines collect --folders=/path/to/repositories --output=runs/collect

OpenCoder keeps files of up to 8 MB whose type linguist knows, less a list of types of low quality (paper section
2.1.1). Without `--folders` the machine's own Python serves as a corpus: the standard library, then the installed
packages, each a repository. Paths in documents are relative, so that documents are the same wherever the folder lies.

The driver lists the folders (folders.py); workers read the files and write the shards. Every file becomes a document or
a drop with its reason: symbolic_link (never followed), unreadable, or one of the builder's (builder.py). A listing is
compared by names, sizes and times of change: an unchanged folder isn't read again.
"""

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from opencoder_jax.beam_pipelines.core.documents import shard_of
from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, Language
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.folders import File, Root, list_files, python_library
from opencoder_jax.beam_pipelines.sources.inputs import Unit
from opencoder_jax.beam_pipelines.sources.stars import read_stars, with_digest
from opencoder_jax.beam_pipelines.sources.units import told, write_units
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import UserError, configurable

SPEED = 25.0  # megabytes a second on one core


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
        check(self, max_file_bytes=at_least(1), max_corpus_bytes=at_least(0), shards=between(1, 99_999))


@dataclass(frozen=True)
class CollectPlan:
    """The configuration and a digest of what it was applied to: the manifest's `config`."""

    config: CollectConfig
    listing: str


def read_files(files: Iterable[File], config: CollectConfig) -> Iterator[Row]:
    """Reads files one at a time, in the order given: a row each."""
    stars = read_stars(config.stars_table)
    for file in files:
        content, language = b"", file.language()
        reason = file.reason
        try:
            if not reason:
                content, language = _read(file, config.max_file_bytes)
        except OSError:
            reason = "unreadable"
        yield document(
            file.repository,
            file.path,
            content,
            source=file.source,
            language=language,
            max_bytes=config.max_file_bytes,
            reason=reason,
            size=file.size,
            stars=stars.get(file.repository, 0),
        )


def _read(file: File, max_file_bytes: int) -> tuple[bytes, Language]:
    """A file's content and language; no more than its head where that's of no language of the corpus."""
    with open(file.location, "rb") as stream:
        head = stream.read(HEAD_BYTES)
        language = file.language(head)
        if language.kind in ("unknown", "excluded"):
            return head, language
        return head + stream.read(max(0, max_file_bytes + 1 - len(head))), language


def read_listing(listing: Unit, config: CollectConfig) -> Iterator[Row]:
    """The files of a listing as documents and drops. It's read line by line, as it may be long."""
    with Directory(listing.directory).read(listing.name) as stream, io.BufferedReader(stream) as lines:
        yield from read_files((File(*json.loads(line)) for line in lines), config)


def write_listings(folder: Directory, files: Iterable[File], shards: int) -> list[Unit]:
    """Writes what each shard of the output is made of, in the order of `files`; a unit for each."""
    listed: list[list[File]] = [[] for _ in range(shards)]
    for file in files:
        listed[shard_of(file.identifier, shards)].append(file)
    units = []
    for shard, members in enumerate(listed):
        units.append(Unit(folder.uri, f"{shard:05d}.jsonl", sum(file.size for file in members if file.wanted)))
        with folder.atomic(units[-1].name) as stream:
            for file in members:
                stream.write(json.dumps(file).encode() + b"\n")
    return units


def run(*, folders: Sequence[str] = (), output: str, config: CollectConfig, options: BeamOptions) -> Manifest:
    """Collects folders.

    Args:
        folders: a folder of source code; the running Python's library by default

    Raises:
        UserError: a folder is missing, is a file, is empty, or holds no source code.
    """
    roots = [Root(folder, os.path.basename(os.path.abspath(folder))) for folder in folders] or python_library()
    files, passed = list_files(roots, config.max_file_bytes, config.max_corpus_bytes)
    # In the order of their ids: neither that of the inputs nor that of a folder's listing shows in what is written.
    files.sort(key=lambda file: file.identifier)
    listing = xxhash.xxh3_128()
    for file in files:
        listing.update(repr((file.repository, file.path, file.size, file.changed, file.reason)).encode())

    def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
        folder = directory.child("listing")
        units = write_listings(folder, files, config.shards)
        tally, written = write_units("collect", directory, units, read_listing, config, options, SPEED)
        folder.remove_tree()
        if not tally.get("out"):
            endings = Counter(Path(file.path).suffix or Path(file.path).name for file in files)
            found = ", ".join(f"{ending} ({count})" for ending, count in endings.most_common(5))
            where, reasons = ", ".join(root.folder for root in roots), told(tally["drop"]["documents"])
            raise UserError(f"input {where}: no source code; found {found}; dropped as {reasons}")
        return merge_tallies([tally, {"count": passed}]), written

    plan = CollectPlan(with_digest(config), listing.hexdigest())
    return Stage("collect", __name__, plan, (), output).run(work, options)
