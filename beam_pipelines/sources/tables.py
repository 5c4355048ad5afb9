"""Collects documents from Parquet and JSON files: The Stack, OpenCoder's releases, or any table with a text.

    python -m beam_pipelines tables --tables=data/python --output=runs/stack --gin.TablesConfig.preset=the_stack_v1

.parquet, .jsonl and .json (a row a line, or one array of rows) are read, the last two also with .gz or .zst, from a
folder and its folders. A preset says which columns hold what (`PRESETS`); every column can be named by itself, a dot
leads into a nested one. Where no path is given, the file's name and the row's number are its path.

An output shard holds one input file, in its order. Rows without a document are counted drops: broken_json, no_text,
not_utf8, empty, too_large, unknown_language, excluded_language; and where a row names the repository and path of one
before it, same_id, or same_id_elsewhere if that is in another file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, Language, by_name, identify
from opencoder_jax.beam_pipelines.sources.builder import Row, document
from opencoder_jax.beam_pipelines.sources.formats.members import Late, printable
from opencoder_jax.beam_pipelines.sources.formats.rows import TABLES, epoch_seconds, integer
from opencoder_jax.beam_pipelines.sources.inputs import Unit, list_units, rows_of
from opencoder_jax.beam_pipelines.sources.stars import read_stars
from opencoder_jax.beam_pipelines.sources.units import USUAL, QuarantineConfig, collect_units
from opencoder_jax.checks import at_least, check, one_of
from opencoder_jax.recipe import configurable

SPEED = 40.0  # megabytes a second on one core

_COLUMNS = ("text", "path", "repository", "stars", "commit_time", "language", "license", "url")

# The columns of published data sets. Those of The Stack are from their cards; OpenCoder's from its releases.
PRESETS: dict[str, dict[str, str]] = {
    "text": {"text": "text"},
    "the_stack_v1": {
        "text": "content",
        "path": "max_stars_repo_path",
        "repository": "max_stars_repo_name",
        "stars": "max_stars_count",
        "language": "lang",
        "license": "max_stars_repo_licenses",
    },
    "the_stack_v2": {
        "text": "content",
        "path": "path",
        "repository": "repo_name",
        "stars": "star_events_count",
        "commit_time": "committer_date",
        "language": "language",
        "license": "detected_licenses",
    },
    "opencoder_web": {"text": "text", "path": "file_path", "url": "url"},
    "opencoder_annealing": {"text": "text", "language": "lang"},
}


@configurable
@dataclass(frozen=True)
class TablesConfig:
    """Which columns are what.

    Attributes:
        preset: of PRESETS; "text" is a column `text` alone.
        text, path, repository, stars, commit_time, language, license, url: a column each, instead of the preset's.
        kind: of all documents, as "web" or "synthetic"; by default what linguist says of their language, "web" for the
            preset opencoder_web, and "text" where no column tells a language or a path.
        source: what documents call this table; the preset by default.
        stars_table: see stars.py; it takes precedence over a column of stars.
        max_file_bytes: longer texts are dropped; OpenCoder's 8 MB.
    """

    preset: str = "text"
    text: str = ""
    path: str = ""
    repository: str = ""
    stars: str = ""
    commit_time: str = ""
    language: str = ""
    license: str = ""
    url: str = ""
    kind: str = ""
    source: str = ""
    stars_table: str = ""
    max_file_bytes: int = 8_000_000

    def __post_init__(self) -> None:
        check(self, preset=one_of(*PRESETS), max_file_bytes=at_least(1))

    def columns(self) -> dict[str, str]:
        """The column of each field that has one."""
        return PRESETS[self.preset] | {name: column for name in _COLUMNS if (column := getattr(self, name))}

    def one_kind(self) -> str:
        """The kind of all documents; "" where each has its own."""
        if self.kind or self.preset == "opencoder_web":
            return self.kind or "web"
        return "" if {"language", "path"} & self.columns().keys() else "text"


def read_table(file: Unit, config: TablesConfig) -> Iterator[Late]:
    """The rows of a file as documents and drops."""
    stars = read_stars(config.stars_table)
    source = config.source or config.preset
    for number, row in rows_of(file, config.columns(), ("text",), _advice):
        make = partial(_row, file.name, number, row, source, config, stars)
        yield Late(f"row {number}", make)


def _row(
    name: str,
    number: int,
    row: dict[str, Any] | str,
    source: str,
    config: TablesConfig,
    stars: Mapping[str, int],
) -> Row:
    given: dict[str, Any] = row if isinstance(row, dict) else {}
    repository = _text(given.get("repository")) or source
    path = (_text(given.get("path")) or f"{name}/{number}").lstrip("/")
    text, licenses = given.get("text"), given.get("license")
    is_text = isinstance(text, (str, bytes))
    return document(
        repository,
        path,
        text if isinstance(text, (str, bytes)) else "",
        source=source,
        language=_language(given, path, config.one_kind()),
        max_bytes=config.max_file_bytes,
        reason="broken_json" if isinstance(row, str) else "" if is_text else "no_text",
        detail=row if isinstance(row, str) else f"{name}, row {number}",
        stars=stars.get(repository, integer(given.get("stars"))),
        commit_time=epoch_seconds(given.get("commit_time")),
        license=", ".join(map(_text, licenses)) if isinstance(licenses, list) else _text(licenses),
        url=_text(given.get("url")),
    )


def _text(value: Any) -> str:
    """A field as text; bytes of a text that is no UTF-8 are escapes."""
    return printable(value) if isinstance(value, bytes) else "" if value is None else str(value)


def _advice(names: Sequence[str]) -> str:
    if {"repo_name", "sub_path"} <= set(names):
        return "it's RefineCode's metadata, without any text: see python -m beam_pipelines join_metadata"
    if fitting := [preset for preset, columns in PRESETS.items() if set(columns.values()) <= set(names)]:
        return f"they are those of --gin.TablesConfig.preset={fitting[0]}"
    if fitting := [preset for preset, columns in PRESETS.items() if columns["text"] in names]:
        return f"--gin.TablesConfig.preset={' or '.join(fitting)} would find a text in it"
    if "blob_id" in names:
        return "it has only the blobs' ids; fetch their contents into such a column first"
    return "name the column of the text: --gin.TablesConfig.text=…"


def _language(given: Mapping[str, Any], path: str, kind: str) -> Language:
    """What the column says, else what the path and the text tell; a table of one kind needs neither."""
    language = by_name(_text(given.get("language")))
    if language.kind == "unknown" and given.get("path"):
        text = given.get("text")
        head = text[:HEAD_BYTES] if isinstance(text, (str, bytes)) else b""
        language = identify(path, head.encode("utf-8", "replace") if isinstance(head, str) else head)
    if kind:
        return Language("Text" if language.kind == "unknown" else language.name, kind)
    return language


def run(
    tables: Sequence[str],
    output: str,
    config: TablesConfig,
    options: BeamOptions,
    quarantine: QuarantineConfig = USUAL,
) -> Manifest:
    """Collects tables.

    Args:
        tables: a Parquet or JSON file, or a folder of them

    Raises:
        UserError: an input is missing, holds no table or nowhere the column of the text, or too much is damaged.
    """
    units = list_units(tables, TABLES, output, options)
    own = "path" not in config.columns()  # but the file's name
    return collect_units(__name__, units, read_table, config, output, options, SPEED, quarantine, own_ids=own)
