"""Stars of repositories from a side table, for the sources that don't know them.

Of copies, the one with the most stars is kept, so stars matter; but neither folders nor archives nor git have them.
The table is a Parquet, JSON or CSV file of the columns repository and stars; a repository is named as the source
names it.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TypeVar

from opencoder_jax.beam_pipelines.core.manifest import digest
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.formats.members import Damaged
from opencoder_jax.beam_pipelines.sources.formats.rows import integer
from opencoder_jax.beam_pipelines.sources.inputs import Unit, rows_of, split_path
from opencoder_jax.recipe import UserError

Config = TypeVar("Config")


def read_stars(path: str) -> Mapping[str, int]:
    """Stars by repository; none for the path "". It's read once a process, and again after a change.

    Raises:
        UserError: the file is missing, damaged, or lacks the columns repository and stars.
    """
    if not path:
        return {}
    folder, name = split_path(path)
    if not Directory(folder).exists(name):
        raise UserError(f"stars_table {path}: no such file")
    return _read(path, Directory(folder).changed(name))


@cache
def _read(path: str, _changed: int) -> Mapping[str, int]:
    folder, name = split_path(path)
    columns = {"repository": "repository", "stars": "stars"}
    try:
        rows = (row for _, row in rows_of(Unit(folder, name, 0), columns, tuple(columns)) if isinstance(row, dict))
        return {str(row["repository"]): integer(row["stars"]) for row in rows}
    except Damaged as error:
        raise UserError(f"stars_table {path}: damaged or cut short ({error}); fetch it again") from None


def with_digest(config: Config) -> Config:
    """A configuration with its field `stars_table`, if it has one, made a digest of the file: what a plan holds.

    So another table makes a stage stale, and another place for the same table doesn't. The table's mistakes are the
    user's before any worker starts.

    Raises:
        UserError: as `read_stars`.
    """
    path: str = getattr(config, "stars_table", "")
    if not path:
        return config
    read_stars(path)
    folder, name = split_path(path)
    return replace(config, stars_table=digest(Directory(folder), name))  # type: ignore[type-var]
