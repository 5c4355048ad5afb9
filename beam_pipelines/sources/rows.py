"""Reads the rows of Parquet and JSON-lines files by names of our own for their columns.

.parquet, .jsonl and .json are read, the last two also with .gz or .zst; a dot in a column's name leads into a nested
one. No file is held in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.beam_pipelines.sources.units import Unit
from opencoder_jax.recipe import UserError

_ENDINGS = (".parquet", *(kind + packed for kind in (".jsonl", ".json") for packed in ("", ".gz", ".zst")))
_ROWS = 2_000  # of a table at a time, where they are small


def list_tables(inputs: Sequence[str]) -> list[Unit]:
    """The files of all inputs, folders or files, by their names.

    Raises:
        UserError: an input is missing, or holds no table.
    """
    found: list[Unit] = []
    for given in inputs:
        parent, _, last = given.rstrip("/").rpartition("/")
        if last.endswith(_ENDINGS) and Directory(parent or ".").exists(last):
            names, folder = [last], parent or "."
        else:
            if not Directory(given).exists():
                raise UserError(f"input {given}: no such file or folder")
            names, folder = [name for name in Directory(given).names() if name.endswith(_ENDINGS)], given
        if not names:
            raise UserError(f"input {given}: no file ends in {', '.join(_ENDINGS)}")
        found += [Unit(folder, name, Directory(folder).size(name)) for name in names]
    found.sort(key=lambda file: (file.name, file.directory))
    for file, other in pairwise(found):
        if file.name == other.name:
            raise UserError(f"{file.directory} and {other.directory} both hold {file.name}; collect them in two runs")
    return found


def rows_of(
    file: Unit, columns: Mapping[str, str], required: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The rows of a file: (its place in the file, its fields by our names, or why it has none).

    Args:
        columns: our name -> the column's.
        required: those of our names whose columns must be there; another that is missing is None in every row.

    Raises:
        UserError: the file is damaged, one JSON array, or lacks a required column.
    """
    try:
        if file.name.endswith(".parquet"):
            yield from _parquet_rows(file, columns, required)
        else:
            yield from _json_rows(file, columns, required)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file.directory}/{file.name}: damaged or cut short ({reason}); fetch it again") from None


def _parquet_rows(
    file: Unit, columns: Mapping[str, str], required: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    with Directory(file.directory).read(file.name) as stream:
        table = pq.ParquetFile(stream)
        names = table.schema_arrow.names
        _require(file, columns, required, names)
        wanted = sorted({column.split(".")[0] for column in columns.values()} & set(names))
        number = 0
        for batch in table.iter_batches(batch_size=_ROWS, columns=wanted):
            for row in batch.to_pylist():
                yield str(number), {name: _field(row, column) for name, column in columns.items()}
                number += 1


def _json_rows(
    file: Unit, columns: Mapping[str, str], required: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip()[:1] == b"[":
            place = f"{file.directory}/{file.name}"
            raise UserError(f"{place}: one JSON array, not a line a row; make lines of it: jq -c '.[]' {file.name}")
        try:
            row = json.loads(line)
        except ValueError as error:
            yield str(number), f"line {number}: {error}"
            continue
        if not isinstance(row, dict):
            yield str(number), f"line {number}: no JSON object"
            continue
        if number == 1:
            _require(file, columns, required, list(row))
        yield str(number), {name: _field(row, column) for name, column in columns.items()}


def _lines(file: Unit) -> Iterator[bytes]:
    with Directory(file.directory).read(file.name) as stream:
        packed = {".gz": "gzip", ".zst": "zstd"}.get(file.name[file.name.rfind(".") :])
        source = pa.CompressedInputStream(stream, packed) if packed else stream
        rest = b""
        while block := source.read(1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest


def _require(file: Unit, columns: Mapping[str, str], required: Sequence[str], names: Sequence[str]) -> None:
    for missing in (columns[name] for name in required if columns[name].split(".")[0] not in names):
        advice = "name the columns that hold them by --gin.…"
        if "blob_id" in names and "text" in required:
            advice = "it has only the blobs' ids; fetch their contents into such a column first"
        elif {"repo_name", "sub_path"} <= set(names) and "text" in required:
            advice = (
                "it's RefineCode's metadata, without any text: see opencoder_jax.beam_pipelines.sources.join_metadata"
            )
        elif "text" in required:
            advice = "name the column of the text: --gin.TablesConfig.text=…"
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
