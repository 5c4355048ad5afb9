"""What sources read: the files of their inputs, and the rows of Parquet and JSON-lines files.

.parquet, .jsonl and .json are read, the last two also with .gz or .zst, and side tables as .csv too. Rows come by names
of our own for their columns; a dot in a column's name leads into a nested one. No table but a .csv is held in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

TABLES = (".parquet", *(kind + packed for kind in (".jsonl", ".json") for packed in ("", ".gz", ".zst")))
_PACKED = {"gz": "gzip", "zst": "zstd"}
_ROWS = 2_000  # of a table at a time, where they are small

Rows = Iterator[tuple[int, dict[str, Any] | str]]


class Unit(NamedTuple):
    """A file or repository of the input.

    Attributes:
        directory: that holds it.
        name: in that directory.
        size: in bytes.
        state: what else tells whether it changed: a commit, a time.
    """

    directory: str
    name: str
    size: int
    state: str = ""


def split_path(path: str) -> tuple[str, str]:
    """A file's folder and its name in it."""
    folder, _, name = path.rstrip("/").rpartition("/")
    return folder or ("/" if path.startswith("/") else "."), name


def list_units(inputs: Sequence[str], endings: tuple[str, ...]) -> list[Unit]:
    """The files of all inputs, folders or files, whose names have one of some endings; by their names.

    Raises:
        UserError: an input is missing or holds no such file, or two files have one name.
    """
    if not inputs:
        raise UserError("no input is given")
    units: list[Unit] = []
    for given in inputs:
        folder, name = split_path(given)
        names = [name]
        if not (name.endswith(endings) and Directory(folder).exists(name)):
            folder, names = given, [name for name in Directory(given).names() if name.endswith(endings)]
        if not names:
            known = Directory(given).exists()
            wrong = f"no file ends in {', '.join(endings)}" if known else "no such file or folder"
            raise UserError(f"input {given}: {wrong}")
        units += [Unit(folder, name, Directory(folder).size(name)) for name in names]
    units.sort(key=lambda unit: (unit.name, unit.directory))
    for unit, other in pairwise(units):
        if unit.name == other.name:
            raise UserError(f"{unit.directory} and {other.directory} both hold {unit.name}; collect them in two runs")
    return units


def rows_of(file: Unit, columns: Mapping[str, str], required: Sequence[str]) -> Rows:
    """The rows of a file: (its number there, its fields by our names, or why it has none).

    Args:
        columns: our name -> the column's.
        required: those of our names whose columns must be there; another that is missing is None in every row.

    Raises:
        UserError: the file is damaged, one JSON array, or lacks a required column.
    """
    read = _table_rows if file.name.endswith((".parquet", ".csv")) else _json_rows
    try:
        with Directory(file.directory).read(file.name) as stream:
            yield from read(stream, file, columns, required)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file.directory}/{file.name}: damaged or cut short ({reason}); fetch it again") from None


def _table_rows(stream: pa.NativeFile, file: Unit, columns: Mapping[str, str], required: Sequence[str]) -> Rows:
    if file.name.endswith(".csv"):
        table = pyarrow.csv.read_csv(stream)
        _require(file, columns, required, table.column_names)
        batches = table.to_batches()
    else:
        parquet = pq.ParquetFile(stream)
        names = parquet.schema_arrow.names
        _require(file, columns, required, names)
        wanted = sorted({column.split(".")[0] for column in columns.values()} & set(names))
        batches = parquet.iter_batches(batch_size=_ROWS, columns=wanted)
    for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        yield number, {name: _field(row, column) for name, column in columns.items()}


def _json_rows(stream: pa.NativeFile, file: Unit, columns: Mapping[str, str], required: Sequence[str]) -> Rows:
    packed = _PACKED.get(file.name.rpartition(".")[2])
    for number, line in enumerate(_lines(pa.CompressedInputStream(stream, packed) if packed else stream), 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip()[:1] == b"[":
            advice = f"make lines of it: jq -c '.[]' {file.name}"
            raise UserError(f"{file.directory}/{file.name}: one JSON array, not a line a row; {advice}")
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"line {number}: {error}"
            continue
        if not isinstance(row, dict):
            yield number, f"line {number}: no JSON object"
            continue
        if number == 1:
            _require(file, columns, required, list(row))
        yield number, {name: _field(row, column) for name, column in columns.items()}


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _require(file: Unit, columns: Mapping[str, str], required: Sequence[str], names: Sequence[str]) -> None:
    for missing in (columns[name] for name in required if columns[name].split(".")[0] not in names):
        advice = "name the columns that hold them by --gin.…"
        if "text" in required:
            advice = "name the column of the text: --gin.TablesConfig.text=…"
            if {"repo_name", "sub_path"} <= set(names):
                advice = "it's RefineCode's metadata, without any text: see python -m beam_pipelines join_metadata"
            if "blob_id" in names:
                advice = "it has only the blobs' ids; fetch their contents into such a column first"
        raise UserError(f"{file.directory}/{file.name}: no column {missing!r} in {', '.join(names)}; {advice}")


def _field(row: Mapping[str, Any], column: str) -> Any:
    value: Any = row
    for step in column.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def integer(value: Any) -> int:
    """A field that should be a whole number; 0 where it's none."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
