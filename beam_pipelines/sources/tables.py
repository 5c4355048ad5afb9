"""Collects documents from Parquet and JSON-lines files: The Stack, OpenCoder's releases, or any table with a text.

    python -m opencoder_jax.beam_pipelines.sources.tables --input=data/python --output=runs/stack \\
        --gin.TablesConfig.preset=the_stack_v1

`--input` is a folder or a file and may be repeated; .parquet, .jsonl and .json are read, the last two also with .gz or
.zst. A preset says which columns hold what (`PRESETS`); every column can be named by itself, a dot leads into a nested
one. Where no path is given, a row's place in its file is its path.

An output shard holds one input file, in its order, so that the same files give the same bytes whatever their number,
and no file is held in memory. Rows without a document are counted drops: broken_json, no_text, empty, too_large,
unknown_language, excluded_language.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from opencoder_jax.beam_pipelines.core.documents import document_id
from opencoder_jax.beam_pipelines.core.manifest import Manifest
from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.stage import main
from opencoder_jax.beam_pipelines.languages.detect import HEAD_BYTES, Language, by_name, identify
from opencoder_jax.beam_pipelines.sources.rows import integer, list_tables, rows_of
from opencoder_jax.beam_pipelines.sources.stars import read_stars, with_digest
from opencoder_jax.beam_pipelines.sources.units import Row, Unit, collect_units
from opencoder_jax.recipe import UserError, configurable

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
        kind: of all documents, as "web" or "synthetic"; by default what linguist says of their language.
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
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r} isn't known; choose of {', '.join(PRESETS)}")
        if self.max_file_bytes < 1:
            raise ValueError(f"max_file_bytes={self.max_file_bytes} must be at least 1")

    def columns(self) -> dict[str, str]:
        """The column of each field that has one."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name in _COLUMNS}
        return PRESETS[self.preset] | {name: column for name, column in named.items() if column}


def document(
    file: Unit, place: str, row: dict[str, Any] | str, config: TablesConfig, stars: Mapping[str, int]
) -> dict[str, Any]:
    """A row of SCHEMA, or one of DROP_SCHEMA where the row is no document."""
    given: dict[str, Any] = row if isinstance(row, dict) else {}
    path = str(given.get("path") or f"{file.name}/{place}").lstrip("/")
    repository = str(given.get("repository") or config.source or config.preset)
    text = given.get("text")
    known = isinstance(text, str)
    size = len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0
    language = _language(given, path, text if isinstance(text, str) else "", config)
    head = {"id": document_id(repository, path), "path": path, "repository": repository, "language": language.name}
    reasons = {
        "broken_json": isinstance(row, str),
        "no_text": not known,
        "not_utf8": isinstance(text, str) and not text.isascii() and _surrogate(text),
        "empty": isinstance(text, str) and not text.strip(),
        "too_large": size > config.max_file_bytes,
        "unknown_language": language.kind == "unknown",
        "excluded_language": language.kind == "excluded",
    }
    for reason, holds in reasons.items():
        if holds:
            detail = row if isinstance(row, str) else f"{file.name}, row {place}"
            return head | {"bytes": size, "reason": reason, "detail": detail}
    licenses = given.get("license")
    return head | {
        "text": text,
        "stars": stars.get(repository, integer(given.get("stars"))),
        "commit_time": _seconds(given.get("commit_time")),
        "kind": language.kind,
        "license": ", ".join(map(str, licenses)) if isinstance(licenses, list) else str(licenses or ""),
        "source": config.source or config.preset,
        "url": str(given.get("url") or ""),
        "bytes": size,
    }


def _language(given: Mapping[str, Any], path: str, text: str, config: TablesConfig) -> Language:
    """What the column says, else what the path and the text tell; a table of one kind needs neither."""
    language = by_name(str(given.get("language") or ""))
    if language.kind == "unknown" and given.get("path"):
        language = identify(path, text[:HEAD_BYTES].encode("utf-8", "replace"))
    if config.kind:
        return Language("Text" if language.kind == "unknown" else language.name, config.kind)
    return language


def _surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _seconds(value: Any) -> int:
    """Seconds since 1970 of a number, a time or its ISO text; 0 where it's none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return integer(value)
    if isinstance(value, datetime):
        return max(0, int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()))
    return max(0, integer(value))


@dataclass(frozen=True)
class ReadTable:
    """The rows of a file as documents and drops."""

    config: TablesConfig

    def __call__(self, file: Unit) -> Iterator[Row]:
        stars = read_stars(self.config.stars_table)
        for place, row in rows_of(file, self.config.columns(), ("text",)):
            yield document(file, place, row, self.config, stars)


def run(inputs: Sequence[str], output: str, config: TablesConfig, options: BeamOptions) -> Manifest:
    """Collects the tables `inputs`.

    Raises:
        UserError: an input is missing, holds no table, is damaged or lacks the column of the text.
    """
    if not inputs:
        raise UserError("tables: give --input=DIR, a folder of Parquet or JSON-lines files")
    files = list_tables(inputs)
    return collect_units("tables", __name__, files, ReadTable(config), with_digest(config), output, options, SPEED)


if __name__ == "__main__":
    main("opencoder_jax.beam_pipelines.sources.tables")
