"""Stars of repositories from a side table, for the sources that don't know them.

Of copies, the one with the most stars is kept, so stars matter; but neither folders nor archives nor git have them.
The table is a Parquet, JSON-lines or CSV file of the columns repository and stars; a repository is named as the source
names it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import pyarrow.csv

from opencoder_jax.beam_pipelines.core.manifest import digest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.rows import integer, rows_of
from opencoder_jax.beam_pipelines.sources.units import Unit
from opencoder_jax.recipe import UserError

Config = TypeVar("Config")


def _place(path: str) -> tuple[Directory, str]:
    folder, _, name = path.rpartition("/")
    return Directory(folder or ("/" if path.startswith("/") else ".")), name


def read_stars(path: str) -> Mapping[str, int]:
    """Stars by repository; none for the path "". It's read once a process, and again after a change.

    Raises:
        UserError: the file is missing, damaged, or lacks the columns repository and stars.
    """
    if not path:
        return {}
    directory, name = _place(path)
    if not directory.exists(name):
        raise UserError(f"stars_table {path}: no such file")
    return _read(path, directory.changed(name))


@cache
def _read(path: str, _changed: int) -> Mapping[str, int]:
    directory, name = _place(path)
    rows: Iterable[Mapping[str, Any]]
    if name.endswith(".csv"):
        with directory.read(name) as stream:
            rows = pyarrow.csv.read_csv(stream).to_pylist()
    else:
        columns = {"repository": "repository", "stars": "stars"}
        found = rows_of(Unit(directory.uri, name, 0), columns, tuple(columns))
        rows = (row for _, row in found if isinstance(row, dict))
    stars: dict[str, int] = {}
    for row in rows:
        if "repository" not in row or "stars" not in row:
            raise UserError(f"stars_table {path}: no columns repository and stars; it has {', '.join(row)}")
        stars[str(row["repository"])] = integer(row["stars"])
    return stars


def with_digest(config: Config) -> Config:
    """A configuration with its field `stars_table` made a digest of the file: what a stage's plan holds.

    So another table makes a stage stale, and another place for the same table doesn't. The table's mistakes are the
    user's before any worker starts.

    Raises:
        UserError: as `read_stars`.
    """
    path: str = config.stars_table  # type: ignore[attr-defined]
    if not path:
        return config
    read_stars(path)
    return replace(config, stars_table=digest(*_place(path)))  # type: ignore[type-var]
