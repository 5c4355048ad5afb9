"""Collects source files from folders: the raw documents of the corpus.

    python -m beam_pipelines collect --folders=/path/to/repositories --output=runs/collect

OpenCoder keeps files of up to 8 MB whose type linguist knows, less a list of types of low quality (paper section
2.1.1). Without `--folders` the machine's own Python serves as a corpus: the standard library, then the installed
packages, each a repository. Paths in documents are relative, so that documents are the same wherever the folder lies.

Folders may lie in buckets (gs://, s3://). They're listed (listing/), then workers read the files and write the shards.
Every file becomes a document or a drop with its reason: symbolic_link (never followed), unreadable, or one of the
builder's (builder.py). A listing is compared by names, sizes and times of change: an unchanged folder isn't read again.
"""

import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from opencoder_jax.beam_pipelines.core.manifest import Manifest, Tally, merge_tallies
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import Stage
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.core.stores.systems import Unreachable
from opencoder_jax.beam_pipelines.core.stores.trees import base_name, is_remote, opened
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, Language
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.members import Late, Unit
from opencoder_jax.beam_pipelines.sources.listing.folders import File, Root, python_library
from opencoder_jax.beam_pipelines.sources.listing.listings import list_folders
from opencoder_jax.beam_pipelines.sources.stars import read_stars
from opencoder_jax.beam_pipelines.sources.units import (
    USUAL,
    QuarantineConfig,
    UnitsPlan,
    tell_quarantine,
    told,
    write_units,
)
from opencoder_jax.checks import at_least, between, check
from opencoder_jax.recipe import UserError, configurable

SPEED = 25.0  # megabytes a second on one core
AHEAD = 16  # files of a bucket that are read at a time


@configurable
@dataclass(frozen=True)
class CollectConfig:
    """What is collected.

    Attributes:
        max_file_bytes: larger files are dropped; OpenCoder's 8 MB.
        max_corpus_bytes: stop at this sum of file sizes, 0 for no limit. Inputs come in their order, the repositories
            of an input from the smallest, the files of a repository in the order of their ids, which is random.
        shards: of the output.
        detect_encodings: decodes files, too, whose encoding only their statistics tell (GBK, Shift-JIS, KOI8-R, UTF-16
            without a mark …), and UTF-8 with some bytes that are none, which are lost and counted.
        stars_table: see stars.py; without it, and for a repository that it lacks, stars are 0.
    """

    max_file_bytes: int = 8_000_000
    max_corpus_bytes: int = 0
    shards: int = 8
    detect_encodings: bool = False
    stars_table: str = ""

    def __post_init__(self) -> None:
        check(self, max_file_bytes=at_least(1), max_corpus_bytes=at_least(0), shards=between(1, 99_999))


def read_files(files: Iterable[File], config: CollectConfig) -> Iterator[Late]:
    """Reads files in the order given: a row each. Those of a bucket, some ahead, as each is a request's time away."""
    stars = read_stars(config.stars_table)
    waiting: deque[Late] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for file in files:
            make, ahead = partial(_row, file, config, stars), AHEAD if is_remote(file.location) else 0
            late = Late(f"{file.repository}/{file.path}", pool.submit(make).result if ahead else make, file.size)
            waiting.append(late)
            while len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting


def _row(file: File, config: CollectConfig, stars: Mapping[str, int]) -> Row:
    content, language, reason = b"", file.language(), file.reason
    try:
        if not reason:
            content, language = _read(file, config.max_file_bytes)
    except Unreachable:
        raise
    except OSError:
        reason = "unreadable"
    return document(
        file.repository,
        file.path,
        content,
        source=file.source,
        language=language,
        max_bytes=config.max_file_bytes,
        reason=reason,
        size=file.size,
        stars=stars.get(file.repository, 0),
        detect_encodings=config.detect_encodings,
    )


def _read(file: File, max_file_bytes: int) -> tuple[bytes, Language]:
    """A file's content and language; no more than its head where that's of no language of the corpus."""
    with opened(file.location) as stream:
        head = stream.read(HEAD_BYTES)
        language = file.language(head)
        if language.kind in ("unknown", "excluded"):
            return head, language
        return head + stream.read(max(0, max_file_bytes + 1 - len(head))), language


def read_listing(listing: Unit, config: CollectConfig) -> Iterator[Late]:
    """The files of a listing as documents and drops. It's read line by line, as it may be long."""
    with Directory(listing.directory).read(listing.name) as stream, io.BufferedReader(stream) as lines:
        yield from read_files((File(*json.loads(line)) for line in lines), config)


def run(
    *,
    folders: Sequence[str] = (),
    output: str,
    config: CollectConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Collects folders.

    Args:
        folders: a folder of source code; the running Python's library by default

    Raises:
        UserError: a folder is missing, is a file, is empty, or holds no source code.
    """
    roots = [Root(folder, base_name(folder)) for folder in folders] or python_library()
    limits = config.max_file_bytes, config.max_corpus_bytes
    with list_folders(roots, *limits, config.shards, output, options) as listing:

        def work(directory: Directory) -> tuple[Tally, dict[str, str]]:
            folder = directory.child("listing")
            units = listing.write(folder)
            tally, written = write_units("collect", directory, units, read_listing, config, options, SPEED)
            folder.remove_tree()
            if not tally.get("out"):
                found = ", ".join(f"{ending} ({count})" for ending, count in listing.endings.most_common(5))
                where, reasons = ", ".join(root.folder for root in roots), told(tally["drop"]["documents"])
                raise UserError(f"input {where}: no source code; found {found}; dropped as {reasons}")
            return merge_tallies([tally, {"count": listing.passed}]), written

        plan = UnitsPlan.of(config, listing.units)
        stage = Stage("collect", __name__, plan, (), output, parts=tuple(plan.units.values()))
        manifest = stage.run(work, options)
    tell_quarantine(manifest, output, config.shards, quarantine)
    return manifest
