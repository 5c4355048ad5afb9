"""What sources read: the files of their inputs, and the rows of Parquet and JSON files.

.parquet, .jsonl and .json are read, the last two also with .gz or .zst, and side tables as .csv too. JSON is a row a
line, or one array of rows. Rows come by names of our own for their columns; a dot in a column's name leads into a
nested one. No table but a .csv is held in memory.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from opencoder_jax.beam_pipelines.core.manifest import MANIFEST, PLAN
from opencoder_jax.beam_pipelines.core.storage import Directory
from opencoder_jax.recipe import UserError

TABLES = (".parquet", *(kind + packed for kind in (".jsonl", ".json") for packed in ("", ".gz", ".zst")))
_PACKED = {"gz": "gzip", "zst": "zstd"}
_ROWS = 2_000  # of a table at a time, where they are small
_BLOCK = 1 << 20  # bytes of JSON read at once
_BETWEEN = re.compile(r"\s*,?\s*")  # elements of an array

# What lies beside tables and is none: Hugging Face's descriptions of a data set, and a stage's of itself.
_DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", MANIFEST, PLAN)

Rows = Iterator[tuple[int, dict[str, Any] | str]]
_Require = Callable[[Sequence[str]], None]  # says what is wrong with the names of columns


class Unit(NamedTuple):
    """A file or repository of the input.

    Attributes:
        directory: that holds it.
        name: in that directory, or in a folder of it, with forward slashes.
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

    Folders are read with all that lies in their folders, as data sets are published, but for what stages wrote there.

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
            folder, names = given, _published(Directory(given).tree(), endings)
        if not names:
            known = Directory(given).exists()
            wrong = f"no file ends in {', '.join(endings)}" if known else "no such file or folder"
            raise UserError(f"input {given}: {wrong}")
        units += [Unit(folder, name, Directory(folder).size(name)) for name in names]
    units.sort(key=lambda unit: (unit.name, unit.directory))
    for unit, other in pairwise(units):
        if unit.name == other.name:
            both = f"{unit.directory} and {other.directory} both hold {unit.name}"
            raise UserError(f"{both}; give a folder that holds them both")
    return units


def _published(paths: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    """Those of some endings, without descriptions and without what lies in a stage's directory below the top."""
    folders = {path: split_path(path) for path in paths}
    stages = {folder for folder, name in folders.values() if name in (MANIFEST, PLAN) and folder != "."}
    return [
        path
        for path, (folder, name) in folders.items()
        if name.endswith(endings)
        and name not in _DESCRIPTIONS
        and not any(f"{folder}/".startswith(f"{stage}/") for stage in stages)
    ]


def rows_of(
    file: Unit,
    columns: Mapping[str, str],
    required: Sequence[str],
    advice: Callable[[Sequence[str]], str] = lambda names: "name the columns that hold them by --gin.…",
) -> Rows:
    """The rows of a file: (its number there, its fields by our names, or why it has none).

    Args:
        columns: our name -> the column's.
        required: those of our names whose columns must be there; another that is missing is None in every row.
        advice: what to do where one isn't, for the columns that are.

    Raises:
        UserError: the file is damaged, or lacks a required column.
    """
    read = _table_rows if file.name.endswith((".parquet", ".csv")) else _json_rows

    def require(names: Sequence[str]) -> None:
        for missing in (columns[name] for name in required if columns[name].split(".")[0] not in names):
            which = f"no column {missing!r} in {', '.join(names)}"
            raise UserError(f"{file.directory}/{file.name}: {which}; {advice(names)}")

    try:
        with Directory(file.directory).read(file.name) as stream:
            yield from read(stream, file, columns, require)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file.directory}/{file.name}: damaged or cut short ({reason}); fetch it again") from None


def _table_rows(stream: pa.NativeFile, file: Unit, columns: Mapping[str, str], require: _Require) -> Rows:
    if file.name.endswith(".csv"):
        table = pyarrow.csv.read_csv(stream)
        require(table.column_names)
        batches = table.to_batches()
    else:
        parquet = pq.ParquetFile(stream)
        names = parquet.schema_arrow.names
        require(names)
        wanted = sorted({column.split(".")[0] for column in columns.values()} & set(names))
        batches = parquet.iter_batches(batch_size=_ROWS, columns=wanted)
    for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        yield number, {name: _field(row, column) for name, column in columns.items()}


def _json_rows(stream: pa.NativeFile, file: Unit, columns: Mapping[str, str], require: _Require) -> Rows:
    packed = _PACKED.get(file.name.rpartition(".")[2])
    unpacked = pa.CompressedInputStream(stream, packed) if packed else stream
    blocks: Iterable[bytes] = iter(lambda: unpacked.read(_BLOCK), b"")
    head = next(iter(blocks), b"").removeprefix(codecs.BOM_UTF8)
    blocks = chain([head], blocks)
    kind, values = ("element", _elements(blocks)) if head.lstrip()[:1] == b"[" else ("line", _lines(blocks))
    first = True
    for number, row in values:
        if isinstance(row, ValueError):
            yield number, f"{kind} {number}: {row}"
        elif not isinstance(row, dict):
            yield number, f"{kind} {number}: no JSON object"
        else:
            if first:
                require(list(row))
            first = False
            yield number, {name: _field(row, column) for name, column in columns.items()}


def _lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """The value of each line that isn't empty, or the ValueError, with the line's number."""

    def lines() -> Iterator[bytes]:
        rest = b""
        for block in blocks:
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        yield rest

    for number, line in enumerate(lines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            yield number, error
        except RecursionError:
            yield number, ValueError("too deeply nested")


def _elements(blocks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """The elements of one array, with their numbers from 1; only the one that is parsed is held in memory."""
    texts = codecs.iterdecode(blocks, "utf-8", "surrogateescape")
    parse = json.JSONDecoder().raw_decode
    text = next(texts)
    at, number = text.index("[") + 1, 0
    while True:
        found = _BETWEEN.match(text, at)
        at = found.end() if found else at
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip() or any(more.strip() for more in texts):
                raise OSError(f"something stands behind the array of {number} elements")
            return
        try:
            value, at = parse(text, at)
        except RecursionError:
            raise OSError(f"element {number + 1} is too deeply nested") from None
        except ValueError as error:
            # Broken, or not all of it is here: twice as much is read, so that the work stays in proportion.
            more = "".join(islice(texts, 1 + (len(text) - at) // _BLOCK))
            if not more:
                raise OSError(f"element {number + 1}: {error}") from None
            text, at = text[at:] + more, 0
            continue
        number += 1
        yield number, value


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
